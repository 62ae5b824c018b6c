"""Goose, whose provider for Ollama speaks OpenAI's API."""

from __future__ import annotations

import pytest

from tests.integrations.installing import Installer
from tests.integrations.kit import Client
from tests.integrations.loop import FULL_NAME, THINKER


@pytest.mark.parametrize("model", [FULL_NAME, THINKER])
def test_it_walks_the_loop(installer: Installer, client: Client, model: str) -> None:
    # The program for the command line comes with the terminal interface, as one of its dependencies.
    package = installer.npm("@aaif/goose@0.20.1")
    version = client.run(package, "goose", "--version").strip()
    output = client.run(
        package,
        *("goose", "run", "--no-session", "--with-builtin", "developer", "--text", "Run echo hi."),
        GOOSE_PROVIDER="ollama",
        GOOSE_MODEL=model,
        OLLAMA_HOST=client.url,
        GOOSE_INPUT_LIMIT="6400",
        GOOSE_MODE="auto",
        GOOSE_DISABLE_KEYRING="1",
        GOOSE_TELEMETRY_ENABLED="false",
    )
    client.walked(output, calls=3)  # one is for a title
    assert 6400 in client.contexts()
    client.keep("Goose", version, page="goose")

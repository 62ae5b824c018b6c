"""Goose, whose provider for Ollama speaks OpenAI's API."""

from __future__ import annotations

from tests.integrations.installing import Installer
from tests.integrations.kit import Client


def test_it_walks_the_loop(installer: Installer, client: Client) -> None:
    # The program of the command line comes with the terminal interface, as one of its dependencies.
    package = installer.npm("@aaif/goose@0.20.1")
    output = client.run(
        package,
        *("goose", "run", "--no-session", "--with-builtin", "developer", "--text", "Run echo hi."),
        GOOSE_PROVIDER="ollama",
        GOOSE_MODEL=client.model,
        OLLAMA_HOST=client.url,
        GOOSE_MODE="auto",
        GOOSE_DISABLE_KEYRING="1",
        GOOSE_TELEMETRY_ENABLED="false",
    )
    client.walked(output, calls=3)  # one is for a title
    version = client.run(package, "goose", "--version").strip()
    client.keep("Goose", version, page="goose")

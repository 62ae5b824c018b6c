"""opencode, which speaks OpenAI's Chat Completions API."""

from __future__ import annotations

import json

import pytest

from tests.integrations.installing import Installer
from tests.integrations.kit import Client
from tests.integrations.loop import FULL_NAME, THINKER


@pytest.mark.parametrize("model", [FULL_NAME, THINKER])
def test_it_walks_the_loop(installer: Installer, client: Client, model: str) -> None:
    package = installer.npm("opencode-ai@1.18.33")
    provider = {
        "npm": "@ai-sdk/openai-compatible",
        "name": "corectl",
        "options": {"baseURL": f"{client.url}/v1"},
        "models": {model: {"limit": {"context": 32768, "output": 8192}}},
    }
    folder = client.home / ".config/opencode"
    folder.mkdir(parents=True)
    settings = {"share": "disabled", "autoupdate": False, "provider": {"corectl": provider}}
    (folder / "opencode.json").write_text(json.dumps(settings))
    output = client.run(
        package,
        *("opencode", "run", "--model", f"corectl/{model}", "Run echo hi."),
        OPENCODE_DISABLE_AUTOUPDATE="1",
        OPENCODE_DISABLE_MODELS_FETCH="1",
        OPENCODE_DISABLE_LSP_DOWNLOAD="1",
    )
    client.walked(output, calls=2)
    client.keep("opencode", package.version, page="opencode")

"""Qwen Code, which speaks OpenAI's Chat Completions API."""

from __future__ import annotations

import json

import pytest

from tests.integrations.installing import Installer
from tests.integrations.kit import Client
from tests.integrations.loop import FULL_NAME, THINKER


@pytest.mark.parametrize("model", [FULL_NAME, THINKER])
def test_it_walks_the_loop(installer: Installer, client: Client, model: str) -> None:
    package = installer.npm("@qwen-code/qwen-code@0.24.4")
    settings = {
        "privacy": {"usageStatisticsEnabled": False},
        "telemetry": {"enabled": False},
        "general": {"enableAutoUpdate": False},
        "security": {"auth": {"selectedType": "openai"}},
        "model": {"generationConfig": {"contextWindowSize": 32768}},
    }
    folder = client.home / ".qwen"
    folder.mkdir()
    (folder / "settings.json").write_text(json.dumps(settings))
    output = client.run(
        package,
        *("qwen", "--approval-mode", "yolo", "-p", "Run echo hi."),
        OPENAI_BASE_URL=f"{client.url}/v1",
        OPENAI_API_KEY="corectl",
        OPENAI_MODEL=model,
    )
    client.walked(output, calls=2)
    client.keep("Qwen Code", package.version, page="qwen-code")

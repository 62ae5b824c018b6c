"""The Vercel AI SDK with its provider for Ollama, which speaks Ollama's API by Ollama's own JavaScript client."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import pytest

from tests.conftest import DATA, Server
from tests.frontends.conftest import create, upload
from tests.integrations.installing import Installer
from tests.integrations.kit import Client
from tests.integrations.loop import DONE, TOOLS

CITY = TOOLS["get_weather"]["city"]


@pytest.fixture(scope="module")
def embedder(loop_server: Server) -> str:
    """The name of a model for vectors of 64 numbers."""
    file = (DATA / "tinybert.gguf").read_bytes()
    create(loop_server, "tinybert", files={"tinybert.gguf": upload(loop_server, file)})
    return "tinybert"


def test_it_walks_the_loop_and_asks_the_rest(installer: Installer, client: Client, embedder: str) -> None:
    package = installer.npm("ai-sdk-ollama@4.3.0", "ai@7.0.173", "zod@4.6.7")
    # Node looks for packages beside the script.
    (client.work / "node_modules").symlink_to(package.folder / "node_modules")
    shutil.copy(Path(__file__).with_name("ai_sdk.mjs"), client.work)
    output = client.run(package, "node", "ai_sdk.mjs", client.url, client.model, embedder)
    seen: dict[str, Any] = json.loads(output.splitlines()[-1])

    assert seen["asked"] == [CITY, CITY] and seen["results"] == [f"Sunny in {CITY}"]
    assert seen["whole"] == seen["streamed"] == DONE
    assert seen["steps"] == ["tool-calls", "stop"]
    assert seen["usage"]["inputTokens"] > 0 and seen["usage"]["outputTokens"] > 0
    kinds = [
        kind for kind, before in zip(seen["parts"], ["", *seen["parts"]], strict=False) if kind != before
    ]
    assert kinds == [
        *("start", "start-step", "tool-call", "tool-result", "finish-step"),
        *("start-step", "text-start", "text-delta", "text-end", "finish-step", "finish"),
    ]
    assert list(seen["object"]) == ["sunny"] and isinstance(seen["object"]["sunny"], bool)
    assert seen["lengths"] == [64, 64]
    assert seen["missing"] == {"status": 404, "message": "model 'absent' not found"}
    assert 1024 in client.contexts()
    client.served(calls=6, refused=["POST /api/chat"])
    client.keep("Vercel AI SDK", package.version, page="vercel-ai-sdk")

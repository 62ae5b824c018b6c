"""Pydantic AI, with its provider for Ollama and with those for OpenAI's two APIs."""

from __future__ import annotations

import pytest

from tests.integrations import programs
from tests.integrations.installing import Installer
from tests.integrations.kit import Client

PACKAGE = "pydantic-ai-slim[openai]==2.31.1"


MODELS = ("OllamaModel", "OpenAIChatModel", "OpenAIResponsesModel")


@pytest.mark.parametrize(("index", "model"), list(enumerate(MODELS)))
def test_an_agent_and_an_object(installer: Installer, client: Client, index: int, model: str) -> None:
    package = installer.pypi(PACKAGE)
    output = programs.run(client, package, "pydantic-ai", index)
    programs.asked_a_tool_and_filled_a_form(output)
    client.served(calls=3)
    client.keep(f"Pydantic AI, {model}", package.version, page="pydantic-ai")

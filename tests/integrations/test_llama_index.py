"""LlamaIndex, with its packages for Ollama's API and for servers like OpenAI's."""

from __future__ import annotations

import pytest

from tests.integrations import programs
from tests.integrations.installing import Installer
from tests.integrations.kit import Client

PACKAGES = ("llama-index-llms-ollama==0.11.0", "llama-index-llms-openai-like==0.8.1")


@pytest.mark.parametrize(("index", "used"), list(enumerate(PACKAGES)))
def test_an_agent_and_an_object(installer: Installer, client: Client, index: int, used: str) -> None:
    output = programs.run(client, installer.pypi(*PACKAGES), "llama-index", index)
    programs.asked_a_tool_and_filled_a_form(output)
    client.served(calls=3)
    client.keep(*used.split("=="), page="llama-index")

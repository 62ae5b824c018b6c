"""LangChain, with its packages for Ollama's API and for OpenAI's."""

from __future__ import annotations

import pytest

from tests.integrations import programs
from tests.integrations.installing import Installed, Installer
from tests.integrations.kit import Client

PACKAGES = ("langchain-ollama==1.1.0", "langchain-openai==1.7.4", "langchain==1.5.2")


@pytest.fixture
def package(installer: Installer) -> Installed:
    return installer.pypi(*PACKAGES)


@pytest.mark.parametrize(("index", "used"), list(enumerate(PACKAGES[:2])))
def test_an_agent_and_an_object(package: Installed, client: Client, index: int, used: str) -> None:
    output = programs.run(client, package, "langchain", index)
    programs.asked_a_tool_and_filled_a_form(output)
    client.served(calls=4)
    client.keep(*used.split("=="), page="langchain")


def test_embeddings(package: Installed, client: Client) -> None:
    programs.create_embedder(client)
    output = programs.run(client, package, "langchain", 2)
    assert output.split() == [str(programs.WIDTH)] * 2
    assert [one.path for one in client.requests()][-2:] == ["/api/embed", "/v1/embeddings"]
    client.served(calls=0)

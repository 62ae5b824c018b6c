"""Frameworks for programs: the programs on their pages are run as they stand there, with another model and address."""

from __future__ import annotations

import re

from tests.conftest import DATA
from tests.docs.blocks import ROOT, read_page
from tests.frontends.conftest import create, upload
from tests.integrations.installing import Installed
from tests.integrations.kit import Client
from tests.integrations.loop import DONE, TOOLS

EMBEDDER = "tinybert"
WIDTH = 64
"""Numbers in each of its vectors."""

WEATHER = re.compile(r'^\{"sky":"(clear|cloudy|rainy)","degrees":-?\d+\}$', re.MULTILINE)


def run(client: Client, package: Installed, page: str, index: int) -> str:
    """What one of the Python programs of a page of docs/integrations prints. Each must succeed."""
    blocks = [
        block for block in read_page(ROOT / f"docs/integrations/{page}.md") if block.language == "python"
    ]
    text = blocks[index].text
    for shown, real in (
        ("http://localhost:11434", client.url),
        ("qwen3:8b", client.model),
        ("all-minilm", EMBEDDER),
    ):
        text = text.replace(shown, real)
    assert client.url in text
    (client.work / "program.py").write_text(text, "utf-8")
    return client.run(package, "python", "program.py")


def asked_a_tool_and_filled_a_form(output: str) -> None:
    """The program has run the tool that the model called, shown the last word, and got an object of its class."""
    assert f"asked for {TOOLS['get_weather']['city']}" in output, output
    assert DONE in output, output
    assert WEATHER.search(output), output


def create_embedder(client: Client) -> None:
    data = (DATA / "tinybert.gguf").read_bytes()
    create(client.server, EMBEDDER, files={"tinybert.gguf": upload(client.server, data)})

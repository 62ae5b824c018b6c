"""gptme, which speaks OpenAI's Chat Completions."""

from __future__ import annotations

from tests.conftest import MODEL
from tests.frontends.conftest import create
from tests.integrations.installing import Installer
from tests.integrations.kit import Client
from tests.integrations.loop import COMMAND, DONE

WRITER = "clientblocks"
_ASKED = "<|im_start|>user\nWhat do you do?<|im_end|>\n<|im_start|>assistant\n"
_BLOCK = f"{_ASKED}```shell\n{COMMAND}\n```\n<|im_end|>\n"
_TEXT = f"{_ASKED}{DONE}<|im_end|>\n"
TEMPLATE = (
    "{{- $answered := false }}"
    '{{- range .Messages }}{{ if eq .Role "assistant" }}{{ $answered = true }}{{ end }}{{ end }}'
    "{{- if $answered }}" + 3 * _TEXT + "{{- else }}" + 3 * _BLOCK + "{{- end }}" + _ASKED
)
"""Writes a command as a block of code, once; the request for a title is answered with one, too."""


def test_it_walks_the_loop(installer: Installer, client: Client) -> None:
    package = installer.pypi("gptme==0.35.1")
    output = client.run(
        package,
        *(
            "gptme",
            "--non-interactive",
            "--tools",
            "shell",
            "--model",
            f"local/{client.model}",
            "Run echo hi.",
        ),
        OPENAI_BASE_URL=f"{client.url}/v1",
        OPENAI_API_KEY="corectl",
    )
    client.walked(output, calls=2)
    client.keep("gptme", package.version, page="gptme")


def test_a_model_without_tools_writes_blocks_of_code(installer: Installer, client: Client) -> None:
    create(client.server, WRITER, **{"from": MODEL}, template=TEMPLATE, parameters={"top_k": 1})
    package = installer.pypi("gptme==0.35.1")
    output = client.run(
        package,
        *("gptme", "--non-interactive", "--tools", "shell", "--tool-format", "markdown"),
        *("--model", f"local/{WRITER}", "Run echo hi."),
        OPENAI_BASE_URL=f"{client.url}/v1",
        OPENAI_API_KEY="corectl",
    )
    client.walked(output, calls=2)

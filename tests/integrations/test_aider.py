"""aider, which speaks Ollama's API. It declares no tools: the model writes whole files into its reply."""

from __future__ import annotations

import re
import subprocess

import pytest

from tests.conftest import MODEL, Server
from tests.frontends.conftest import create
from tests.integrations.installing import Installer
from tests.integrations.kit import Client
from tests.integrations.loop import DONE, SAID

WRITER = "clientwriter"
_QUIET = (
    *("--analytics-disable", "--no-check-update", "--no-show-release-notes", "--no-show-model-warnings"),
    *("--no-pretty", "--yes-always"),
)

_ASKED = "<|im_start|>user\nWhat do you do?<|im_end|>\n<|im_start|>assistant\n"
_FILE = f"{_ASKED}{SAID}\n```\nhi\n```\n<|im_end|>\n"
_TEXT = f"{_ASKED}{DONE}<|im_end|>\n"
TEMPLATE = "{{- if gt (len .Messages) 2 }}" + 3 * _FILE + "{{- else }}" + 3 * _TEXT + "{{- end }}" + _ASKED
"""Writes a file, and says `DONE` to what has two messages: the request for the words of a commit."""

CONTEXT = 2048
SETTINGS = f"""\
- name: ollama_chat/{WRITER}
  extra_params:
    num_ctx: {CONTEXT}
"""
"""Else aider asks for another context in each turn, and for each the model is loaded again."""


@pytest.fixture(scope="session")
def writer(loop_server: Server) -> str:
    create(loop_server, WRITER, **{"from": MODEL}, template=TEMPLATE, parameters={"top_k": 1})
    return WRITER


def test_it_writes_a_file_and_commits_it(installer: Installer, writer: str, client: Client) -> None:
    for command in (
        ("init", "-q"),
        ("config", "user.name", "Test"),
        ("config", "user.email", "test@localhost"),
    ):
        subprocess.run(["git", *command], cwd=client.work, check=True)
    (client.work / ".aider.model.settings.yml").write_text(SETTINGS)
    package = installer.pypi("aider-chat==0.86.2")
    client.run(
        package,
        *("aider", "--model", f"ollama_chat/{writer}", *_QUIET, "--message", f"Write hi into {SAID}."),
        OLLAMA_API_BASE=client.url,
    )
    assert (client.work / SAID).read_text() == "hi\n", client.output
    log = subprocess.run(
        ["git", "log", "--format=%s", "--", SAID], cwd=client.work, check=True, capture_output=True, text=True
    )
    assert log.stdout == f"{DONE}\n", client.output
    loads = re.findall(rf"loaded {writer}:latest .* a context of (\d+) tokens", client.server.log)
    assert loads == [str(CONTEXT)], "once, with the context of the settings"
    client.served(calls=2)
    client.keep("aider", package.version, page="aider")

"""Claude Code, which speaks Anthropic's Messages API."""

from __future__ import annotations

from pathlib import Path

import pytest

from tests.conftest import MODEL, Server
from tests.frontends.conftest import create
from tests.integrations.conftest import Machine
from tests.integrations.installing import Installer
from tests.integrations.kit import Client
from tests.integrations.loop import DONE, FULL_NAME, THINKER, template

PACKAGE = "@anthropic-ai/claude-code@2.1.332"


def ask(installer: Installer, client: Client, model: str, *flags: str) -> str:
    """What it prints of one conversation, with everything of its own kept quiet."""
    return client.run(
        installer.npm(PACKAGE),
        *("claude", "-p", "Run echo hi.", "--model", model, "--allowedTools", "Bash", *flags),
        ANTHROPIC_BASE_URL=client.url,
        ANTHROPIC_AUTH_TOKEN="corectl",
        ANTHROPIC_API_KEY="",
        ANTHROPIC_DEFAULT_OPUS_MODEL=model,
        ANTHROPIC_DEFAULT_SONNET_MODEL=model,
        ANTHROPIC_DEFAULT_HAIKU_MODEL=model,
        CLAUDE_CODE_ATTRIBUTION_HEADER="0",
        CLAUDE_CODE_DISABLE_NONESSENTIAL_TRAFFIC="1",
        DISABLE_TELEMETRY="1",
        DISABLE_ERROR_REPORTING="1",
        DISABLE_AUTOUPDATER="1",
    )


@pytest.mark.parametrize("model", [FULL_NAME, THINKER])
def test_it_walks_the_loop(installer: Installer, client: Client, model: str) -> None:
    output = ask(installer, client, model)
    client.walked(output, calls=2)
    client.keep("Claude Code", installer.npm(PACKAGE).version, page="claude-code")


def test_a_conversation_that_is_too_long_is_summed_up(
    installer: Installer, machine: Machine, tmp_path: Path
) -> None:
    """The model reads no more than the results of its tool, and there is room for one.

    As soon as it is asked for a summary, or has one before it, it says its last word: both are
    longer than the user's turns.
    """
    made = "{{- $short := true }}" + template({"Bash": {"command": "seq 1 150", "description": "Count"}})
    made = made.replace(
        '{{- if eq .Role "tool" }}{{ $answered = true }}{{ end }}',
        '{{- if eq .Role "tool" }}{{ .Content }}{{ $answered = true }}{{ end }}'
        '{{- if eq .Role "user" }}{{ $short = and $short (lt (len .Content) 1000) }}'
        "{{ $answered = not $short }}{{ end }}",
    )
    server = Server(tmp_path, CORECTL_LOG_FORMAT="json", CORECTL_STRICT_CONTEXT="1")
    client = Client(server, tmp_path, offline=machine.offline)
    try:
        create(server, "counts", **{"from": MODEL}, template=made, parameters={"top_k": 1, "num_ctx": 1024})
        ask(installer, client, "counts")
        output = ask(installer, client, "counts", "--continue", "--output-format", "stream-json", "--verbose")
    finally:
        client.end_leftovers()
        assert server.stop() == 0, server.log
    assert DONE in output and '"compact_result":"success"' in output, output
    outcomes = [one.outcome for one in client.requests()]
    assert "context_length_exceeded" in outcomes and outcomes[-1] == "finished", outcomes

"""Claude Code, which speaks Anthropic's Messages API."""

from __future__ import annotations

import pytest

from tests.integrations.installing import Installer
from tests.integrations.kit import Client
from tests.integrations.loop import FULL_NAME, THINKER


@pytest.mark.parametrize("model", [FULL_NAME, THINKER])
def test_it_walks_the_loop(installer: Installer, client: Client, model: str) -> None:
    package = installer.npm("@anthropic-ai/claude-code@2.1.332")
    output = client.run(
        package,
        *("claude", "-p", "Run echo hi.", "--model", model, "--allowedTools", "Bash"),
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
    client.walked(output, calls=2)
    client.keep("Claude Code", package.version, page="claude-code")

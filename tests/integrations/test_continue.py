"""Continue, whose command line asks a provider `ollama` by OpenAI's API."""

from __future__ import annotations

import pytest

from tests.integrations.installing import Installer
from tests.integrations.kit import Client
from tests.integrations.loop import FULL_NAME, THINKER

CONFIG = """\
name: corectl
version: 0.0.1
schema: v1
models:
  - name: local
    provider: ollama
    model: {model}
    apiBase: {url}
    roles: [chat, edit, apply]
    capabilities: [tool_use]
    requestOptions:
      extraBodyProperties:
        num_ctx: 2048
"""


@pytest.mark.parametrize("model", [FULL_NAME, THINKER])
def test_it_walks_the_loop(installer: Installer, client: Client, model: str) -> None:
    package = installer.npm("@continuedev/cli@1.5.47")
    config = client.home / ".continue/config.yaml"
    config.parent.mkdir()
    config.write_text(CONFIG.format(model=model, url=client.url))
    output = client.run(
        package,
        *("cn", "-p", "Run echo hi.", "--config", str(config), "--allow", "Bash"),
        CONTINUE_TELEMETRY_ENABLED="0",
    )
    client.walked(output, calls=2)
    assert 2048 in client.contexts()
    client.keep("Continue", package.version, page="continue")

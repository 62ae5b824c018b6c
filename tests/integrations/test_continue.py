"""Continue, whose provider for Ollama speaks OpenAI's API as soon as there are tools."""

from __future__ import annotations

from tests.integrations.installing import Installer
from tests.integrations.kit import Client

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
"""


def test_it_walks_the_loop(installer: Installer, client: Client) -> None:
    package = installer.npm("@continuedev/cli@1.5.47")
    config = client.home / ".continue/config.yaml"
    config.parent.mkdir()
    config.write_text(CONFIG.format(model=client.model, url=client.url))
    output = client.run(
        package,
        *("cn", "-p", "Run echo hi.", "--config", str(config), "--allow", "Bash"),
        CONTINUE_TELEMETRY_ENABLED="0",
    )
    client.walked(output, calls=2)
    client.keep("Continue", package.version, page="continue")

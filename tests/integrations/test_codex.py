"""Codex, in both of its ways: a provider of one's own, and `--oss`. Both speak OpenAI's Responses API."""

from __future__ import annotations

from tests.integrations.installing import Installer
from tests.integrations.kit import Client

PACKAGE = "@openai/codex@0.171.0"
QUIET = """
check_for_update_on_startup = false

[analytics]
enabled = false

[feedback]
enabled = false
"""
ASKED = ("codex", "exec", "--skip-git-repo-check", "--sandbox", "danger-full-access", "Run echo hi.")


def test_a_provider_walks_the_loop(installer: Installer, client: Client) -> None:
    package = installer.npm(PACKAGE)
    settings(
        client,
        f'model = "{client.model}"\nmodel_provider = "corectl"\n{QUIET}\n'
        f'[model_providers.corectl]\nname = "corectl"\nbase_url = "{client.url}/v1"\n',
    )
    output = client.run(package, *ASKED)
    client.walked(output, calls=2)
    client.keep("Codex, a provider", package.version, page="codex")


def test_oss_walks_the_loop(installer: Installer, client: Client) -> None:
    package = installer.npm(PACKAGE)
    settings(client, QUIET)
    command = (*ASKED, "--oss", "--local-provider", "ollama", "--model", client.model)
    output = client.run(package, *command, CODEX_OSS_BASE_URL=f"{client.url}/v1")
    client.walked(output, calls=2)
    client.keep("Codex, --oss", package.version, page="codex")


def settings(client: Client, text: str) -> None:
    folder = client.home / ".codex"
    folder.mkdir()
    (folder / "config.toml").write_text(text)

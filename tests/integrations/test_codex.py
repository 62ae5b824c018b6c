"""Codex, in both of its ways: a provider of one's own, and `--oss`. Both speak OpenAI's Responses API."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest

from tests.frontends.conftest import delete, names, post
from tests.integrations.conftest import Machine
from tests.integrations.installing import Installer
from tests.integrations.kit import Client
from tests.integrations.loop import DONE, FULL_NAME, THINKER, create_loop
from tests.registry.certificates import Authority
from tests.registry.docker import DockerRegistry
from tests.registry.host import Host, forward
from tests.registry.served import transfer_server

PACKAGE = "@openai/codex@0.171.0"
QUIET = """
check_for_update_on_startup = false

[analytics]
enabled = false

[feedback]
enabled = false
"""
ASKED = ("codex", "exec", "--skip-git-repo-check", "--sandbox", "danger-full-access", "Run echo hi.")


@pytest.mark.parametrize("model", [FULL_NAME, THINKER])
def test_a_provider_walks_the_loop(installer: Installer, client: Client, model: str) -> None:
    package = installer.npm(PACKAGE)
    settings(
        client,
        f'model = "{model}"\nmodel_provider = "corectl"\nmodel_context_window = 32768\n'
        f'web_search = "disabled"\n{QUIET}\n'
        f'[model_providers.corectl]\nname = "corectl"\nbase_url = "{client.url}/v1"\n',
    )
    output = client.run(package, *ASKED)
    client.walked(output, calls=2)
    client.keep("Codex, a provider", package.version, page="codex")


@pytest.mark.parametrize("model", [FULL_NAME, THINKER])
def test_oss_walks_the_loop(installer: Installer, client: Client, model: str) -> None:
    package = installer.npm(PACKAGE)
    settings(client, QUIET)
    command = (*ASKED, "--oss", "--local-provider", "ollama", "--model", model)
    output = client.run(package, *command, CODEX_OSS_BASE_URL=f"{client.url}/v1")
    client.walked(output, calls=2)
    client.keep("Codex, --oss", package.version, page="codex")


def test_a_tool_of_a_namespace_is_found(installer: Installer, client: Client) -> None:
    """Such as the one that begins another agent, which asks the server too."""
    create_loop(client.server, "codex-spawns", {"multi_agent_v1.spawn_agent": {"message": "Run echo hi."}})
    settings(client, QUIET)
    command = (*ASKED, "--oss", "--local-provider", "ollama", "--model", "codex-spawns:latest")
    output = client.run(installer.npm(PACKAGE), *command, CODEX_OSS_BASE_URL=f"{client.url}/v1")
    assert DONE in output and "unsupported call" not in output, output
    client.served(calls=3)


@pytest.fixture
def far(machine: Machine, registry: DockerRegistry, tmp_path: Path) -> Iterator[Client]:
    """A server without models, whose `client.model` is in a registry; both are in the network of the tests."""
    folder = tmp_path / "far"
    folder.mkdir()
    authority = Authority(folder)
    server = transfer_server(folder, SSL_CERT_FILE=str(authority.file), CORECTL_LOG_FORMAT="json")
    with Host(forward(registry.url), tls=authority.context()) as host:
        name = f"{host.netloc}/codex/loop:latest"
        create_loop(server, name)
        assert post(server, "/api/push", model=name, stream=False).json() == {"status": "success"}
        delete(server, name)
        place = Client(server, tmp_path, offline=machine.offline)
        place.model = name
        yield place
        place.end_leftovers()
        assert server.stop() == 0, server.log


def test_oss_pulls_what_is_not_there(installer: Installer, far: Client) -> None:
    settings(far, QUIET)
    command = (*ASKED, "--oss", "--local-provider", "ollama", "--model", far.model)
    output = far.run(installer.npm(PACKAGE), *command, CODEX_OSS_BASE_URL=f"{far.url}/v1")
    far.walked(output, calls=2)
    assert far.model in names(far.server)
    assert "POST /api/pull" in [one.route for one in far.requests()]


def settings(client: Client, text: str) -> None:
    folder = client.home / ".codex"
    folder.mkdir()
    (folder / "config.toml").write_text(text)

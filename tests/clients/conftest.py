"""A server that pulls and pushes, a registry before it, and a model to begin with."""

from __future__ import annotations

from collections.abc import Iterator

import pytest

from tests.conftest import DATA, Server
from tests.registry import stock
from tests.registry.docker import DockerRegistry
from tests.registry.host import Host, forward
from tests.registry.served import transfer_server

STOCKED = stock.model(
    ("model", (DATA / "tinybert.gguf").read_bytes()),
    ("license", b"Clients may pull this."),
    ("template", b"{{ .Prompt }}"),
)


@pytest.fixture(scope="module")
def transferring(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = transfer_server(tmp_path_factory.mktemp("transferring"))
    yield running
    assert running.stop() == 0, running.log


@pytest.fixture(scope="module")
def front(registry: DockerRegistry) -> Iterator[Host]:
    """A registry that has `clients/tiny`."""
    stock.put(registry, "clients/tiny", STOCKED)
    with Host(forward(registry.url)) as host:
        yield host

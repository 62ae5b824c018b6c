"""A server in a network of its own, and a place for each client. How to use them is said in `kit.py`."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import msgspec
import pytest

from tests.conftest import Server
from tests.integrations import network
from tests.integrations.installing import Installer
from tests.integrations.kit import Client
from tests.integrations.loop import THINKER, create_loop

HERE = Path(__file__).parent


@pytest.hookimpl(tryfirst=True)  # before pytest looks for the mark
def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker("integrations")


class Machine(msgspec.Struct, frozen=True):
    """`offline` says whether this process has nothing but loopback; `outside` is not so."""

    outside: network.Outside
    offline: bool


@pytest.fixture(scope="session")
def machine() -> Iterator[Machine]:
    outside = network.Outside()
    yield Machine(outside, offline=network.leave())
    outside.close()


@pytest.fixture(scope="session")
def installer(machine: Machine) -> Installer:
    return Installer(machine.outside)


@pytest.fixture(scope="session")
def loop_server(machine: Machine, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that knows the models of these tests."""
    running = Server(tmp_path_factory.mktemp("clients"), CORECTL_LOG_FORMAT="json")
    create_loop(running)
    create_loop(running, THINKER, thinks=True)
    yield running
    assert running.stop() == 0, running.log


@pytest.fixture
def client(loop_server: Server, machine: Machine, tmp_path: Path) -> Iterator[Client]:
    place = Client(loop_server, tmp_path, offline=machine.offline)
    yield place
    place.end_leftovers()

"""Fixtures of the tests with fake models, and with fake registries."""

from __future__ import annotations

import os
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corectl.model.manifest import Layer
from corectl.runner import protocol
from corectl.runner.engine import ModelSpec, Placement
from corectl.scheduler import loader as loading
from corectl.scheduler import memory
from tests.core.create_kit import Bench
from tests.core.download_kit import DATA
from tests.core.fake import Behaviour, write_distribution
from tests.core.plugin_kit import Site, installed
from tests.core.simulated import DeviceStage, MakeDevices
from tests.core.stories import HandRunner, MakeStage, Stage
from tests.core.transfer_kit import FakeOrigin, FakeRegistry, Puller, running_origin

ROOT = Path(__file__).parents[2]


@pytest.fixture
def real(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """A folder for models; runner processes find the fake backend as an installed plugin."""
    write_distribution(tmp_path / "site", "fake-engine", {"corectl": {"fake": "tests.core.fake"}})
    monkeypatch.setenv("PYTHONPATH", f"{tmp_path / 'site'}{os.pathsep}{ROOT}")
    return tmp_path


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with installed(tmp_path) as folder:
        yield folder


@pytest.fixture
def bench(tmp_path: Path) -> Bench:
    """A model store to create models in."""
    return Bench(tmp_path)


@pytest.fixture
def stage(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeStage]:
    """Makes a scheduler whose runners are in the test's hands."""
    HandRunner.started = []
    monkeypatch.setattr(loading, "Runner", HandRunner)
    yield lambda **settings: Stage(tmp_path, **settings)


@pytest.fixture
def loader(real: Path) -> Callable[..., protocol.Load]:
    """Makes `Load` messages for fake models, which behave as told."""

    def make(
        *, embedding: bool = False, backend: str = "fake", plugin: str = "fake", **how: Any
    ) -> protocol.Load:
        weights = real / "weights"
        weights.write_bytes(msgspec.json.encode(Behaviour(**how)))
        placement = Placement(num_ctx=64, cells=256, num_batch=32, max_sequences=4, num_thread=1)
        spec = ModelSpec(format="fake", weights=weights, embedding=embedding)
        return protocol.Load(plugins=(plugin,), backend=backend, model=spec, placement=placement)

    return make


@pytest.fixture
def origin() -> Iterator[FakeOrigin]:
    """A server that registries and stores are played on."""
    with running_origin() as origin:
        yield origin


@pytest.fixture
def registry(origin: FakeOrigin) -> FakeRegistry:
    return FakeRegistry(origin)


@pytest.fixture
def puller(tmp_path: Path, registry: FakeRegistry) -> Puller:
    """A store of its own that pulls from the registry."""
    return Puller(tmp_path, registry)


@pytest.fixture
def layer(origin: FakeOrigin) -> Layer:
    """A blob of four parts that the registry has as the model `m`."""
    layer = origin.add(DATA)
    origin.publish(layer)
    return layer


@pytest.fixture
def devices(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[MakeDevices]:
    """Makes a scheduler on devices, whose runners are in the test's hands."""
    HandRunner.started = []
    monkeypatch.setattr(loading, "Runner", HandRunner)
    monkeypatch.setattr(memory, "POLL_SECONDS", 0.0)
    yield lambda *there, **settings: DeviceStage(tmp_path, *there, **settings)

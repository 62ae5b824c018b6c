"""What this machine reports of itself."""

from __future__ import annotations

import json
import sys
import time
from pathlib import Path
from types import SimpleNamespace

import platformdirs
import psutil
import pytest

from corectl.hardware.cores import usable_cores
from corectl.hardware.device import DetailedProbe
from corectl.hardware.processor import processor
from corectl_hostprobe import HostProbe, bandwidth, corectl_hardware_probes, facts

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells")


@pytest.fixture(autouse=True)
def cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    """The file with what was measured, in a folder of the test's own."""
    monkeypatch.setattr(platformdirs, "user_cache_dir", lambda name: str(tmp_path / "cache" / name))
    return tmp_path / "cache/corectl/memory-bandwidth.json"


@pytest.fixture
def measured(monkeypatch: pytest.MonkeyPatch) -> list[int]:
    """The cores of each measurement that would have been made: it gives 10 GB/s."""
    made: list[int] = []

    def measure(cores: int) -> float:
        made.append(cores)
        return 1e10

    monkeypatch.setattr(bandwidth, "measure", measure)
    return made


def test_it_is_offered_by_its_name() -> None:
    assert [probe.name for probe in corectl_hardware_probes()] == ["host"]


def test_one_usable_processor_with_the_machines_memory() -> None:
    (device,) = HostProbe().devices()
    assert (device.id, device.kind, device.unusable) == ("cpu", "cpu", "")
    assert device.name == processor().name and device.architecture == processor().family
    assert 0 < device.memory_free <= device.memory_total <= psutil.virtual_memory().total
    assert device.cores == usable_cores()


def test_memory_is_asked_for_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = HostProbe()
    for free in (100, 50):
        memory = SimpleNamespace(total=200, available=free)
        monkeypatch.setattr(psutil, "virtual_memory", lambda memory=memory: memory)
        assert probe.devices()[0].memory_free == free


def test_a_load_measures_nothing(measured: list[int], cache: Path) -> None:
    HostProbe().devices()
    assert measured == [] and not cache.exists()


# Facts


def test_facts(measured: list[int]) -> None:
    probe = HostProbe()
    assert isinstance(probe, DetailedProbe)
    found = probe.details()
    assert found["processor"] == processor().name and found["usable cores"] == str(usable_cores())
    assert found["memory bandwidth"] == "10.0 GB/s" and measured == [usable_cores()]
    assert "" not in found.values()


@linux
def test_the_parts_of_the_memory_are_counted(measured: list[int], tmp_path: Path) -> None:
    assert facts.facts(tmp_path)["NUMA nodes"] == "not known"
    for name in ("node0", "node1", "node10", "nodes", "power"):
        (tmp_path / "sys/devices/system/node" / name).mkdir(parents=True)
    assert facts.facts(tmp_path)["NUMA nodes"] == "3"


def test_what_a_container_leaves_is_a_fact(measured: list[int], monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(facts, "processor_quota", lambda: None)
    assert "container's cores" not in facts.facts()
    monkeypatch.setattr(facts, "processor_quota", lambda: 1.5)
    monkeypatch.setattr(facts, "machine_memory", lambda: SimpleNamespace(total=2 * 10**9))
    found = facts.facts()
    assert (found["container's cores"], found["container's memory"]) == ("1.5", "2.0 GB")


# Bandwidth


def test_it_is_measured_once_for_each_machine(measured: list[int], cache: Path) -> None:
    assert bandwidth.bandwidth("a", 2) == bandwidth.bandwidth("a", 2) == 1e10
    assert bandwidth.bandwidth("b", 4) == 1e10
    assert measured == [2, 4]
    assert json.loads(cache.read_text()) == {"a": 1e10, "b": 1e10}
    assert [path.name for path in cache.parent.iterdir()] == [cache.name], "nothing else is left"


@pytest.mark.parametrize(
    "content", ["", "{", "[]", '{"a": "x"}', '{"a": -1}', '{"a": 1e999}', "[" * 100_000, '{"a": NaN}', "\0"]
)
def test_an_odd_file_is_as_if_there_were_none(content: str, measured: list[int], cache: Path) -> None:
    cache.parent.mkdir(parents=True)
    cache.write_text(content)
    assert bandwidth.bandwidth("a", 2) == 1e10 and measured == [2]
    assert json.loads(cache.read_text()) == {"a": 1e10}


def test_where_nothing_can_be_kept_it_is_measured_each_time(measured: list[int], cache: Path) -> None:
    cache.parent.parent.mkdir(parents=True)
    cache.parent.write_text("no folder")
    assert bandwidth.bandwidth("a", 2) == bandwidth.bandwidth("a", 2) == 1e10
    assert measured == [2, 2]


def test_a_measurement() -> None:
    """Between a thousandth and a thousand times what memory does."""
    begin = time.monotonic()
    assert 1e7 < bandwidth.measure(2) < 1e13
    assert time.monotonic() - begin < 20


@linux
def test_the_size_of_the_caches(tmp_path: Path) -> None:
    assert bandwidth._cache_size(tmp_path) == 0
    for name, size in {"index0": "32K", "index3": "32768K", "index4": "many", "index5": ""}.items():
        (tmp_path / "sys/devices/system/cpu/cpu0/cache" / name).mkdir(parents=True)
        (tmp_path / "sys/devices/system/cpu/cpu0/cache" / name / "size").write_text(size)
    assert bandwidth._cache_size(tmp_path) == 32 * 2**20

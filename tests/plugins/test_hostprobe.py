"""What this machine reports of itself."""

from __future__ import annotations

from types import SimpleNamespace

import psutil
import pytest

from corectl.hardware.cores import usable_cores
from corectl_hostprobe import HostProbe, corectl_hardware_probes


def test_it_is_offered_by_its_name() -> None:
    assert [probe.name for probe in corectl_hardware_probes()] == ["host"]


def test_one_usable_processor_with_the_machines_memory() -> None:
    (device,) = HostProbe().devices()
    assert (device.id, device.kind, device.unusable) == ("cpu", "cpu", "")
    assert device.name
    assert 0 < device.memory_free <= device.memory_total <= psutil.virtual_memory().total
    assert device.cores == usable_cores()


def test_memory_is_asked_for_each_time(monkeypatch: pytest.MonkeyPatch) -> None:
    probe = HostProbe()
    for free in (100, 50):
        memory = SimpleNamespace(total=200, available=free)
        monkeypatch.setattr(psutil, "virtual_memory", lambda memory=memory: memory)
        assert probe.devices()[0].memory_free == free

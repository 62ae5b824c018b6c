"""How many cores may be used, and how busy they are: on machines that are folders of the kernel's small files."""

from __future__ import annotations

import os
import sys
import time
from pathlib import Path

import psutil
import pytest

from corectl.hardware import cores, usage
from corectl.hardware.cores import usable_cores
from corectl.hardware.usage import CoreTimes, core_times

linux = pytest.mark.skipif(sys.platform != "linux", reason="reads what Linux tells")


class Machine:
    """A root folder, and the hardware threads that this process may use."""

    def __init__(self, root: Path, monkeypatch: pytest.MonkeyPatch) -> None:
        self._root = root
        self._monkeypatch = monkeypatch
        monkeypatch.setattr(cores, "_ROOT", root)
        monkeypatch.setattr(usage, "_STAT", root / "proc/stat")

    def write(self, path: str, text: str) -> None:
        (self._root / path).parent.mkdir(parents=True, exist_ok=True)
        (self._root / path).write_text(text + "\n", "ascii")

    def allow(self, *cpus: int) -> None:
        self._monkeypatch.setattr(os, "sched_getaffinity", lambda process: set(cpus))

    def has_cores(self, siblings: list[str]) -> None:
        """A core for each list of its hardware threads; all of them are allowed."""
        for names in siblings:
            for cpu in names.split(","):
                self.write(f"sys/devices/system/cpu/cpu{cpu}/topology/thread_siblings_list", names)
        self.allow(*(int(cpu) for names in siblings for cpu in names.split(",")))


@pytest.fixture
def machine(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Machine:
    return Machine(tmp_path, monkeypatch)


def test_this_machine_has_some() -> None:
    assert 1 <= usable_cores() <= (os.cpu_count() or 1)


@linux
@pytest.mark.parametrize(
    ("siblings", "allowed", "expected"),
    [
        (["0", "1", "2", "3"], (0, 1, 2, 3), 4),
        (["0,4", "1,5", "2,6", "3,7"], (0, 1, 2, 3, 4, 5, 6, 7), 4),
        (["0,4", "1,5", "2,6", "3,7"], (0, 4), 1),
        (["0,4", "1,5", "2,6", "3,7"], (0, 1, 6), 3),
        ([], (3, 5), 2),
    ],
)
def test_allowed_hardware_threads_count_by_core(
    siblings: list[str], allowed: tuple[int, ...], expected: int, machine: Machine
) -> None:
    machine.has_cores(siblings)
    machine.allow(*allowed)
    assert usable_cores() == expected


@linux
def test_efficiency_cores_of_intel_count_only_where_there_are_no_others(machine: Machine) -> None:
    machine.has_cores(["0,1", "2,3", "4", "5", "6", "7"])
    machine.write("sys/devices/cpu_core/cpus", "0-3")
    assert usable_cores() == 2
    machine.allow(3, 4, 5)
    assert usable_cores() == 1
    machine.allow(4, 5, 6)
    assert usable_cores() == 3


@linux
def test_cores_of_arm_with_less_than_half_the_capacity_do_not_count(machine: Machine) -> None:
    machine.has_cores([str(cpu) for cpu in range(8)])
    for cpu, capacity in enumerate([300] * 4 + [900] * 3 + [1024]):
        machine.write(f"sys/devices/system/cpu/cpu{cpu}/cpu_capacity", str(capacity))
    assert usable_cores() == 4


@linux
@pytest.mark.parametrize(
    ("quota", "expected"),
    [
        ("max 100000", 8),
        ("200000 100000", 2),
        ("150000 100000", 2),
        ("140000 100000", 1),
        ("20000 100000", 1),
    ],
)
def test_a_quota_of_control_groups_2_is_rounded(quota: str, expected: int, machine: Machine) -> None:
    machine.has_cores([str(cpu) for cpu in range(8)])
    machine.write("proc/self/cgroup", "0::/")
    machine.write("sys/fs/cgroup/cpu.max", quota)
    assert usable_cores() == expected


@linux
def test_the_smallest_quota_of_all_groups_around_holds(machine: Machine) -> None:
    machine.has_cores([str(cpu) for cpu in range(8)])
    machine.write("proc/self/cgroup", "0::/user.slice/session.scope")
    machine.write("sys/fs/cgroup/user.slice/session.scope/cpu.max", "max 100000")
    machine.write("sys/fs/cgroup/user.slice/cpu.max", "300000 100000")
    assert usable_cores() == 3
    machine.write("sys/fs/cgroup/user.slice/session.scope/cpu.max", "100000 50000")
    assert usable_cores() == 2


@linux
@pytest.mark.parametrize("folder", ["cpu,cpuacct", "cpu"])
@pytest.mark.parametrize("path", ["/docker/0a1b", "/"])
def test_a_quota_of_control_groups_1(folder: str, path: str, machine: Machine) -> None:
    """A container sees the machine's name of its group, but its own part of the tree."""
    machine.has_cores([str(cpu) for cpu in range(8)])
    machine.write("proc/self/cgroup", f"11:memory:/docker/0a1b\n4:cpu,cpuacct:{path}\n0::/")
    machine.write(f"sys/fs/cgroup/{folder}/cpu.cfs_period_us", "100000")
    machine.write(f"sys/fs/cgroup/{folder}/cpu.cfs_quota_us", "-1")
    assert usable_cores() == 8
    machine.write(f"sys/fs/cgroup/{folder}/cpu.cfs_quota_us", "250000")
    assert usable_cores() == 3


@linux
@pytest.mark.parametrize("text", ["", "100000", "nonsense 100000", "100000 0", "-5 100000", "\x00"])
def test_a_quota_that_cannot_be_read_is_none(text: str, machine: Machine) -> None:
    machine.has_cores(["0", "1"])
    machine.write("proc/self/cgroup", "0::/")
    machine.write("sys/fs/cgroup/cpu.max", text)
    assert usable_cores() == 2


def test_a_system_that_tells_numbers_only(monkeypatch: pytest.MonkeyPatch, machine: Machine) -> None:
    monkeypatch.setattr(sys, "platform", "win32")
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: 6)
    assert usable_cores() == 6
    monkeypatch.setattr(psutil, "cpu_count", lambda logical: None)
    monkeypatch.setattr(os, "cpu_count", lambda: None)
    assert usable_cores() == 1


def test_the_clocks_of_this_machine_go_on() -> None:
    before = core_times()
    time.sleep(0.1)
    after = core_times()
    assert before is not None and after is not None
    # Linux takes back a tick of waiting for disks now and then.
    assert after.idle >= before.idle - 0.1
    assert after.nicer >= before.nicer
    assert 0 < after.idle < sum(psutil.cpu_times())


TABLE = """\
cpu  400 20 100 1000 80 0 10 30 0 0
cpu0 100 10 50 600 50 0 5 20 0 0
cpu1 200 10 25 300 20 0 5 10 0 0
cpu3 100 0 25 100 10 0 0 0 0 0
intr 12345 0 0
ctxt 678"""


@linux
@pytest.mark.parametrize(
    ("allowed", "idle", "nicer"), [((0, 1, 3), 1080, 20), ((0,), 650, 10), ((1, 3), 430, 10)]
)
def test_only_allowed_cores_are_looked_at(
    allowed: tuple[int, ...], idle: int, nicer: int, machine: Machine, monkeypatch: pytest.MonkeyPatch
) -> None:
    machine.write("proc/stat", TABLE)
    machine.allow(*allowed)
    monkeypatch.setattr(os, "cpu_count", lambda: 3)
    monkeypatch.setattr(os, "nice", lambda more: 0)
    ticks = os.sysconf("SC_CLK_TCK")
    assert core_times() == CoreTimes(idle / ticks, nicer / ticks)
    monkeypatch.setattr(os, "nice", lambda more: 10)
    assert core_times() == CoreTimes(idle / ticks, 0.0)


@linux
@pytest.mark.parametrize("table", ["", "cpu  0 0 0 0 0 0 0 0 0 0\ncpu0 0 0 0 0 0 0 0 0 0 0"])
def test_a_table_without_figures_is_none(table: str, machine: Machine) -> None:
    assert core_times() is None
    machine.write("proc/stat", table)
    machine.allow(0)
    assert core_times() is None


def test_where_there_is_no_table(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(sys, "platform", "darwin")
    found = core_times()
    assert found is not None and found.idle > 0

"""How much memory there is, on machines that the tests put together out of files."""

from __future__ import annotations

import sys
from pathlib import Path
from types import SimpleNamespace

import psutil
import pytest

from corectl.hardware.ram import Memory, machine_memory

pytestmark = pytest.mark.skipif(sys.platform != "linux", reason="control groups are Linux's")
WHOLE = Memory(total=1000, free=600, swap=300)


@pytest.fixture(autouse=True)
def whole_machine(monkeypatch: pytest.MonkeyPatch) -> None:
    memory = SimpleNamespace(total=WHOLE.total, available=WHOLE.free)
    monkeypatch.setattr(psutil, "virtual_memory", lambda: memory)
    monkeypatch.setattr(psutil, "swap_memory", lambda: SimpleNamespace(total=WHOLE.swap))


def machine(root: Path, groups: str, files: dict[str, str]) -> Memory:
    """The memory of a process in these control groups."""
    for name, text in {"proc/self/cgroup": groups, **files}.items():
        path = root / name
        path.parent.mkdir(parents=True, exist_ok=True)
        path.write_text(text + "\n")
    return machine_memory(root)


def test_a_machine_without_control_groups(tmp_path: Path) -> None:
    assert machine_memory(tmp_path) == WHOLE


def test_a_group_without_limit(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/memory.max": "max", "sys/fs/cgroup/memory.current": "50"}
    assert machine(tmp_path, "0::/", files) == WHOLE


def test_a_limit_counts_and_files_in_memory_do_not(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/a/memory.max": "500",
        "sys/fs/cgroup/a/memory.current": "300",
        "sys/fs/cgroup/a/memory.stat": "anon 180\nactive_file 40\ninactive_file 60\nodd",
    }
    assert machine(tmp_path, "0::/a", files) == Memory(total=500, free=300, swap=0)


def test_no_more_is_free_than_on_the_whole_machine(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/memory.max": "900", "sys/fs/cgroup/memory.current": "10"}
    assert machine(tmp_path, "0::/", files) == Memory(total=900, free=600, swap=0)


def test_the_groups_around_count_as_well(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/a/memory.max": "400",
        "sys/fs/cgroup/a/memory.current": "390",
        "sys/fs/cgroup/a/b/memory.max": "800",
        "sys/fs/cgroup/a/b/memory.current": "100",
    }
    assert machine(tmp_path, "0::/a/b", files) == Memory(total=400, free=10, swap=0)


def test_a_group_around_with_a_higher_limit_may_leave_less(tmp_path: Path) -> None:
    files = {
        "sys/fs/cgroup/a/memory.max": "800",
        "sys/fs/cgroup/a/memory.current": "780",
        "sys/fs/cgroup/a/b/memory.max": "400",
        "sys/fs/cgroup/a/b/memory.current": "100",
    }
    assert machine(tmp_path, "0::/a/b", files) == Memory(total=400, free=20, swap=0)


def test_more_in_use_than_allowed_leaves_nothing(tmp_path: Path) -> None:
    files = {"sys/fs/cgroup/memory.max": "100", "sys/fs/cgroup/memory.current": "120"}
    assert machine(tmp_path, "0::/", files).free == 0


@pytest.mark.parametrize("path", ["/", "/outside/of/the/container"])
def test_version_1(path: str, tmp_path: Path) -> None:
    top = "sys/fs/cgroup/memory"
    files = {
        f"{top}/memory.limit_in_bytes": "500",
        f"{top}/memory.usage_in_bytes": "400",
        f"{top}/memory.stat": "inactive_file 1\ntotal_inactive_file 30\ntotal_active_file 20",
    }
    found = machine(tmp_path, f"5:cpu,cpuacct:/x\n4:memory:{path}", files)
    assert found == Memory(total=500, free=150, swap=0)
    (tmp_path / top / "memory.limit_in_bytes").write_text("9223372036854771712")
    assert machine_memory(tmp_path) == WHOLE

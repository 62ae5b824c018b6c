"""What a runner's process is told besides its socket."""

from __future__ import annotations

import os
import platform
import re
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from corectl.runner.environment import TUNABLES, runner_environment
from tests.core.stories import Loader, play, start

POLICY = Path("/sys/kernel/mm/transparent_hugepage/enabled")

# A large piece of memory, as an engine's key-value pool is one.
PROGRAM = """
from pathlib import Path
memory = bytearray(2**26)
memory[:] = bytes(2**20) * 64
print(Path("/proc/self/smaps_rollup").read_text())
"""


def has_huge_pages() -> bool:
    """Whether programs that ask for huge pages get them here, and no others."""
    name, version = platform.libc_ver()
    if name != "glibc" or [int(part) for part in version.split(".")[:2]] < [2, 35]:
        return False
    return POLICY.exists() and "[madvise]" in POLICY.read_text()


def test_others_tunables_stay() -> None:
    huge = "glibc.malloc.hugetlb=1"
    assert runner_environment({"PATH": "/bin"}) == {"PATH": "/bin", TUNABLES: huge}
    assert runner_environment({TUNABLES: "glibc.malloc.check=3"})[TUNABLES] == f"glibc.malloc.check=3:{huge}"
    own = {TUNABLES: "glibc.malloc.hugetlb=0:glibc.malloc.check=3"}
    assert runner_environment(own) == own


@pytest.mark.skipif(not has_huge_pages(), reason="this system has no huge pages for those who ask")
def test_memory_is_in_huge_pages() -> None:
    said = subprocess.run(
        [sys.executable, "-c", PROGRAM],
        env=runner_environment(os.environ),
        capture_output=True,
        text=True,
        check=True,
    ).stdout
    found = re.search(r"^AnonHugePages:\s+(\d+) kB$", said, re.MULTILINE)
    # Memory in pieces may have no room for all of it.
    assert found is not None and int(found[1]) > 0, said


def test_runners_have_it(loader: Loader) -> None:
    async def story() -> None:
        runner = await start(loader())
        assert "glibc.malloc.hugetlb" in psutil.Process(runner.pid).environ()[TUNABLES]
        await runner.stop()

    play(story())

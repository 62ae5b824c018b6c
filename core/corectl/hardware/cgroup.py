"""Where Linux says how much of the machine a container may use."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from corectl.hardware.kernel import read


def groups(controller: str, root: Path) -> Iterator[Path]:
    """Folders of this process's control groups and of all groups around them, versions 1 and 2, below `root`.

    A container may see the machine's path but only its own part of the tree: then only what exists can be read.
    """
    for line in read(root / "proc/self/cgroup").splitlines():
        number, _, rest = line.partition(":")
        controllers, _, path = rest.partition(":")
        if number == "0":
            mounts = ["", "unified"]
        elif controller in controllers.split(","):
            mounts = [controllers, controller]
        else:
            continue
        for mount in mounts:
            top = root / "sys/fs/cgroup" / mount
            inner = top / path.lstrip("/")
            yield from (folder for folder in (inner, *inner.parents) if folder.is_relative_to(top))

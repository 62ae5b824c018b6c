"""How fast the machine's memory is read: measured once, in some 0.2 seconds, and kept in the user's cache.

That is what limits the tokens of one stream on a processor, because each token reads all weights.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import tempfile
import time
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path
from threading import Barrier

import platformdirs

from corectl.hardware.kernel import names, read
from corectl.hardware.ram import machine_memory

_SECONDS = 0.1
_MOST_THREADS = 32
_LEAST_BYTES, _MOST_BYTES = 16 * 2**20, 64 * 2**20
"""What each thread reads again and again."""
_PART_OF_FREE = 8
_PATIENCE = 5.0


def bandwidth(machine: str, cores: int) -> float:
    """Bytes a second that so many cores read. `machine` says for which machine the kept figure holds."""
    path = Path(platformdirs.user_cache_dir("corectl")) / "memory-bandwidth.json"
    kept = _kept(path)
    if machine not in kept:
        kept[machine] = measure(cores)
        _keep(path, kept)
    return kept[machine]


def measure(cores: int, root: Path = Path("/")) -> float:
    """The same, measured now. Each thread reads memory of its own, all together far more than the caches hold."""
    import numpy as np

    threads = min(cores, _MOST_THREADS)
    room = machine_memory().free // _PART_OF_FREE // threads
    wanted = max(_LEAST_BYTES, 4 * _cache_size(root) // threads)
    size = max(2**20, min(wanted, _MOST_BYTES, room))
    together = Barrier(threads)

    def read_on() -> float:
        # Zeros would be one page of the kernel's, again and again.
        values = np.ones(size // 8)
        together.wait(_PATIENCE)
        begin = time.perf_counter()
        rounds = 0
        while not rounds or time.perf_counter() - begin < _SECONDS:
            values.sum()
            rounds += 1
        return rounds * values.nbytes / (time.perf_counter() - begin)

    with ThreadPoolExecutor(threads) as pool:
        return sum(future.result() for future in [pool.submit(read_on) for _ in range(threads)])


def _cache_size(root: Path) -> int:
    """Bytes of the largest cache that the first core has; 0 if the kernel does not tell."""
    folder = root / "sys/devices/system/cpu/cpu0/cache"
    texts = [read(folder / name / "size", 20).removesuffix("K") for name in names(folder)]
    return max((int(text) * 1024 for text in texts if text.isascii() and text.isdigit()), default=0)


def _kept(path: Path) -> dict[str, float]:
    """The figures of this and other machines that share the folder; none if the file is odd."""
    try:
        content = json.loads(read(path))
    except (ValueError, RecursionError):
        return {}
    if not isinstance(content, dict):
        return {}
    return {
        name: float(value)
        for name, value in content.items()
        if isinstance(value, int | float) and math.isfinite(value) and value > 0
    }


def _keep(path: Path, kept: dict[str, float]) -> None:
    """Writes the file at one stroke. Where that is not possible, it is measured again the next time."""
    with contextlib.suppress(OSError):
        path.parent.mkdir(parents=True, exist_ok=True)
        file, name = tempfile.mkstemp(dir=path.parent, prefix=path.name)
        with os.fdopen(file, "w", encoding="utf-8") as stream:
            json.dump(kept, stream)
        Path(name).replace(path)

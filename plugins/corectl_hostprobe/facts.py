"""Facts about the processor and the memory, for people."""

from __future__ import annotations

import os
from pathlib import Path

import psutil

from corectl.hardware.cores import processor_quota, usable_cores
from corectl.hardware.kernel import names
from corectl.hardware.processor import processor
from corectl.hardware.ram import machine_memory
from corectl_hostprobe.bandwidth import bandwidth


def facts(root: Path = Path("/")) -> dict[str, str]:
    """By what they are called. Measures the memory's bandwidth, if that has not been done before."""
    cpu, cores = processor(), usable_cores()
    quota = processor_quota()
    memory, whole = machine_memory(), psutil.virtual_memory().total
    found = {
        "processor": cpu.name,
        "vector extensions": " ".join(cpu.extensions) or "not known",
        "hardware threads": str(os.cpu_count() or "not known"),
        "physical cores": str(psutil.cpu_count(logical=False) or "not known"),
        "usable cores": str(cores),
        "container's cores": "" if quota is None else f"{quota:g}",
        "container's memory": "" if memory.total >= whole else _gigabytes(memory.total),
        "machine's memory": _gigabytes(whole),
        "NUMA nodes": str(_numa_nodes(root) or "not known"),
        "memory bandwidth": f"{bandwidth(f'{cpu.name}, {cores} cores', cores) / 1e9:.1f} GB/s",
    }
    return {name: text for name, text in found.items() if text}


def _gigabytes(count: int) -> str:
    return f"{count / 1e9:.1f} GB"


def _numa_nodes(root: Path) -> int:
    """Parts of the memory that are nearer to some cores than to others; 0 if the system does not tell."""
    nodes = names(root / "sys/devices/system/node")
    return sum(name.startswith("node") and name[4:].isdecimal() for name in nodes)

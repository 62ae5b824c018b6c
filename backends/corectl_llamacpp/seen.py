"""What the installed library says of itself, asked in a process of its own: it may crash, and holds memory of GPUs."""

from __future__ import annotations

import signal
import subprocess
import sys

import msgspec

from corectl.errors import LoadFailed
from corectl.hardware.processor import processor
from corectl_llamacpp.build import Build
from corectl_llamacpp.devices import GgmlDevice
from corectl_llamacpp.extensions import lacking

SECONDS = 8.0
"""A driver may have to be started first."""


class Seen(msgspec.Struct, frozen=True):
    """The devices that ggml has found, and what its part for the processor was compiled to use."""

    devices: tuple[GgmlDevice, ...]
    features: frozenset[str]


def ask() -> Seen:
    """Runs this package as a program. Raises `LoadFailed` that says how it ended."""
    try:
        done = subprocess.run(
            [sys.executable, "-P", "-m", "corectl_llamacpp"],
            stdin=subprocess.DEVNULL,
            capture_output=True,
            check=False,
            timeout=SECONDS,
        )
    except subprocess.TimeoutExpired:
        raise LoadFailed(f"the library has not answered within {SECONDS:g} seconds") from None
    if done.returncode:
        raise LoadFailed(f"the library cannot be loaded: {_ending(done)}")
    # Drivers may have written something before.
    return msgspec.json.decode(done.stdout.splitlines()[-1], type=Seen)


def facts_of(build: Build) -> dict[str, str]:
    """The same for people, by what each fact is called."""
    try:
        seen = ask()
    except LoadFailed as exc:
        return {"library": exc.message, "remedy": f"build it for this machine: {build.command}"}
    facts = {
        f"ggml's {device.name}": f"{device.description}, {device.memory_total / 2**30:.1f} GiB"
        + (f", at {device.address}" if device.address else "")
        for device in seen.devices
    }
    facts["built to use"] = " ".join(sorted(seen.features))
    if build.processors:
        facts["built for processors"] = " ".join(build.processors)
    if missing := lacking(processor(), seen.features):
        facts["not built for"] = " ".join(missing)
        facts["remedy"] = f"for more speed: {build.command}"
    return facts


def _ending(done: subprocess.CompletedProcess[bytes]) -> str:
    if done.returncode == -signal.SIGILL:
        return "it was built for a processor with instructions that this one does not have"
    lines = done.stderr.decode("utf-8", "replace").strip().splitlines()
    how = f"signal {-done.returncode}" if done.returncode < 0 else f"exit status {done.returncode}"
    return f"{how}: {lines[-1][:300]}" if lines else how

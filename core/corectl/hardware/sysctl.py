"""What macOS says of the machine."""

from __future__ import annotations

import subprocess

_SECONDS = 2.0


def sysctl(*names: str) -> dict[str, str]:
    """The values of these names, without those that the system does not have; nothing if it does not answer."""
    try:
        done = subprocess.run(
            ["/usr/sbin/sysctl", *names],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.DEVNULL,
            timeout=_SECONDS,
            check=False,
        )
    except (OSError, subprocess.SubprocessError):
        return {}
    lines = done.stdout.decode("utf-8", "replace").splitlines()
    return {name: value.strip() for name, found, value in (line.partition(": ") for line in lines) if found}

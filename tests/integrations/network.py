"""A network that has loopback alone, and a way out of it for those who install things.

The whole test process moves into a network namespace of its own, and so do the server and the clients that it starts.
What has to be fetched is fetched by a helper process that was started before, and has stayed outside.
"""

from __future__ import annotations

import ctypes
import fcntl
import json
import os
import socket
import struct
import subprocess
import sys
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

_NEW_USER, _NEW_NET = 0x10000000, 0x40000000
_GET_FLAGS, _SET_FLAGS = 0x8913, 0x8914
_IS_UP = 1


class Outside:
    """The helper. It ends with the process that started it."""

    def __init__(self) -> None:
        self._process = subprocess.Popen(
            [sys.executable, __file__], stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True
        )

    def run(
        self, command: Sequence[str], environment: Mapping[str, str], folder: Path, timeout: float
    ) -> None:
        """Runs a command where the network is. Raises RuntimeError, with what it printed, if it fails."""
        assert self._process.stdin and self._process.stdout
        order = {"args": list(command), "env": dict(environment), "cwd": str(folder), "timeout": timeout}
        print(json.dumps(order), file=self._process.stdin, flush=True)
        problem = json.loads(self._process.stdout.readline())
        if problem:
            raise RuntimeError(problem)

    def close(self) -> None:
        assert self._process.stdin and self._process.stdout
        self._process.stdin.close()
        self._process.wait(10)
        self._process.stdout.close()


def leave() -> bool:
    """Moves this process, which has one thread, to where nothing but loopback is; False if the machine forbids it."""
    if sys.platform != "linux":
        return False
    libc = ctypes.CDLL(None, use_errno=True)
    user, group = os.geteuid(), os.getegid()
    if libc.unshare(_NEW_NET) != 0:
        if libc.unshare(_NEW_USER | _NEW_NET) != 0:
            return False
        Path("/proc/self/setgroups").write_text("deny")
        Path("/proc/self/uid_map").write_text(f"{user} {user} 1")
        Path("/proc/self/gid_map").write_text(f"{group} {group} 1")
    _loopback_up()
    return True


def _loopback_up() -> None:
    with socket.socket(socket.AF_INET, socket.SOCK_DGRAM) as any_socket:
        request = struct.pack("16sh14x", b"lo", 0)
        (flags,) = struct.unpack("16xh14x", fcntl.ioctl(any_socket, _GET_FLAGS, request))
        fcntl.ioctl(any_socket, _SET_FLAGS, struct.pack("16sh14x", b"lo", flags | _IS_UP))


def _run(order: dict[str, Any]) -> str:
    """What went wrong with a command, or nothing."""
    try:
        subprocess.run(
            **order,
            check=True,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
        )
    except subprocess.SubprocessError as exc:
        said = getattr(exc, "output", None) or b""
        return f"{exc}: {said.decode('utf-8', 'replace')[-2000:]}"
    except OSError as exc:
        return str(exc)
    return ""


if __name__ == "__main__":
    for line in sys.stdin:
        print(json.dumps(_run(json.loads(line))), flush=True)  # noqa: T201 - a pipe

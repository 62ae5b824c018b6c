"""Child processes do not outlive the server."""

from __future__ import annotations

import ctypes
import os
import signal
import sys
import threading


def end_with_parent() -> None:
    """Asks the kernel to kill this process when the server dies, even if a thread here never yields again.

    Linux only; elsewhere a process notices that nobody holds the other end of its connection or its input.
    """
    if sys.platform == "linux":
        set_parent_death_signal = 1
        ctypes.CDLL(None).prctl(set_parent_death_signal, signal.SIGKILL)


def end_with(descriptor: int) -> None:
    """Ends this process once the input `descriptor`, which its parent holds open and writes no more to, has ended."""

    def watch() -> None:
        # Not through a file object: a thread that waits in one cannot be left behind.
        os.read(descriptor, 1)
        os._exit(1)

    threading.Thread(target=watch, name="parent", daemon=True).start()

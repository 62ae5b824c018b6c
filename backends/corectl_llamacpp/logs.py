"""Routes llama.cpp's log into ours. In the runner process."""

from __future__ import annotations

import logging
import re
from collections import deque
from typing import Any

import llama_cpp

from corectl.errors import LoadFailed, OutOfMemory
from corectl_llamacpp.devices import Buffer

log = logging.getLogger("llama.cpp")

_LEVELS = {1: logging.DEBUG, 2: logging.DEBUG, 3: logging.WARNING, 4: logging.ERROR}
_CONTINUED = 5
_BUFFER = re.compile(r"(\S+) +(\w+) buffer size = +([\d.]+) MiB$")
_HARMLESS = re.compile("lora for '.*' cannot use buft")
"""A line for each tensor that an adapter changes and whose weights are laid out for the processor."""
_NO_MEMORY = re.compile("out of memory|alloc|insufficient memory", re.IGNORECASE)

NO_FLASH_ATTENTION = "Flash Attention not supported"

_REMARKABLE = (NO_FLASH_ATTENTION,)
_remarks: set[str] = set()

recent_errors: deque[str] = deque(maxlen=5)
"""The last error lines, to say why a load failed: the calls themselves only return nothing."""


buffers: deque[Buffer] = deque(maxlen=256)
"""What was taken since the last `install`: the interface has no call that tells."""


class _Route:
    """Puts lines together (a message may come in pieces) and logs them at their level."""

    def __init__(self) -> None:
        self._text = ""
        self._level = logging.DEBUG

    def __call__(self, level: int, text: bytes, data: Any) -> None:
        # An exception must not get out of a callback that C code calls.
        try:
            if level != _CONTINUED:
                self._level = _LEVELS.get(level, logging.DEBUG)
            self._text += text.decode("utf-8", "replace")
            if self._text.endswith("\n"):
                line, self._text = self._text.strip(), ""
                if self._level >= logging.ERROR:
                    recent_errors.append(line)
                _remarks.update(remark for remark in _REMARKABLE if remark in line)
                if found := _BUFFER.search(line):
                    buffers.append(Buffer(found[1], found[2], int(float(found[3]) * 2**20)))
                if line.strip("."):
                    log.log(logging.DEBUG if _HARMLESS.search(line) else self._level, "%s", line)
        except Exception:
            self._text = ""


# llama.cpp keeps the pointer: the callback object must live as long as the process.
callback = llama_cpp.llama_log_callback(_Route())
"""What llama.cpp's libraries are given to log through."""


def install() -> None:
    """Called before a model is loaded, and before anything else of llama.cpp; forgets what was said of others."""
    recent_errors.clear()
    _remarks.clear()
    buffers.clear()
    llama_cpp.llama_log_set(callback, None)


def said(remark: str) -> bool:
    """Whether llama.cpp has said one of the remarkable things since the last `install`."""
    return remark in _remarks


def explained(what: str) -> str:
    """What has failed, and the last error lines."""
    return f"{what}: {'; '.join(recent_errors)}" if recent_errors else what


def failure(what: str) -> LoadFailed:
    """The error for what has failed, with the last error lines; `OutOfMemory` if they speak of that."""
    message = explained(what)
    return OutOfMemory(message) if _NO_MEMORY.search(message) else LoadFailed(message)

"""Checks that run in a process of their own: what they try may end it, and what they measure needs a fresh one."""

from __future__ import annotations

import importlib
import subprocess
import sys
import tempfile
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Any, get_type_hints

import msgspec

from corectl.config import Settings
from corectl.plugins import PluginHost
from corectl.runner.engine import Backend, Engine, ModelSpec, Placement

SECONDS = 300
"""After so long a check has failed."""

_TAIL = 4000


class Subject(msgspec.Struct, frozen=True, kw_only=True):
    """A backend and a model. The backend is found as a runner finds it: by its plugin's name."""

    plugin: str
    name: str
    model: ModelSpec
    placement: Placement

    def backend(self) -> Backend:
        host = PluginHost.load(Settings(), only=[self.plugin])
        assert self.name in host.backends, [info.reason for info in host.plugins]
        return host.backends[self.name]

    def load(self) -> Engine:
        return self.backend().load(self.model, self.placement, lambda fraction: None)


class _Task(msgspec.Struct, kw_only=True):
    module: str
    function: str
    arguments: dict[str, Any]
    result: str


def in_child(check: Callable[..., Any], **arguments: Any) -> Any:
    """Calls `check(**arguments)`, a function of a module, in a new process, and returns what it returns.

    Arguments go there as JSON, and become what the function's annotations say; the result is a JSON value. Fails as
    the check does, and if the process crashes.
    """
    with tempfile.TemporaryDirectory(prefix="corectl-") as folder:
        result = Path(folder, "result")
        task = _Task(
            module=check.__module__, function=check.__name__, arguments=arguments, result=str(result)
        )
        ended = subprocess.run(
            [sys.executable, "-c", f"import sys; from {__name__} import main; sys.exit(main())"],
            input=msgspec.json.encode(task, enc_hook=str),
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            timeout=SECONDS,
            check=False,
        )
        if ended.returncode == 0:
            return msgspec.json.decode(result.read_bytes())
    said = ended.stdout.decode("utf-8", "replace")[-_TAIL:]
    how_it_ended = f"was killed by signal {-ended.returncode}" if ended.returncode < 0 else "failed"
    raise AssertionError(f"{check.__name__} {how_it_ended} in its process, which said:\n{said}")


def _from_text(kind: type, text: Any) -> Any:
    if kind is Path:
        return Path(text)
    raise NotImplementedError(f"no {kind} here")


def main() -> int:
    """In the child: reads its task from standard input. The exit status is 1 if the check has failed."""
    task = msgspec.json.decode(sys.stdin.buffer.read(), type=_Task)
    check = getattr(importlib.import_module(task.module), task.function)
    kinds = get_type_hints(check)
    arguments = {
        name: msgspec.convert(value, kinds[name], dec_hook=_from_text)
        for name, value in task.arguments.items()
    }
    try:
        found = check(**arguments)
    except Exception:
        traceback.print_exc()
        return 1
    Path(task.result).write_bytes(msgspec.json.encode(found))
    return 0

"""Makes a model's weights smaller, in a process of its own: that takes the engine, minutes, and much memory."""

from __future__ import annotations

import logging
import subprocess
import sys
from pathlib import Path

import msgspec

from corectl.config import Settings
from corectl.errors import BadRequest, CorectlError, LoadFailed, NotSupported
from corectl.model.files import ModelFiles
from corectl.plugins import PluginHost
from corectl.runner.engine import Quantizer

TAIL = 2000
"""Bytes of what a process has said that are read if it breaks off."""


class QuantizeJob(msgspec.Struct, frozen=True, kw_only=True):
    """What to make of which files. `plugin` offers `backend`; `folder` is empty, and for the result."""

    plugin: str
    backend: str
    files: ModelFiles
    target: str
    folder: Path


class _Error(msgspec.Struct, frozen=True):
    code: str
    message: str


def quantize(job: QuantizeJob) -> None:
    """Runs the job and waits for its end. For worker threads of the server. Raises what the backend has raised."""
    ended = subprocess.run(
        [sys.executable, "-m", "corectl.runner.quantize"],
        input=msgspec.json.encode(job, enc_hook=str),
        capture_output=True,
        check=False,
    )
    if ended.returncode == 0:
        return
    try:
        # Libraries print as well; the error is what was written last.
        error = msgspec.json.decode(ended.stdout.rpartition(b"\n")[2], type=_Error)
    except msgspec.DecodeError:
        said = ended.stderr[-TAIL:].decode("utf-8", "replace").strip().rpartition("\n")[2]
        raise LoadFailed(
            f"the process that quantises broke off (exit status {ended.returncode}): {said}"
        ) from None
    kind = next((kind for kind in (BadRequest, NotSupported) if kind.code == error.code), LoadFailed)
    raise kind(error.message)


def main() -> int:
    """In the new process: the job comes on standard input, an error goes to standard output."""
    logging.basicConfig(level=logging.WARNING, stream=sys.stderr)
    job = msgspec.json.decode(
        sys.stdin.buffer.read(), type=QuantizeJob, dec_hook=lambda kind, text: kind(text)
    )
    try:
        backend = PluginHost.load(Settings(), only={job.plugin}).backends.get(job.backend)
        if not isinstance(backend, Quantizer):
            raise NotSupported(f"backend {job.backend!r} cannot quantise")
        backend.quantize(job.files, job.target, job.folder)
    except CorectlError as exc:
        sys.stdout.flush()
        sys.stdout.buffer.write(b"\n" + msgspec.json.encode(_Error(exc.code, exc.message)))
        return 1
    return 0


if __name__ == "__main__":
    sys.exit(main())

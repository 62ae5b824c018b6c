"""What a job does, in its own process."""

from __future__ import annotations

import hashlib
import os
from collections.abc import Callable
from pathlib import Path

from corectl.config import Settings
from corectl.errors import LoadFailed, NotSupported
from corectl.jobs.heard import warnings_of
from corectl.jobs.messages import AdapterConversion, Conversion, Job, Made, MadeFile, Quantization
from corectl.messages import Notice
from corectl.model.conversion import Converter
from corectl.plugins import PluginHost
from corectl.runner.engine import Quantizer

Done = Callable[[int, int], None]


def perform(job: Job, done: Done) -> Made:
    """Does the job. Raises what the plugin raises."""
    host = PluginHost.load(Settings(), only={job.plugin})
    notices: tuple[Notice, ...] = ()
    match job:
        case Conversion():
            converter = _converter(host, job.converter)
            with warnings_of(converter) as heard:
                converter.convert(job.files, job.folder, done)
            notices = tuple(heard)
        case AdapterConversion():
            converter = _converter(host, job.converter)
            with warnings_of(converter) as heard:
                converter.convert_adapter(job.adapter, job.base, job.folder, done)
            notices = tuple(heard)
        case Quantization():
            backend = host.backends.get(job.backend)
            if not isinstance(backend, Quantizer):
                raise NotSupported(f"backend {job.backend!r} cannot quantise")
            notices = tuple(backend.quantize(job.files, job.target, job.folder, done))
    files = tuple(_made(job.folder, path) for path in sorted(job.folder.rglob("*")) if path.is_file())
    if not files:
        raise LoadFailed(f"plugin {job.plugin!r} has written no file")
    return Made(files, notices)


def _converter(host: PluginHost, name: str) -> Converter:
    found = host.converters.get(name)
    if found is None:
        raise NotSupported(f"there is no converter {name!r}")
    return found


def _made(folder: Path, path: Path) -> MadeFile:
    with path.open("rb") as file:
        digest = hashlib.file_digest(file, "sha256").hexdigest()
        # A rename makes it part of the store at once.
        os.fsync(file.fileno())
        return MadeFile(
            path.relative_to(folder).as_posix(), f"sha256:{digest}", os.fstat(file.fileno()).st_size
        )

"""Where models are made: threads for create requests, and what they need to know of formats and backends."""

from __future__ import annotations

import threading
from collections.abc import Callable, Iterator
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path
from typing import TypeVar

from corectl.config import Settings
from corectl.errors import BadModelFile, Canceled, NotSupported
from corectl.jobs.messages import AdapterConversion, Conversion, Made, Quantization
from corectl.jobs.processes import STOPPING, Jobs
from corectl.model.conversion import Converter
from corectl.model.files import ModelFiles
from corectl.plugins import PluginHost
from corectl.progress import Progress, Report
from corectl.runner.engine import ArchitectureChecker, Quantizer
from corectl.scheduler.backends import Candidate, Wanted, wanted_backend
from corectl.scheduler.machine import Machine
from corectl.store.importer import Quantizing, Recognised, Wish
from corectl.store.ways import Way, choose_way, meant, unknown_kind

T = TypeVar("T")

THREADS = 32
"""Models that are made at once. They wait for disks and for jobs, of which one runs at a time; most need none."""

CONVERTING, QUANTIZING = "1111111111111111111", "0000000000000000000"
"""What clients know a bar by that is about no file: its `digest`."""

WAITING = "waiting for other models that are being converted or quantized"


class Workshop:
    """See `corectl.store.importer.Importer`, which this is."""

    def __init__(self, settings: Settings, plugins: PluginHost, machine: Machine) -> None:
        self._settings = settings
        self._plugins = plugins
        self._backends = machine.backends
        self._inventory = machine.inventory
        self._jobs = Jobs()
        self._stopping = threading.Event()
        self._threads = ThreadPoolExecutor(THREADS, "create")

    def submit(self, work: Callable[[], T]) -> Future[T]:
        """Does work that makes a model on a thread that is there for that. Raises `Canceled` when the server stops."""
        try:
            return self._threads.submit(work)
        except RuntimeError:
            raise Canceled(STOPPING) from None

    def check(self) -> None:
        """Raises `Canceled` once the server stops: it cannot end while a thread goes on."""
        if self._stopping.is_set():
            raise Canceled(STOPPING)

    def close(self) -> None:
        """Ends the jobs, and starts none of what waits. Returns at once."""
        self._stopping.set()
        self._jobs.close()
        self._threads.shutdown(wait=False, cancel_futures=True)

    def recognise(self, files: ModelFiles) -> Recognised | None:
        for name, kind in sorted(self._plugins.formats.items()):
            if kind.claims(files):
                return Recognised(name, kind.describe(files))
        return None

    def way(self, format: str, files: ModelFiles, wish: Wish) -> Way:
        ways = [self._kept(format, files), *self._converted(format, files)]
        return choose_way(ways, backend=self._wanted(wish).name, target=wish.target)

    def _kept(self, format: str, files: ModelFiles) -> Way:
        found = self._candidates(format)
        reasons = {item.backend.name: _why_not(item, format, files) for item in found}
        found = [item for item in found if not reasons[item.backend.name]]
        problem = "" if found else "; ".join(reasons.values()) or self._backends.none_for(format)
        return self._way(format, "", found, problem)

    def _converted(self, format: str, files: ModelFiles) -> Iterator[Way]:
        for converter in self._converters(format):
            target = converter.target
            found = self._candidates(target)
            problem = converter.why_not(files) or ("" if found else self._backends.none_for(target))
            yield self._way(target, converter.name, found, problem)

    def _way(self, format: str, converter: str, found: list[Candidate], problem: str) -> Way:
        names = [name for name in self._plugins.backends if self._backends.loads(name, format)]
        return Way(
            format=format,
            converter=converter,
            backends=tuple(names),
            problem=problem,
            accelerated=bool(found) and found[0].accelerated,
            quantizations=tuple(name for item in found for name in _quantizations(item)),
        )

    def _candidates(self, format: str) -> list[Candidate]:
        known = self._inventory.devices
        devices = self._inventory.probe() if known is None else known
        return self._backends.candidates(format=format, devices=devices)

    def _converters(self, source: str, target: str = "") -> list[Converter]:
        return [
            converter
            for _, converter in sorted(self._plugins.converters.items())
            if converter.source == source and target in ("", converter.target)
        ]

    def _wanted(self, wish: Wish) -> Wanted:
        return wanted_backend(self._settings, wish.name, wish.backend)

    def quantizing(self, format: str, wish: Wish) -> Quantizing:
        wanted = self._wanted(wish)
        if wanted.name:
            # Says what is wrong with it.
            self._backends.choose(format=format, wanted=wanted)
        found = [item for item in self._candidates(format) if wanted.name in ("", item.backend.name)]
        if not found:
            raise NotSupported(self._backends.none_for(format))
        names = [name for item in found for name in _quantizations(item)]
        if not names:
            raise NotSupported(f"quantize is not supported for {format} models by any backend here")
        for item in found:
            if target := meant(wish.target, _quantizations(item)):
                return Quantizing(item.backend.name, target)
        raise unknown_kind(wish.target, names)

    def convert(self, way: Way, files: ModelFiles, folder: Path, report: Report) -> Made:
        plugin = self._plugins.plugin_of("corectl_converters", way.converter)
        job = Conversion(plugin=plugin, converter=way.converter, files=files, folder=folder)
        return self._run(job, "converting model", CONVERTING, report)

    def convert_adapter(
        self, adapter: ModelFiles, base: ModelFiles, format: str, folder: Path, report: Report
    ) -> Made:
        found = self._converters("safetensors", format)
        if not found:
            raise NotSupported(
                f"the adapter is safetensors and the model {format}; no installed plugin makes one of the other"
            )
        name = found[0].name
        plugin = self._plugins.plugin_of("corectl_converters", name)
        job = AdapterConversion(plugin=plugin, converter=name, adapter=adapter, base=base, folder=folder)
        return self._run(job, "converting adapter", CONVERTING, report)

    def quantize(self, how: Quantizing, kind: str, files: ModelFiles, folder: Path, report: Report) -> Made:
        plugin = self._plugins.plugin_of("corectl_backends", how.backend)
        job = Quantization(plugin=plugin, backend=how.backend, files=files, target=how.target, folder=folder)
        return self._run(job, f"quantizing {kind} model to {how.target}", QUANTIZING, report)

    def _run(
        self, job: Conversion | AdapterConversion | Quantization, status: str, digest: str, report: Report
    ) -> Made:
        def done(completed: int, total: int) -> None:
            report(Progress(status, digest=digest, total=total, completed=completed))

        report(Progress(status))
        made = self._jobs.run(job, done, waiting=lambda: report(Progress(WAITING)))
        for notice in made.notices:
            report(Progress(notice.message, notice=notice))
        return made


def _quantizations(item: Candidate) -> tuple[str, ...]:
    return item.backend.quantizations if isinstance(item.backend, Quantizer) else ()


def _why_not(item: Candidate, format: str, files: ModelFiles) -> str:
    """Why a backend cannot run this very model."""
    if not isinstance(item.backend, ArchitectureChecker):
        return ""
    try:
        return item.backend.why_not(format, files)
    except BadModelFile as exc:
        return exc.message

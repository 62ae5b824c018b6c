"""Checks of a backend's descriptor, and of what a load takes and gives back."""

from __future__ import annotations

import gc
import random
import sys
import time
from collections.abc import Iterator
from pathlib import Path

import msgspec
import psutil

from corectl.config import Settings
from corectl.errors import BadModelFile, LoadFailed
from corectl.messages import LoadOptions, SamplingOptions
from corectl.runner.engine import CacheShape, DetailedBackend, Engine, MemoryUse, ModelSpec, Placement
from corectl.scheduler.fit import memory_use
from corectl.testing.backend.base import TEXT, BackendChecks
from corectl.testing.child import Subject
from corectl.testing.drive import draw

SECONDS = 2.0
"""Processor time that a descriptor's answers may take. They take milliseconds; machines are slow and busy."""

ROUNDS = 6
ROOM = 16 << 20
"""Bytes that a process may grow by over some loads although nothing leaks."""


def shape_of(placement: Placement) -> CacheShape:
    return CacheShape(
        num_batch=placement.num_batch,
        max_sequences=placement.max_sequences,
        cache_type=placement.cache_type,
        flash_attention=placement.flash_attention,
    )


def estimated(suite: BackendChecks, model: ModelSpec, placement: Placement) -> MemoryUse:
    """What the backend says that a load would take of the machine's memory."""
    shape = shape_of(placement)
    (use,) = memory_use(suite.backend().estimate(model, shape), shape, cells=placement.cells)
    return use


def describe(subject: Subject, engine_modules: list[str]) -> list[str]:
    """In a child: asks all that the server asks before a load. Returns what it has imported of the engine."""
    backend = subject.backend()
    before = time.process_time()
    for _ in range(3):
        backend.availability()
    backend.estimate(subject.model, shape_of(subject.placement))
    spent = time.process_time() - before
    assert spent < SECONDS, f"availability and estimate took {spent:.1f} s of processor time"
    return sorted(set(engine_modules) & set(sys.modules))


def tell_details(subject: Subject) -> None:
    """In a child: what the backend tells people of its library, if it does, are texts."""
    backend = subject.backend()
    if isinstance(backend, DetailedBackend):
        assert all(isinstance(text, str) and text for fact in backend.details().items() for text in fact)


def import_engine(subject: Subject, engine_modules: list[str]) -> list[str]:
    """In a child: loads the model. Returns those of the engine's modules that were not imported."""
    subject.load().close()
    return sorted(set(engine_modules) - set(sys.modules))


def _damaged(model: ModelSpec, folder: Path) -> Iterator[tuple[str, ModelSpec]]:
    """The model with its weights missing, cut short, or replaced by something else."""
    data = model.weights.read_bytes()
    noise = random.Random(1).randbytes(min(len(data), 1 << 16))
    cases: dict[str, bytes | None] = {
        "missing": None,
        "empty": b"",
        "garbage": noise,
        "short": data[:100],
        "half": data[: len(data) // 2],
        "without its end": data[: -len(data) // 8],
    }
    for case, content in cases.items():
        target = folder / case.replace(" ", "-") / model.weights.name
        target.parent.mkdir()
        if content is not None:
            target.write_bytes(content)
        named = {name: target if path == model.weights else path for name, path in model.named.items()}
        yield case, msgspec.structs.replace(model, weights=target, named=named)


def load_damaged(subject: Subject, folder: str) -> None:
    """In a child: each damaged model is refused, with its file's name, and the next load works all the same."""
    for case, model in _damaged(subject.model, Path(folder)):
        print("a file that is", case, file=sys.stderr, flush=True)  # noqa: T201 - for whoever reads how it crashed
        broken = msgspec.structs.replace(subject, model=model)
        try:
            engine = broken.load()
        except (LoadFailed, BadModelFile) as exc:
            assert model.weights.name in exc.message, (
                f"{case}: {exc.message!r} does not name {model.weights.name}"
            )
        else:
            engine.close()
            raise AssertionError(f"a file that is {case} was loaded")
    subject.load().close()


def load_again_and_again(subject: Subject) -> list[list[int]]:
    """In a child: bytes of memory, open files and threads of the process after each round, and the engine's bytes."""
    process = psutil.Process()
    found = []
    for _ in range(ROUNDS):
        engine = subject.load()
        draw(engine, engine.tokenizer.encode(TEXT)[:32], 3)
        size = engine.info.memory
        engine.close()
        del engine
        gc.collect()
        found.append([process.memory_info().rss, process.num_fds(), process.num_threads(), size])
    return found


class DescriptorChecks(BackendChecks):
    def test_availability(self, corectl_model: ModelSpec) -> None:
        """The descriptor is quick, and imports no engine: neither to say whether it can be used, nor to estimate."""
        backend = self.backend()
        assert backend.name and backend.formats, "a backend has a name and formats"
        assert corectl_model.format in backend.formats
        names = list(self.engine_modules)
        early = self.in_child(describe, corectl_model, engine_modules=names)
        assert early == [], f"{early} are imported before a load"
        found = backend.availability()
        options = {
            *SamplingOptions.__struct_fields__,
            *LoadOptions.__struct_fields__,
            *Settings.__struct_fields__,
        }
        assert set(found.ignores) <= options, f"ignores {set(found.ignores) - options}, which are no options"
        self.in_child(tell_details, corectl_model)
        if found.usable:
            assert found.version and found.variant, "availability() says neither version nor variant"
            late = self.in_child(import_engine, corectl_model, engine_modules=names)
            assert late == [], f"engine_modules names {late}, which a load does not import"

    def test_memory_estimate(self, corectl_model: ModelSpec, corectl_engine: Engine) -> None:
        """The estimate comes close to what a load takes, and grows with the number of cells."""
        use = estimated(self, corectl_model, self.placement)
        taken = corectl_engine.info.memory
        assert taken == sum(use.total for use in corectl_engine.info.measured), (
            "memory is not the sum of measured"
        )
        assert 0 < taken / self.memory_factor <= use.total <= taken * self.memory_factor, (use, taken)
        files = sum(path.stat().st_size for path in corectl_model.paths)
        assert use.weights <= 4 * files + ROOM, (
            f"weights of {files} bytes on disk are estimated at {use.weights}"
        )
        larger = msgspec.structs.replace(self.placement, cells=8 * self.placement.cells)
        assert estimated(self, corectl_model, larger).total >= use.total

    def test_load_progress(self, corectl_model: ModelSpec, corectl_usable: None) -> None:
        """A load reports how far it is, from 0 to 1, and gives an engine of the wanted size or says otherwise."""
        seen: list[float] = []
        engine = self.backend().load(corectl_model, self.placement, seen.append)
        info = engine.info
        engine.close()
        assert seen == sorted(seen) and seen[-1] == 1.0 and seen[0] >= 0, f"progress was {seen[:20]}"
        assert 0 < info.num_ctx <= self.placement.num_ctx
        assert info.num_ctx <= info.cells and info.num_batch > 0
        assert 1 <= info.max_sequences <= self.placement.max_sequences
        assert 1 <= info.num_thread <= self.placement.num_thread

    def test_load_failures(self, corectl_model: ModelSpec, corectl_usable: None, tmp_path: Path) -> None:
        """A file that is missing, cut short or no model at all is refused with its name, and ends no process."""
        self.in_child(load_damaged, corectl_model, folder=str(tmp_path))

    def test_load_and_unload(self, corectl_model: ModelSpec, corectl_usable: None) -> None:
        """A model that is closed gives back memory, files and threads."""
        rounds = self.in_child(load_again_and_again, corectl_model)
        # The first ones fill pools and caches that stay.
        (memory, files, threads, size), last = rounds[1], rounds[-1]
        assert last[0] - memory <= ROOM + size, f"memory grew from {memory} to {last[0]} bytes: {rounds}"
        assert last[1] <= files + 1, f"open files: {rounds}"
        assert last[2] <= threads + 1, f"threads: {rounds}"

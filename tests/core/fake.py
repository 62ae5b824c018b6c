"""An engine without weights that is strict about what it is asked, its backend, and a plugin that offers them.

The weights of a fake model are a JSON file that says how it behaves; see `Behaviour`.
"""

from __future__ import annotations

import itertools
import os
import signal
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt

from corectl import hookimpl
from corectl.errors import EngineError, LoadFailed, OutOfMemory
from corectl.hardware.device import Device, HardwareProbe
from corectl.runner.engine import (
    Availability,
    Backend,
    CacheShape,
    Candidate,
    Engine,
    EngineInfo,
    MemoryEstimate,
    ModelSpec,
    Passage,
    Placement,
    Sampled,
    SequenceSpec,
    Tokenizer,
    Work,
)
from corectl.runner.vision import IMAGE, ImageSpan, Picture, Seen

corectl_api = 1

BOS, EOS, FIRST = 0, 1, 2
HANG = 600.0
EVENTS: list[tuple[str, Any]] = []
"""The events that a `Recorder` has heard in this process."""


class FakeTokenizer:
    """A token per byte; two control tokens."""

    bos_token, eos_token = "<s>", "</s>"
    size = FIRST + 256

    def __init__(self, *, adds_bos: bool = False, adds_eos: bool = False) -> None:
        self.adds_bos = adds_bos
        self._adds_eos = adds_eos

    def encode(self, text: str, *, special: bool = True, add_special: bool = True) -> list[int]:
        body = [FIRST + byte for byte in text.encode()]
        return [BOS] * self.adds_bos + body + [EOS] * self._adds_eos if add_special else body

    def decode(self, tokens: Sequence[int]) -> str:
        return b"".join(self.piece(token, special=True) for token in tokens).decode("utf-8", "replace")

    def piece(self, token: int, *, special: bool = False) -> bytes:
        if token >= FIRST:
            return bytes([token - FIRST])
        return (self.bos_token, self.eos_token)[token].encode() if special else b""

    def is_end(self, token: int) -> bool:
        return token == EOS


def letters(tokens: Sequence[int]) -> int:
    """A letter that depends on every token before it: text that was lost or computed twice shows."""
    value = 7
    for token in tokens:
        value = (value * 31 + token) % 1_000_003
    return FIRST + ord("a") + value % 26


class FakeVision:
    """An image becomes one token for each 100 pixels, between two bytes. Its handle is below `IMAGE`."""

    def __init__(self) -> None:
        self.pictures: list[Picture] = []
        self.loaded: list[ImageSpan] = []
        self.encoded: set[int] = set()

    def see(self, picture: Picture) -> Seen:
        self.pictures.append(picture)
        cells = picture.width * picture.height // 100
        span = ImageSpan(start=1, cells=cells, positions=1, handle=IMAGE - len(self.pictures))
        return Seen((FIRST + ord("<"), *[IMAGE] * cells, FIRST + ord(">")), (span,))

    def load(self, span: ImageSpan) -> None:
        self.pictures[IMAGE - span.handle - 1].pixels()
        self.loaded.append(span)

    def encode(self, span: ImageSpan) -> None:
        self.encoded.add(span.handle)


class FakeEngine:
    """Honours the Engine protocol, and refuses whatever a native engine would not survive."""

    def __init__(
        self, info: EngineInfo, *, draw: Callable[[Sequence[int]], int] = letters, adds_bos: bool = False
    ) -> None:
        self.info = info
        self.tokenizer: Tokenizer = FakeTokenizer(adds_bos=adds_bos)
        self.draw = draw
        self.caches: dict[int, list[int]] = {}
        self.steps: list[list[Work]] = []
        self.embedded: list[list[Passage]] = []
        self.violations: list[str] = []
        self.vision = FakeVision()
        self.closed = False

    def _require(self, fine: bool, what: str) -> None:
        if not fine:
            self.violations.append(what)
            raise EngineError(what)

    def add(self, sequence: SequenceSpec) -> None:
        self._require(sequence.id not in self.caches, f"{sequence.id} is there already")
        self._require(len(self.caches) < self.info.max_sequences, "too many sequences")
        self.caches[sequence.id] = []

    def step(self, work: Sequence[Work]) -> list[Sampled]:
        self._require(bool(work) and all(item.tokens for item in work), "a step without tokens")
        self._require(len({item.id for item in work}) == len(work), "one sequence twice in a step")
        images = [item for item in work if item.image is not None]
        self._require(len(images) <= 1, "more than one image")
        tokens = sum(len(item.tokens) for item in work)
        texts = tokens - sum(len(item.tokens) for item in images)
        self._require(texts <= self.info.num_batch, f"a step of {texts} tokens")
        self._require(self.used + tokens <= self.info.cells, f"{self.used} + {tokens} cells")
        sampled = []
        self.steps.append(list(work))
        for item in work:
            cache = self.caches[item.id]
            place = self._position(cache)
            self._require(item.position == place, f"position {item.position} instead of {place}")
            if item.image is not None:
                self._look(item.image, item)
            self._require((IMAGE in item.tokens) == (item.image is not None), "an image among text")
            # The cache holds what an image shows, so that what is drawn depends on it.
            cache += [item.image.handle] * len(item.tokens) if item.image is not None else item.tokens
            self._require(len(cache) <= self.info.num_ctx, f"a sequence of {len(cache)}")
            if item.sample:
                token = self.draw(cache)
                sampled.append(Sampled(item.id, token, Candidate(token, -0.5), (Candidate(token, -0.5),)))
        return sampled

    @property
    def used(self) -> int:
        """Cells that hold tokens."""
        return sum(map(len, self.caches.values()))

    def _position(self, cache: Sequence[int]) -> int:
        """Of the next token: an image, whose handle is a negative number, takes one position."""
        return sum(
            1 for token, before in zip(cache, [0, *cache], strict=False) if token >= 0 or token != before
        )

    def _look(self, image: ImageSpan, item: Work) -> None:
        whole = len(item.tokens) == image.cells and set(item.tokens) == {IMAGE}
        self._require(whole, "a part of an image")
        self._require(image.handle in self.vision.encoded, "an image that was not encoded")
        self._require(not item.sample, "a token drawn from an image")

    def shift(self, id: int, keep: int, discard: int) -> None:
        cache = self.caches[id]
        self._require(all(token >= 0 for token in cache), "a shift over images")
        self._require(keep >= 0 and discard > 0 and keep + discard <= len(cache), f"shift {keep} {discard}")
        del cache[keep : keep + discard]

    def clear(self, id: int) -> None:
        self.caches[id].clear()

    def remove(self, id: int) -> None:
        del self.caches[id]

    def embed(self, inputs: Sequence[Passage]) -> npt.NDArray[np.float32]:
        tokens = sum(len(passage.tokens) for passage in inputs)
        self._require(tokens <= self.info.num_batch, "too many tokens to embed")
        self._require(0 < len(inputs) <= self.info.max_sequences, "too many inputs")
        self.embedded.append(list(inputs))
        return np.array([[len(passage.tokens), passage.tokens[-1]] for passage in inputs], np.float32)

    def close(self) -> None:
        self.closed = True


class SharingEngine(FakeEngine):
    """One whose sequences share cells: each has a number, and counts once however many sequences hold it.

    With a `window`, or if it is `recurrent`, its memory cannot be cut anywhere, nor shared while two run.
    """

    def __init__(self, info: EngineInfo, *, window: int = 0, recurrent: bool = False, **how: Any) -> None:
        super().__init__(info, **how)
        self.window, self.recurrent = window, recurrent
        self.cells: dict[int, list[int]] = {}
        self.kept: set[int] = set()
        self.copied: list[tuple[int, int, int]] = []
        self._numbers = itertools.count()

    @property
    def can_cut(self) -> bool:
        return not (self.window or self.recurrent)

    @property
    def running(self) -> set[int]:
        return self.caches.keys() - self.kept

    @property
    def used(self) -> int:
        return len({cell for cells in self.cells.values() for cell in cells})

    def add(self, sequence: SequenceSpec) -> None:
        self._require(sequence.id not in self.caches, f"{sequence.id} is there already")
        places = self.info.max_sequences + self.info.idle_sequences
        self._require(len(self.caches) < places, "too many sequences")
        self._require(len(self.running) < self.info.max_sequences, "too many sequences that run")
        self.caches[sequence.id] = []
        self.cells[sequence.id] = []

    def step(self, work: Sequence[Work]) -> list[Sampled]:
        self._require(not any(item.id in self.kept for item in work), "a step for one that is only kept")
        if not self.can_cut:
            cells = [cell for cells in self.cells.values() for cell in cells]
            self._require(len(cells) == len(set(cells)), "cells that nobody can use again are shared")
        sampled = super().step(work)
        for item in work:
            self.cells[item.id] += itertools.islice(self._numbers, len(item.tokens))
        return sampled

    def keep(self, id: int) -> None:
        self._require(id in self.running, f"{id} does not run")
        self.kept.add(id)

    def copy(self, source: int, target: int, tokens: int) -> bool:
        held = len(self.caches[source])
        self._require(target in self.running and not self.caches[target], "a copy over something")
        self._require(0 < tokens <= held, f"a copy of {tokens} of {held}")
        self._require(min(self.caches[source][:tokens]) >= 0, "a copy of images")
        if (self.recurrent and tokens < held) or (self.window and tokens < held - self.window):
            return False
        self.caches[target] += self.caches[source][:tokens]
        self.cells[target] += self.cells[source][:tokens]
        self.copied.append((source, target, tokens))
        return True

    def state_size(self, id: int) -> int:
        return len(msgspec.msgpack.encode(self.caches[id]))

    def save(self, id: int) -> bytearray | None:
        self._require(min(self.caches[id]) >= 0, "a state with images")
        return bytearray(msgspec.msgpack.encode(self.caches[id]))

    def cut(self, id: int, tokens: int) -> None:
        self._require(self.can_cut and 0 < tokens <= len(self.caches[id]), f"a cut to {tokens}")
        del self.caches[id][tokens:], self.cells[id][tokens:]

    def restore(self, id: int, state: bytearray) -> bool:
        self._require(id in self.running and not self.caches[id], "a state over something")
        tokens = msgspec.msgpack.decode(state, type=list[int])
        if self.used + len(tokens) > self.info.cells:
            return False
        self.caches[id] += tokens
        self.cells[id] += itertools.islice(self._numbers, len(tokens))
        return True

    def shift(self, id: int, keep: int, discard: int) -> None:
        moved = set(self.cells[id][keep:])
        others = {cell for other, cells in self.cells.items() if other != id for cell in cells}
        self._require(not moved & others, "a shift that moves the cells of others")
        super().shift(id, keep, discard)
        del self.cells[id][keep : keep + discard]

    def clear(self, id: int) -> None:
        super().clear(id)
        self.cells[id].clear()

    def remove(self, id: int) -> None:
        super().remove(id)
        del self.cells[id]
        self.kept.discard(id)


def engine_info(**changes: Any) -> EngineInfo:
    sizes = {
        "num_ctx": 64,
        "cells": 128,
        "num_batch": 32,
        "max_sequences": 4,
        "num_thread": 1,
        "memory": 1000,
    }
    return EngineInfo(**{**sizes, **changes})


class Behaviour(msgspec.Struct, kw_only=True):
    """What a fake model does. `load`: how loading goes; `at`: what a step does to a sequence of `after` tokens.

    `seconds` is what each step takes, `close` what the end of the runner does.
    """

    load: str = ""
    at: str = ""
    after: int = 0
    seconds: float = 0.0
    close: str = ""


def _misbehave(what: str) -> None:
    match what:
        case "exit":
            os.write(sys.stderr.fileno(), b"the engine gives up\n")
            os._exit(7)
        case "kill":
            os.kill(os.getpid(), signal.SIGKILL)
        case "foreign":
            os.kill(os.getpid(), signal.SIGILL)
        case "alarm":
            os.kill(os.getpid(), signal.SIGALRM)
        case "realtime":
            os.kill(os.getpid(), signal.SIGRTMIN + 1)
        case "hang":
            time.sleep(HANG)
        case "flood":
            os.write(sys.stderr.fileno(), b"".join(b"noise %d\n" % number for number in range(2000)))
        case "refuse":
            raise LoadFailed("no such tensor")
        case "raise":
            raise ValueError("who knows")


class _Misbehaving(FakeEngine):
    def __init__(self, info: EngineInfo, behaviour: Behaviour) -> None:
        super().__init__(info)
        self._behaviour = behaviour

    def step(self, work: Sequence[Work]) -> list[Sampled]:
        sampled = super().step(work)
        time.sleep(self._behaviour.seconds)
        if any(len(cache) > self._behaviour.after for cache in self.caches.values()):
            _misbehave(self._behaviour.at)
        return sampled

    def close(self) -> None:
        _misbehave(self._behaviour.close)


class FakeBackend:
    """Loads files of the format `fake`."""

    name = "fake"
    formats = ("fake",)

    def availability(self) -> Availability:
        return Availability(variant="none")

    def estimate(self, model: ModelSpec, shape: CacheShape) -> MemoryEstimate:
        return MemoryEstimate(host=model.weights.stat().st_size)

    def load(self, model: ModelSpec, placement: Placement, progress: Callable[[float], None]) -> Engine:
        behaviour = msgspec.json.decode(model.weights.read_bytes(), type=Behaviour)
        if behaviour.load == "large" and placement.cells > placement.num_ctx:
            raise OutOfMemory("no memory for more than one context")
        if behaviour.load == "slowly":
            for tenth in range(1, 11):
                time.sleep(0.15)
                progress(tenth / 10)
        _misbehave(behaviour.load)
        info = engine_info(
            num_ctx=placement.num_ctx,
            cells=placement.cells,
            num_batch=placement.num_batch,
            max_sequences=placement.max_sequences,
            pooling="mean" if model.embedding else "",
        )
        return _Misbehaving(info, behaviour)


class FakeProbe:
    name = "fake"

    def devices(self) -> list[Device]:
        return [
            Device(id="cpu", kind="cpu", name="fake", memory_total=2**30, memory_free=2**30, cores=2),
        ]


@hookimpl
def corectl_backends() -> list[Backend]:
    return [FakeBackend()]


@hookimpl
def corectl_hardware_probes() -> list[HardwareProbe]:
    return [FakeProbe()]


class Recorder:
    """A listener: it hears of an event when it happens, as a plugin's module would a moment later."""

    @hookimpl
    def corectl_model_loaded(self, model: Any) -> None:
        EVENTS.append(("loaded", model))

    @hookimpl
    def corectl_model_unloaded(self, model: Any, reason: str) -> None:
        EVENTS.append(("unloaded", reason))

    @hookimpl
    def corectl_request_finished(self, request: Any) -> None:
        EVENTS.append(("finished", request))


def write_distribution(
    folder: Path,
    name: str,
    entry_points: dict[str, dict[str, str]],
    files: dict[str, str] | None = None,
    *,
    record: str = "",
) -> None:
    """A distribution as pip leaves it: its files, and a dist-info folder with its entry points by group."""
    for path, text in (files or {}).items():
        (folder / path).parent.mkdir(parents=True, exist_ok=True)
        (folder / path).write_text(text, "utf-8")
    info = folder / f"{name.replace('-', '_')}-1.0.dist-info"
    info.mkdir(parents=True)
    (info / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: 1.0\n", "utf-8")
    (info / "RECORD").write_text(record, "utf-8")
    sections = (
        f"[{group}]\n" + "".join(f"{key} = {value}\n" for key, value in entries.items())
        for group, entries in entry_points.items()
    )
    (info / "entry_points.txt").write_text("\n".join(sections), "utf-8")

"""Texts that a model turns into vectors or scores: they wait here, and share calls of the engine.

No sequence lives from one call to the next, so this needs nothing of the batch loop.
"""

from __future__ import annotations

import itertools
import logging
from collections import deque
from collections.abc import Callable

import msgspec
import numpy as np
import numpy.typing as npt

from corectl import messages
from corectl.errors import BadRequest, CorectlError, EngineError
from corectl.runner import protocol
from corectl.runner.engine import Engine, Passage

Matrix = npt.NDArray[np.float32]
"""A row for each passage."""

log = logging.getLogger(__name__)

CALL_TOKENS = 512
"""Tokens of one call, where a single text is not longer. An encoder compares all tokens of a call with one another,
those of other texts too, so that larger calls take longer for each text."""


MAX_VALUES = 2**25
"""Numbers in all rows of a request together: an eighth of a gigabyte here, several times that while lengths are
computed, and two thirds of one as JSON."""


class EncodeJob(msgspec.Struct, kw_only=True):
    """One request's passages. `rows` are the results so far, in their order; `finish` makes an answer of them all."""

    id: int
    passages: list[Passage]
    finish: Callable[[Matrix], messages.Answer]
    rows: list[npt.NDArray[np.float32]] = []

    @property
    def done(self) -> bool:
        """True when nothing is left to compute: all of it is there, or it would become too much."""
        return len(self.rows) == len(self.passages) or self._values > MAX_VALUES

    @property
    def _values(self) -> int:
        return len(self.passages) * self.rows[0].size if self.rows else 0

    def answer(self) -> messages.Answer:
        """Raises what `finish` raises, and `BadRequest` if it would be too large."""
        if self._values > MAX_VALUES:
            raise BadRequest(
                f"{len(self.passages)} texts give {self._values} values; at most {MAX_VALUES} are given in one reply"
            )
        return self.finish(np.stack(self.rows) if self.rows else np.zeros((0, 0), np.float32))


class EncodeQueue:
    """Jobs take turns: one of many passages does not hold up the others. Only the engine's thread calls the methods."""

    def __init__(self, engine: Engine) -> None:
        self._engine = engine
        self._jobs: deque[EncodeJob] = deque()

    @property
    def idle(self) -> bool:
        return not self._jobs

    def add(self, job: EncodeJob) -> None:
        self._jobs.append(job)

    def cancel(self, id: int) -> None:
        """Drops a job. An id that is not known any more is none of our business."""
        self._jobs = deque(job for job in self._jobs if job.id != id)

    def step(self) -> list[protocol.Answer | protocol.Failed]:
        """Makes one call of the engine for the next passages, of several jobs if they fit; what is done with that."""
        taken = self._take()
        passages = [passage for _, part in taken for passage in part]
        if passages:
            try:
                rows = iter(self._engine.embed(passages))
            except Exception as exc:
                for job, _ in taken:
                    self._jobs.remove(job)
                return [_failed(job, exc) for job, _ in taken]
            for job, part in taken:
                job.rows += [next(rows) for _ in part]
        for job, _ in taken:
            self._jobs.remove(job)
        self._jobs += [job for job, _ in taken if not job.done]
        return [_answered(job) for job, _ in taken if job.done]

    def _take(self) -> list[tuple[EncodeJob, list[Passage]]]:
        """The passages of the next call, by job. A job that has none left is taken along."""
        info = self._engine.info
        room, slots = min(info.num_batch, CALL_TOKENS), info.max_sequences
        taken: list[tuple[EncodeJob, list[Passage]]] = []
        first = True
        for job in self._jobs:
            part: list[Passage] = []
            for passage in itertools.islice(job.passages, len(job.rows), None):
                if not slots or (len(passage.tokens) > room and not first):
                    return [*taken, (job, part)] if part else taken
                part.append(passage)
                room -= len(passage.tokens)
                slots -= 1
                first = False
            taken.append((job, part))
        return taken


def _answered(job: EncodeJob) -> protocol.Answer | protocol.Failed:
    try:
        return protocol.Answer(job.id, job.answer())
    except Exception as exc:
        return _failed(job, exc)


def _failed(job: EncodeJob, exc: Exception) -> protocol.Failed:
    if isinstance(exc, CorectlError):
        return protocol.Failed(job.id, exc.code, exc.message)
    log.error("texts could not be encoded", exc_info=exc)
    return protocol.Failed(job.id, EngineError.code, f"{type(exc).__name__}: {exc}")

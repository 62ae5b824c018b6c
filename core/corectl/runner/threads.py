"""How many threads an engine computes on: as many as there are cores for, from one moment to the next.

An engine's threads meet at a barrier hundreds of times per token, and all wait for the last one. So one thread more
than free cores costs most of the speed, one thread fewer only its part.
"""

from __future__ import annotations

import logging
import time

import msgspec

from corectl.hardware.usage import CoreTimes, core_times
from corectl.runner.abilities import ThreadControl
from corectl.runner.engine import Engine, Placement

log = logging.getLogger(__name__)

SAMPLE_SECONDS = 0.1
"""How long the machine is watched before it is judged: the clocks of its cores tick in hundredths of a second."""

DOWN_SECONDS = 0.2
"""How long cores must have been taken before threads give them up."""

UP_SECONDS = 1.0
"""How long cores must have been free before threads take them, at first."""

MOST_UP_SECONDS = 30.0
"""The same, after they were lost again and again."""

TRIAL_SECONDS = 3.0
"""Threads that are lost again within this time were added too early."""

NEEDED = 0.6
"""The part of a core that makes one more thread worth it: with less, the others wait for it more than it helps."""

ENOUGH_COMPUTING = 0.05
"""Seconds of computing that say something about the cores, where the system itself says nothing."""


class Sample(msgspec.Struct, frozen=True, kw_only=True):
    """What happened for `elapsed` seconds; the times of all cores are added up.

    The engine computed for `computing` seconds, this process took `own`, nothing ran for `idle` (None: not known), and
    something that gives way to this process for `nicer`.
    """

    elapsed: float
    computing: float
    own: float
    idle: float | None
    nicer: float = 0.0


class ThreadController:
    """Decides the number of threads from samples. Pure: no clock, no system calls.

    `most` is what it starts with and never exceeds.
    """

    def __init__(self, most: int) -> None:
        self._most = self._share = self.threads = most
        self._hold = UP_SECONDS
        self._since_up = TRIAL_SECONDS
        # For how many seconds there have been cores for fewer threads, or for more, and at least for how many then.
        self._short = self._spare = 0.0
        self._room = most

    def share(self, cores: int) -> int:
        """Takes the number of cores that the server grants this runner; the number of threads from now on."""
        self._share = max(1, cores)
        self.threads = min(self.threads, self._share)
        return self.threads

    def follow(self, sample: Sample) -> int:
        """The number of threads from now on."""
        self._since_up += sample.elapsed
        room = max(1, min(self._cores_for_us(sample), self._most, self._share))
        if room < self.threads:
            # What others did while nothing was computed here may be over by now.
            self._short += max(sample.computing, min(sample.elapsed, SAMPLE_SECONDS))
            self._spare = 0.0
        elif room > self.threads:
            self._room = min(room, self._room) if self._spare else room
            self._spare += sample.elapsed
            self._short = 0.0
        else:
            self._short = self._spare = 0.0
        if self._short >= DOWN_SECONDS:
            too_early = self._since_up < TRIAL_SECONDS
            self._hold = min(2 * self._hold, MOST_UP_SECONDS) if too_early else UP_SECONDS
            self._short, self.threads = 0.0, room
        elif self._spare >= self._hold:
            self._since_up = self._spare = 0.0
            self.threads = self._room
        return self.threads

    def _cores_for_us(self, sample: Sample) -> int:
        """How many threads would have most of a core each: of what we took, and what nobody or somebody nicer took.

        Within a step all threads compute or spin, so what they did not get, others had. Niceness counts only as far as
        it was obeyed: the kernel does not obey it between sessions and between containers.
        """
        missed = max(0.0, self.threads * sample.computing - sample.own)
        if sample.idle is not None:
            ours = sample.own + sample.idle + max(0.0, sample.nicer - missed)
            return int(ours / sample.elapsed + 1 - NEEDED)
        if sample.computing < ENOUGH_COMPUTING:
            return self.threads
        got = int(self.threads - missed / sample.computing + 1 - NEEDED)
        # Whether there is more can only be tried.
        return got if got < self.threads else self.threads + 1


class _Clocks(msgspec.Struct, frozen=True):
    """When a sample begins or ends; `computing` is of the runner's whole life."""

    now: float
    computing: float
    own: float
    cores: CoreTimes | None

    def since(self, before: _Clocks) -> Sample:
        idle, nicer = None, 0.0
        if self.cores is not None and before.cores is not None:
            idle, nicer = self.cores.idle - before.cores.idle, self.cores.nicer - before.cores.nicer
        return Sample(
            elapsed=self.now - before.now,
            computing=self.computing - before.computing,
            own=self.own - before.own,
            idle=idle,
            nicer=nicer,
        )


class ThreadFollower:
    """Has an engine follow the cores; a context around each of its steps. The engine's thread calls all methods.

    The threads of an engine that has no such control, or whose number somebody has fixed, stay as they were loaded.
    """

    def __init__(self, engine: Engine | ThreadControl, placement: Placement) -> None:
        self._engine: ThreadControl | None = None
        if isinstance(engine, ThreadControl) and not placement.fixed_threads:
            self._engine = engine
        self._controller = ThreadController(placement.num_thread)
        self._threads = self._controller.threads
        self._computing = 0.0
        self._began = self._read(time.monotonic())

    def share(self, cores: int) -> None:
        """See `ThreadController.share`; holds from the next step on."""
        if self._engine is not None:
            self._apply(self._engine, self._controller.share(cores))

    def __enter__(self) -> int:
        """The engine is about to compute, on so many threads. Takes a microsecond, and some tens ten times a second.

        What happened while nothing was computed counts as well: it tells whether the cores are free.
        """
        if self._engine is not None:
            self._started = time.monotonic()
            if self._started - self._began.now >= SAMPLE_SECONDS:
                ended = self._read(self._started)
                sample, self._began = ended.since(self._began), ended
                self._apply(self._engine, self._controller.follow(sample))
        return self._threads

    def __exit__(self, *failure: object) -> None:
        """The engine has computed."""
        if self._engine is not None:
            self._computing += time.monotonic() - self._started

    def _read(self, now: float) -> _Clocks:
        return _Clocks(now, self._computing, time.process_time(), core_times())

    def _apply(self, engine: ThreadControl, threads: int) -> None:
        if threads != self._threads:
            log.debug("CPU threads: %d, before: %d", threads, self._threads)
            engine.set_threads(threads)
            self._threads = threads

"""How many threads a runner computes on: the controller on simulated machines, and what feeds it."""

from __future__ import annotations

import random
import time
from collections.abc import Callable

import msgspec
import pytest

from corectl.hardware.usage import CoreTimes
from corectl.runner import threads
from corectl.runner.engine import Placement
from corectl.runner.threads import Sample, ThreadController, ThreadFollower
from tests.core.fake import FakeEngine, engine_info

TICK = 0.01
"""Seconds of one turn of a simulated machine."""

COLLAPSED = 0.5
"""Seconds of a step whose threads wait for one that does not run."""

NICE = 0.015
"""What something nice is worth to the kernel, where others are worth 1."""


class Load(msgspec.Struct):
    """Something else that computes: how many cores it wants, by the time; what a core of it is worth."""

    cores: Callable[[float], float]
    weight: float = 1.0


class Runner:
    """A model that is always busy: its threads compute, or spin until all have computed."""

    def __init__(self, most: int, *, sees_machine: bool = True) -> None:
        self.controller = ThreadController(most)
        self.history = [most]
        self._sees_machine = sees_machine
        self._step_left = 0.0
        self._reset()

    def _reset(self) -> None:
        self._elapsed = self._own = self._idle = self._nicer = 0.0

    @property
    def threads(self) -> int:
        return self.controller.threads

    def turn(self, granted: float, idle: float, nicer: float) -> None:
        """A tick in which it had so many cores, and so many were idle or did something nice."""
        self._elapsed += TICK
        self._own += granted * TICK
        self._idle += idle * TICK
        self._nicer += nicer * TICK
        self._step_left -= TICK
        if self._step_left > 0:
            return
        if self._elapsed >= threads.SAMPLE_SECONDS - TICK / 2:
            self._sample()
        if granted < 0.9 * self.threads:
            self._step_left = COLLAPSED

    def _sample(self) -> None:
        noise = random.Random(self._own).uniform(-0.01, 0.01)
        sample = Sample(
            elapsed=self._elapsed,
            computing=0.97 * self._elapsed,
            own=self._own,
            idle=max(0.0, self._idle + noise) if self._sees_machine else None,
            nicer=self._nicer,
        )
        found = self.controller.follow(sample)
        if found != self.history[-1]:
            self.history.append(found)
        self._reset()


class Machine:
    """Cores that are shared out fairly, as a kernel does."""

    def __init__(self, cores: int, runners: list[Runner], *loads: Load) -> None:
        self.now = 0.0
        self._cores, self._runners, self._loads = cores, runners, loads

    def run(self, seconds: float) -> None:
        for _ in range(round(seconds / TICK)):
            wanted = [(float(runner.threads), 1.0) for runner in self._runners]
            wanted += [(load.cores(self.now), load.weight) for load in self._loads]
            granted = share_out(self._cores, wanted)
            idle = self._cores - sum(granted)
            others = granted[len(self._runners) :]
            nicer = sum(had for had, load in zip(others, self._loads, strict=True) if load.weight < 1)
            for runner, had in zip(self._runners, granted, strict=False):
                runner.turn(had, idle, nicer)
            self.now += TICK


def share_out(cores: float, wanted: list[tuple[float, float]]) -> list[float]:
    """What each gets of the cores: what it wants, or its part by weight of what the others leave."""
    granted = [0.0] * len(wanted)
    hungry = {index for index, (demand, _) in enumerate(wanted) if demand > 0}
    while hungry and cores > 1e-9:
        per_weight = cores / sum(demand * weight for demand, weight in (wanted[i] for i in hungry))
        full = {i for i in hungry if wanted[i][1] * per_weight >= 1}
        for i in full or hungry:
            granted[i] = wanted[i][0] if full else wanted[i][0] * wanted[i][1] * per_weight
            cores -= granted[i]
        hungry = hungry - full if full else set()
    return granted


def constant(cores: float, weight: float = 1.0) -> Load:
    return Load(lambda now: cores, weight)


def periodic(cores: float, *, on: float, period: float) -> Load:
    return Load(lambda now: cores if now % period < on else 0.0)


@pytest.mark.parametrize("cores", [1, 2, 8, 128])
def test_a_quiet_machine_is_used_as_a_whole(cores: int) -> None:
    runner = Runner(cores)
    Machine(cores, [runner]).run(60)
    assert runner.history == [cores]


@pytest.mark.parametrize("taken", [0.1, 0.3])
@pytest.mark.parametrize("cores", [2, 8])
def test_what_a_server_and_a_client_take_is_no_reason_for_fewer(cores: int, taken: float) -> None:
    runner = Runner(cores)
    Machine(cores, [runner], constant(taken)).run(60)
    assert runner.history == [cores]


@pytest.mark.parametrize(
    ("cores", "taken", "left"), [(2, 1, 1), (2, 5, 1), (8, 1, 7), (8, 3, 5), (64, 1, 63), (64, 16, 48)]
)
def test_cores_that_others_take_are_left_to_them(cores: int, taken: int, left: int) -> None:
    runner = Runner(cores)
    Machine(cores, [runner], constant(taken)).run(60)
    assert runner.threads == left
    assert runner.history == sorted(runner.history, reverse=True), "it never tries what cannot be"


def test_down_quickly_and_up_when_cores_have_been_free_for_a_while() -> None:
    runner = Runner(8)
    machine = Machine(8, [runner], Load(lambda now: 4.0 if 10 <= now < 20 else 0.0))
    machine.run(10)
    machine.run(2 * COLLAPSED + threads.DOWN_SECONDS)
    assert runner.threads <= 5
    machine.run(8.7)
    assert runner.threads == 4
    machine.run(0.9)
    assert runner.threads == 4
    machine.run(2)
    assert runner.threads == 8


def test_there_is_always_one_thread() -> None:
    runner = Runner(4)
    Machine(4, [runner], constant(100)).run(30)
    assert runner.threads == 1


@pytest.mark.parametrize(("cores", "each"), [(2, 1), (4, 2), (8, 4), (64, 32)])
def test_two_runners_settle_at_halves(cores: int, each: int) -> None:
    first, second = Runner(cores), Runner(cores)
    Machine(cores, [first, second]).run(60)
    assert first.history == second.history == [cores, each]


def test_a_newcomer_is_seen_by_one_that_runs_already() -> None:
    first, second = Runner(4), Runner(4)
    machine = Machine(4, [first])
    machine.run(10)
    machine = Machine(4, [first, second])
    machine.run(60)
    assert (first.threads, second.threads) == (2, 2)


def test_the_share_holds_at_once_and_a_larger_one_when_the_cores_are_free() -> None:
    first, second = Runner(4), Runner(4)
    assert [runner.controller.share(2) for runner in (first, second)] == [2, 2]
    Machine(4, [first, second]).run(30)
    assert (first.threads, second.threads) == (2, 2)
    assert first.controller.share(4) == 2
    machine = Machine(4, [first])
    machine.run(0.9)
    assert first.threads == 2
    machine.run(0.5)
    assert first.threads == 4


def test_more_than_the_most_is_never_used() -> None:
    runner = Runner(2)
    runner.controller.share(16)
    Machine(16, [runner]).run(30)
    assert runner.history == [2]
    assert runner.controller.share(0) == 1


@pytest.mark.parametrize("three", [2, 4, 8, 64])
def test_what_does_not_divide_is_tried_ever_less_often(three: int) -> None:
    """Without a server that shares out: each of three sees a core that is free, and all take it at once."""
    runners = [Runner(three) for _ in range(3)]
    machine = Machine(three, runners)
    machine.run(300)
    before = [len(runner.history) for runner in runners]
    machine.run(60)
    assert all(len(runner.history) - count <= 4 for runner, count in zip(runners, before, strict=True))


@pytest.mark.parametrize(("on", "period"), [(1, 2), (0.5, 0.6), (0.05, 0.1), (0.5, 1.2), (2, 3.5)])
def test_a_load_that_comes_and_goes_does_not_drive_it(on: float, period: float) -> None:
    runner = Runner(2)
    Machine(2, [runner], periodic(1, on=on, period=period)).run(300)
    assert len(runner.history) <= 20


def test_pauses_that_are_long_enough_are_used() -> None:
    runner = Runner(2)
    Machine(2, [runner], periodic(1, on=20, period=40)).run(400)
    assert 18 <= len(runner.history) <= 22


@pytest.mark.parametrize(("cores", "nice"), [(2, 1), (2, 2), (8, 8)])
def test_what_gives_way_is_no_reason_for_fewer(cores: int, nice: int) -> None:
    runner = Runner(cores)
    Machine(cores, [runner], constant(nice, NICE)).run(60)
    assert runner.history == [cores]


def test_niceness_that_the_kernel_does_not_obey_does_not_count() -> None:
    runner = Runner(2)
    Machine(2, [runner], constant(1, 0.999)).run(60)
    assert runner.threads == 1


@pytest.mark.parametrize("cores", [1, 2, 8])
def test_without_knowledge_of_the_machine_a_quiet_one_is_used(cores: int) -> None:
    runner = Runner(cores, sees_machine=False)
    Machine(cores, [runner]).run(60)
    assert runner.history == [cores]


def test_without_knowledge_of_the_machine_its_own_share_tells() -> None:
    runner = Runner(2, sees_machine=False)
    machine = Machine(2, [runner], Load(lambda now: 1.0 if now < 200 else 0.0))
    machine.run(200)
    assert runner.threads == 1
    assert len(runner.history) <= 24
    machine.run(60)
    assert runner.threads == 2


def test_steps_that_hardly_compute_say_nothing() -> None:
    controller = ThreadController(4)
    for _ in range(20):
        assert controller.follow(Sample(elapsed=0.2, computing=0.01, own=0.0, idle=None)) == 4


def test_threads_that_wait_for_an_accelerator_are_not_short_of_cores() -> None:
    controller = ThreadController(4)
    for _ in range(20):
        assert controller.follow(Sample(elapsed=0.2, computing=0.2, own=0.02, idle=0.78)) == 4


def test_what_ran_in_a_pause_may_be_over_when_it_ends() -> None:
    controller = ThreadController(8)
    busy_pause = Sample(elapsed=60, computing=0, own=0.1, idle=3 * 60.0)
    assert controller.follow(busy_pause) == 8
    assert controller.follow(Sample(elapsed=0.1, computing=0.1, own=0.8, idle=0.0)) == 8, "it was over"
    assert controller.follow(busy_pause) == 8
    assert controller.follow(Sample(elapsed=0.1, computing=0.1, own=0.3, idle=0.0)) == 3, "it goes on"


def test_a_long_pause_tells_before_the_first_step_that_cores_are_free() -> None:
    controller = ThreadController(8)
    for _ in range(2):
        controller.follow(Sample(elapsed=0.1, computing=0.1, own=0.3, idle=0.0))
    assert controller.threads == 3
    assert controller.follow(Sample(elapsed=60, computing=0, own=0.1, idle=8 * 60.0)) == 8


class Engine:
    """All of an engine that matters here."""

    def __init__(self) -> None:
        self.set: list[int] = []

    def set_threads(self, count: int) -> None:
        self.set.append(count)


class Clock:
    """The clocks of a machine with four cores, of which `idle` are free; each reading of the machine is counted."""

    def __init__(self, monkeypatch: pytest.MonkeyPatch) -> None:
        self.now = self.own = self.free = 0.0
        self.readings = 0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)
        monkeypatch.setattr(time, "process_time", lambda: self.own)
        monkeypatch.setattr(threads, "core_times", self._read)

    def _read(self) -> CoreTimes:
        self.readings += 1
        return CoreTimes(self.free, 0.0)

    def compute(self, follower: ThreadFollower, seconds: float, *, own: float, idle: float) -> int:
        """A step that takes so long, and for each second of it so many cores."""
        with follower as count:
            self.now += seconds
            self.own += own * seconds
            self.free += idle * seconds
        return count


def placement(*, fixed: bool = False) -> Placement:
    return Placement(num_ctx=8, cells=8, num_batch=8, max_sequences=1, num_thread=4, fixed_threads=fixed)


def test_an_engine_is_told_when_the_number_changes(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, engine = Clock(monkeypatch), Engine()
    follower = ThreadFollower(engine, placement())
    assert [clock.compute(follower, 0.11, own=2, idle=0) for _ in range(4)] == [4, 4, 2, 2]
    assert engine.set == [2]
    assert [clock.compute(follower, 0.3, own=2, idle=2) for _ in range(6)] == [2, 2, 2, 2, 4, 4]
    assert engine.set == [2, 4]
    follower.share(1)
    assert clock.compute(follower, 0.01, own=1, idle=3) == 1
    assert engine.set == [2, 4, 1]


def test_the_machine_is_looked_at_ten_times_a_second(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    follower = ThreadFollower(Engine(), placement())
    for _ in range(1000):
        clock.compute(follower, 0.001, own=4, idle=0)
    assert clock.readings <= 11


def test_threads_that_somebody_has_fixed_stay(monkeypatch: pytest.MonkeyPatch) -> None:
    clock, engine = Clock(monkeypatch), Engine()
    follower = ThreadFollower(engine, placement(fixed=True))
    follower.share(1)
    assert [clock.compute(follower, 0.3, own=1, idle=0) for _ in range(4)] == [4] * 4
    assert engine.set == []


def test_an_engine_without_such_threads_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    follower = ThreadFollower(FakeEngine(engine_info()), placement())
    follower.share(1)
    assert [clock.compute(follower, 0.3, own=1, idle=0) for _ in range(4)] == [4] * 4


def test_a_step_that_fails_has_computed_as_well(monkeypatch: pytest.MonkeyPatch) -> None:
    clock = Clock(monkeypatch)
    follower = ThreadFollower(Engine(), placement())
    with pytest.raises(ValueError), follower:
        raise ValueError
    assert clock.compute(follower, 0.01, own=4, idle=0) == 4

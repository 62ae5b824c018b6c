"""`python -m bench.soak`: bad clients and killed runners for as long as you like; figures each minute."""

from __future__ import annotations

import argparse
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

from bench.chaos import Chaos, Model
from bench.served import BenchServer
from bench.weights import gemma3, install, smollm2


def main() -> None:
    """Ends with an error if a request was lost, or if something is left behind."""
    parser = argparse.ArgumentParser(prog="python -m bench.soak", description=__doc__)
    parser.add_argument("--minutes", type=float, default=30)
    parser.add_argument("--clients", type=int, default=8)
    arguments = parser.parse_args()
    server = BenchServer()
    chaos = Chaos(server.url, server.process.pid, _models(server), seed=int(time.time()))
    print("minute |  sent | finished |  left | killed | failed | lost | kills | server MiB | files | runners")
    minute, begin = 0.0, time.monotonic()
    try:
        while minute < arguments.minutes:
            minute = min(minute + 1, arguments.minutes)
            end = begin + minute * 60
            chaos.run(_until(end), arguments.clients)
            _print(f"{minute:.1f}", chaos)
        left_behind = chaos.rest().children
        _print("rest", chaos)
    finally:
        server.close()
    for error, count in chaos.tally.failed.items():
        print(f"{count} x {error}")
    if chaos.tally.lost or chaos.tally.failed or left_behind:
        raise SystemExit(
            "\n".join(["lost, failed or left behind:", *chaos.tally.lost[:20], *map(str, left_behind)])
        )


def _models(server: BenchServer) -> list[Model]:
    """One model with two contexts; and a second one, if its weights are installed."""
    first = smollm2().name
    models = [Model(first, 512), Model(first, 1024)]
    with tempfile.TemporaryDirectory() as folder:
        if (second := gemma3(Path(folder))) is not None:
            install(second, server.url)
            models.append(Model(second.name, 512))
    return models


def _until(end: float) -> Callable[[int], bool]:
    return lambda _: time.monotonic() < end


def _print(when: str, chaos: Chaos) -> None:
    tally, state = chaos.tally, chaos.state()
    print(
        f"{when:>6} | {tally.sent:>5} | {tally.finished:>8} | {tally.left:>5} | {tally.killed:>6} | "
        f"{tally.failed.total():>6} | {len(tally.lost):>4} | {tally.kills:>5} | {state.memory / 2**20:>10.1f} | "
        f"{state.files:>5} | {len(state.children):>7}",
        flush=True,
    )


if __name__ == "__main__":
    main()

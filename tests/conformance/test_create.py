"""Models that are made of what clients send: converted, quantised, of several files; and everything that goes wrong."""

from __future__ import annotations

import hashlib
import json
import os
import signal
import threading
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.conftest import DATA, Server
from tests.forms import Forms
from tests.gguf_parts import split_gguf

SOON = 60


def upload(server: Server, *paths: Path) -> dict[str, str]:
    """Sends files; their digests by name."""
    found = {}
    for path in paths:
        digest = f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}"
        with path.open("rb") as data:
            server.client.post(f"/api/blobs/{digest}", content=data).raise_for_status()
        found[path.name] = digest
    return found


def folder(server: Server, forms: Forms) -> dict[str, str]:
    return upload(server, *(path for path in forms.safetensors(2).iterdir() if path.is_file()))


def create(server: Server, model: str, **body: Any) -> list[dict[str, Any]]:
    """All lines of the reply."""
    with server.client.stream("POST", "/api/create", json={"model": model, **body}) as reply:
        lines = [json.loads(line) for line in reply.iter_lines()]
    return lines


def made(server: Server, model: str, **body: Any) -> list[str]:
    """The statuses of a create that succeeds, each once."""
    lines = create(server, model, **body)
    assert lines[-1] == {"status": "success"}, lines
    return list(dict.fromkeys(line["status"] for line in lines))


def show(server: Server, model: str) -> dict[str, Any]:
    return dict(server.client.post("/api/show", json={"model": model}).raise_for_status().json())


def answer(server: Server, model: str) -> list[int]:
    """The tokens of a greedy answer."""
    options = {"temperature": 0, "num_predict": 8, "num_ctx": 256, "num_thread": 1}
    body = {"model": model, "prompt": "Why is the sky blue?", "raw": True, "options": options}
    reply = server.client.post("/api/generate", json={**body, "stream": False}).raise_for_status().json()
    server.client.post("/api/generate", json={"model": model, "keep_alive": 0}).raise_for_status()
    return list(reply["context"])[-8:] if "context" in reply else [ord(char) for char in reply["response"]]


def logprobs(server: Server, model: str) -> list[float]:
    """Of the first tokens of that answer."""
    options = {"temperature": 0, "num_predict": 4, "num_ctx": 256, "num_thread": 1}
    body = {"model": model, "prompt": "Why is the sky blue?", "raw": True, "options": options}
    request = {**body, "stream": False, "logprobs": True}
    reply = server.client.post("/api/generate", json=request).raise_for_status().json()
    return [item["logprob"] for item in reply["logprobs"]]


@pytest.fixture(scope="module")
def shop(tmp_path_factory: pytest.TempPathFactory, forms: Forms) -> Iterator[Server]:
    """A server with two layers of a model in GGUF, as it is."""
    running = Server(tmp_path_factory.mktemp("create-server"))
    made(running, "plain", files=upload(running, forms.gguf(2)))
    yield running
    assert running.stop() == 0, running.log


def test_a_folder_becomes_gguf_where_that_is_faster(shop: Server, forms: Forms) -> None:
    statuses = made(shop, "converted", files=folder(shop, forms))
    assert statuses[:2] == ["converting model", "verifying conversion"]
    shown = show(shop, "converted")
    assert shown["details"]["format"] == "gguf" and shown["details"]["quantization_level"] == "F16"
    assert shown["backend"]["name"] == "llamacpp"
    assert answer(shop, "converted") == answer(shop, "plain")


def test_a_folder_becomes_smaller_gguf(shop: Server, forms: Forms) -> None:
    statuses = made(shop, "small", files=folder(shop, forms), quantize="q4_K_M")
    assert statuses[:2] == ["converting model", "quantizing F16 model to Q4_K_M"]
    assert statuses[2].startswith("12 of 20 tensors") and statuses[3] == "verifying conversion"
    assert show(shop, "small")["details"]["quantization_level"] == "Q4_K_M"
    assert answer(shop, "small")


def test_a_folder_is_kept_for_a_backend_that_is_named(shop: Server, forms: Forms) -> None:
    pytest.importorskip("mlx_lm")
    statuses = made(shop, "kept", files=folder(shop, forms), parameters={"backend": "mlx"})
    assert statuses[0] == "verifying conversion"
    assert show(shop, "kept")["details"]["format"] == "safetensors"


def test_progress_has_bytes_and_one_bar(shop: Server) -> None:
    lines = create(shop, "small8", **{"from": "plain"}, quantize="q8_0")
    steps = [line for line in lines if "digest" in line]
    assert {step["digest"] for step in steps} == {"0000000000000000000"}
    assert {step["status"] for step in steps} == {"quantizing F16 model to Q8_0"}
    (total,) = {step["total"] for step in steps}
    completed = [step.get("completed", 0) for step in steps]
    assert completed == sorted(completed) and completed[-1] == total > 10**7


def test_a_reply_in_one_piece_has_the_warnings(shop: Server) -> None:
    body = {"model": "small4", "from": "plain", "quantize": "q4_K_M", "stream": False}
    reply = shop.client.post("/api/create", json=body).raise_for_status().json()
    assert reply["status"] == "success"
    ((code, message),) = [(one["code"], one["message"]) for one in reply["warnings"]]
    assert code == "quantize_fallback" and message.startswith("12 of 20 tensors")


@pytest.mark.parametrize(
    ("target", "source", "error"),
    [
        ("zz9", "plain", "unsupported quantization type ZZ9 - supported types are F32, F16, BF16, Q8_0, "),
        ("q8_0", "small2", "quantization is only supported for F16, BF16 and F32 models"),
    ],
)
def test_what_cannot_be_quantised_is_refused(shop: Server, target: str, source: str, error: str) -> None:
    made(shop, "small2", **{"from": "plain"}, quantize="q5_0")
    for stream in (True, False):
        body = {"model": "x", "from": source, "quantize": target, "stream": stream}
        reply = shop.client.post("/api/create", json=body)
        assert reply.status_code == 400 and reply.json()["error"].startswith(error)


def test_a_split_model_runs_and_is_described_as_a_whole(shop: Server, forms: Forms, tmp_path: Path) -> None:
    parts = split_gguf(forms.gguf(2), tmp_path, 3)
    made(shop, "split", files=upload(shop, *parts))
    assert answer(shop, "split") == answer(shop, "plain")
    ours, whole = show(shop, "split"), show(shop, "plain")
    assert ours["details"] == whole["details"]
    assert sorted(ours["tensors"], key=str) == sorted(whole["tensors"], key=str)
    assert ours["model_info"]["general.parameter_count"] == whole["model_info"]["general.parameter_count"]
    plans = [
        shop.client.post("/api/plan", json={"model": name}).raise_for_status().json()
        for name in ("split", "plain")
    ]
    assert plans[0]["fits"] == plans[1]["fits"]
    made(shop, "split8", **{"from": "split"}, quantize="q8_0")
    assert len(show(shop, "split8")["tensors"]) == len(whole["tensors"])


def children(server: Server) -> list[psutil.Process]:
    """The jobs of a server that run."""
    found = []
    for child in psutil.Process(server.process.pid).children():
        try:
            if "corectl.jobs" in child.cmdline():
                found.append(child)
        except psutil.Error:
            continue
    return found


def until(true: Callable[[], Any]) -> Any:
    deadline = time.monotonic() + SOON
    while not (found := true()):
        assert time.monotonic() < deadline
        time.sleep(0.01)
    return found


class Quantising(threading.Thread):
    """A create request that takes its time: all layers, and a slow kind."""

    def __init__(self, server: Server, model: str) -> None:
        super().__init__(daemon=True)
        self._server = server
        self._model = model
        self.lines: list[dict[str, Any]] = []
        self.start()

    def run(self) -> None:
        try:
            self.lines = create(self._server, self._model, **{"from": "whole"}, quantize="q3_K_M")
        except Exception as exc:
            self.lines = [{"exception": repr(exc)}]


def scratch(server: Server) -> list[Path]:
    return list((server.models / "blobs").glob("tmp-*"))


@pytest.fixture
def busy(own_server: Server, forms: Forms) -> Server:
    made(own_server, "whole", files=upload(own_server, forms.gguf()))
    return own_server


def test_a_job_that_is_killed_is_a_typed_error_and_leaves_nothing(busy: Server) -> None:
    blobs = set((busy.models / "blobs").iterdir())
    thread = Quantising(busy, "small")
    (child,) = until(lambda: children(busy))
    until(lambda: scratch(busy) and list(scratch(busy)[0].iterdir()))
    os.kill(child.pid, signal.SIGKILL)
    thread.join(SOON)
    error = thread.lines[-1]["error"]
    assert "quantises broke off" in error and "SIGKILL" in error
    assert set((busy.models / "blobs").iterdir()) == blobs
    assert busy.client.post("/api/show", json={"model": "small"}).status_code == 404
    assert made(busy, "again", **{"from": "whole"}, system="It goes on.")


def test_others_are_served_while_a_job_runs(busy: Server) -> None:
    thread = Quantising(busy, "small")
    (child,) = until(lambda: children(busy))
    made(busy, "other", **{"from": "whole"}, system="Be brief.")
    assert busy.client.post("/api/copy", json={"source": "other", "destination": "copy"}).status_code == 200
    for name in ("other", "whole"):
        assert busy.client.request("DELETE", "/api/delete", json={"model": name}).status_code == 200
    assert child.is_running() and thread.is_alive()
    thread.join(SOON)
    assert thread.lines[-1] == {"status": "success"}
    assert show(busy, "small")["details"]["quantization_level"] == "Q3_K_M"


def test_a_client_that_leaves_stops_nothing(busy: Server) -> None:
    body = {"model": "small", "from": "whole", "quantize": "q8_0"}
    with busy.client.stream("POST", "/api/create", json=body) as reply:
        next(reply.iter_lines())
    until(lambda: busy.client.post("/api/show", json={"model": "small"}).status_code == 200)


def test_a_server_that_stops_ends_its_jobs(busy: Server) -> None:
    Quantising(busy, "small")
    (child,) = until(lambda: children(busy))
    assert busy.stop() == 0
    until(lambda: not child.is_running())
    assert not scratch(busy)


def test_a_server_that_is_killed_takes_its_jobs_with_it(tmp_path: Path, forms: Forms) -> None:
    server = Server(tmp_path)
    made(server, "whole", files=upload(server, forms.gguf()))
    Quantising(server, "small")
    (child,) = until(lambda: children(server))
    server.process.kill()
    server.stop()
    until(lambda: not child.is_running())
    again = Server(tmp_path)
    try:
        stored = {model["name"] for model in again.client.get("/api/tags").json()["models"]}
        assert "whole:latest" in stored and "small:latest" not in stored
    finally:
        assert again.stop() == 0


def test_an_embedding_model_is_quantised_too(shop: Server) -> None:
    made(shop, "tinybert", files=upload(shop, DATA / "tinybert.gguf"))
    statuses = made(shop, "tinybert8", **{"from": "tinybert"}, quantize="q8_0")
    assert statuses[0].startswith("quantizing F")
    vectors = [
        shop.client.post("/api/embed", json={"model": name, "input": "Hello"}).json()["embeddings"][0]
        for name in ("tinybert", "tinybert8")
    ]
    assert sum(first * second for first, second in zip(*vectors, strict=True)) > 0.98


def test_an_adapter_of_safetensors_is_applied_to_gguf(shop: Server, forms: Forms, tmp_path: Path) -> None:
    """The base with the adapter says what the model says that has it worked into its weights."""
    pytest.importorskip("mlx_lm")
    from tests.backends.test_mlx_adapters import merged, of_peft

    adapter = upload(shop, *of_peft(tmp_path / "adapter").iterdir())
    statuses = made(shop, "tuned", **{"from": "plain"}, adapters=adapter)
    assert statuses[0] == "converting adapter"
    worked_in = upload(shop, *merged(forms.safetensors(2), tmp_path / "merged").iterdir())
    made(shop, "merged", files=worked_in)
    tuned, same, plain = (logprobs(shop, model) for model in ("tuned", "merged", "plain"))
    assert tuned == pytest.approx(same, abs=0.02) and tuned != pytest.approx(plain, abs=0.05)

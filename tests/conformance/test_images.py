"""Images over HTTP: a model that can see is made of two files, shown pictures, and given everything that is none."""

from __future__ import annotations

import base64
import hashlib
import io
import json
import struct
import threading
import zlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import httpx
import psutil
import pytest
from PIL import Image

from tests.backends.conftest import smollm2
from tests.conftest import GREEDY, MODEL, Server
from tests.projector import Siglip, picture, write_projector

SIGHT = "sight"
OPTIONS = {**GREEDY, "num_predict": 8, "num_ctx": 1024}
IMAGE_TOKENS = Siglip.tokens + 14
"""With `<start_of_image>` and `<end_of_image>`, which are seven tokens each for this model."""


def upload(server: Server, file: Path) -> str:
    data = file.read_bytes()
    digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
    server.client.post(f"/api/blobs/{digest}", content=data).raise_for_status()
    return digest


def start_seeing(folder: Path, **environment: str) -> Server:
    """A server with a model that can see."""
    running = Server(folder, **environment)
    projector = write_projector(Siglip(576), folder / "projector.gguf")
    files = {"model.gguf": upload(running, smollm2()), "projector.gguf": upload(running, projector)}
    body = {"model": SIGHT, "files": files, "stream": False}
    assert running.client.post("/api/create", json=body).raise_for_status().json() == {"status": "success"}
    return running


@pytest.fixture(scope="module")
def seeing(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = start_seeing(tmp_path_factory.mktemp("seeing"))
    yield running
    assert running.stop() == 0, running.log


def image(seed: int = 0, form: str = "PNG", size: tuple[int, int] = (120, 90)) -> str:
    buffer = io.BytesIO()
    picture(*size, seed=seed).save(buffer, form)
    return base64.b64encode(buffer.getvalue()).decode()


def generate(server: Server, prompt: str = "What is it?", *images: str, **body: Any) -> dict[str, Any]:
    return server.generate(prompt, **{"model": SIGHT, "images": images, "options": OPTIONS, **body})


def chat(server: Server, *messages: dict[str, Any], **body: Any) -> httpx.Response:
    request = {"model": SIGHT, "messages": messages, "stream": False, "options": OPTIONS, **body}
    return server.client.post("/api/chat", json=request)


def user(content: str, *images: str) -> dict[str, Any]:
    return {"role": "user", "content": content, "images": images}


def rendered(reply: dict[str, Any]) -> tuple[str, int]:
    info = reply["_debug_info"]
    return info["rendered_template"], info.get("image_count", 0)


def test_what_the_model_is(seeing: Server) -> None:
    shown = seeing.client.post("/api/show", json={"model": SIGHT}).raise_for_status().json()
    assert "vision" in shown["capabilities"]
    assert shown["details"]["families"] == ["llama", "clip"]
    assert shown["projector_info"]["clip.projector_type"] == "gemma3"


def test_an_image_changes_the_answer_and_is_counted(seeing: Server) -> None:
    blind = generate(seeing)
    first, second = (generate(seeing, "What is it?", image(seed), logprobs=True) for seed in (1, 2))
    assert first["prompt_eval_count"] == second["prompt_eval_count"]
    assert first["prompt_eval_count"] == blind["prompt_eval_count"] + IMAGE_TOKENS
    assert first["logprobs"] != second["logprobs"]
    again = generate(seeing, "What is it?", image(1), logprobs=True)
    assert again["response"] == first["response"] and again["logprobs"] == first["logprobs"]


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
def test_formats(seeing: Server, form: str) -> None:
    assert generate(seeing, "What is it?", image(form=form))["done_reason"] == "length"


def test_where_images_stand(seeing: Server) -> None:
    debug = {"_debug_render_only": True}
    reply = generate(seeing, "Compare.", image(1), image(2), **debug)
    text, count = rendered(reply)
    assert "<|im_start|>user\n[img-0][img-1]Compare.<|im_end|>\n" in text and count == 2
    messages = [
        user("Is [img] like [img]?", image(1), image(2)),
        {"role": "assistant", "content": "No."},
        user("And [img-0]?", image(3)),
    ]
    text, count = rendered(chat(seeing, *messages, **debug).raise_for_status().json())
    assert (
        "user\nIs [img-0] like [img-1]?<|im_end|>" in text and "user\n[img-2]And [img-0]?<|im_end|>" in text
    )
    assert count == 3
    raw = generate(seeing, "see [img-1] [img-0] now", image(1), image(2), raw=True, **debug)
    assert rendered(raw) == ("see [img-1] [img-0] now", 2)


def test_images_go_with_dropped_messages(seeing: Server) -> None:
    messages = [
        user("One " * 100, image(1)),
        {"role": "assistant", "content": "No " * 2040},
        user("What is it?", image(2)),
    ]
    # No model that sees has less.
    options = {**OPTIONS, "num_ctx": 2048}
    reply = chat(seeing, *messages, options=options).raise_for_status().json()
    assert reply["context_fit"]["dropped_messages"] == 2
    alone = chat(seeing, messages[-1], options=options).raise_for_status().json()
    assert reply["message"] == alone["message"]
    assert reply["prompt_eval_count"] == alone["prompt_eval_count"]
    too_long = chat(seeing, user("One " * 2500, image(1)), options=options)
    assert too_long.status_code == 400 and "nothing can be cut from a prompt with images" in too_long.text


def test_streams_and_formats(seeing: Server) -> None:
    reply = generate(
        seeing, "Answer in JSON.", image(), format="json", options={**OPTIONS, "num_predict": 200}
    )
    if reply["done_reason"] == "stop":
        assert isinstance(json.loads(reply["response"]), dict)
    assert reply["response"].lstrip().startswith("{")
    body = {"model": SIGHT, "messages": [user("What is it?", image())], "options": OPTIONS}
    with seeing.client.stream("POST", "/api/chat", json=body) as stream:
        lines = [json.loads(line) for line in stream.iter_lines()]
    assert stream.status_code == 200 and lines[-1]["done"] is True
    whole = chat(seeing, user("What is it?", image())).json()
    assert "".join(line["message"]["content"] for line in lines) == whole["message"]["content"]


def test_several_at_once(seeing: Server) -> None:
    wanted = {seed: generate(seeing, "What is it?", image(seed))["prompt_eval_count"] for seed in range(4)}
    found: dict[int, Any] = {}

    def ask(seed: int) -> None:
        body = {"model": SIGHT, "prompt": "What is it?", "images": [image(seed)], "stream": False}
        found[seed] = httpx.post(f"{seeing.url}/api/generate", json={**body, "options": OPTIONS}, timeout=120)

    threads = [threading.Thread(target=ask, args=(seed,)) for seed in wanted]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert {seed: reply.json()["prompt_eval_count"] for seed, reply in found.items()} == wanted


def test_a_client_that_leaves(seeing: Server) -> None:
    body = {"model": SIGHT, "messages": [user("Tell me all.", *(image(seed) for seed in range(10, 16)))]}
    with seeing.client.stream("POST", "/api/chat", json={**body, "options": OPTIONS}) as stream:
        assert stream.status_code == 200
    assert generate(seeing, "What is it?", image(1))["done"] is True


def bomb() -> str:
    """A PNG of which the header claims 65,535 by 65,535 pixels."""
    header = struct.pack(">IIBBBBB", 65535, 65535, 8, 2, 0, 0, 0)
    parts = [(b"IHDR", header), (b"IDAT", zlib.compress(b"\0" * 4)), (b"IEND", b"")]
    data = b"".join(
        struct.pack(">I", len(body)) + name + body + struct.pack(">I", zlib.crc32(name + body))
        for name, body in parts
    )
    return base64.b64encode(b"\x89PNG\r\n\x1a\n" + data).decode()


def truncated() -> str:
    return base64.b64encode(base64.b64decode(image(size=(400, 300)))[:3000]).decode()


def strip() -> str:
    buffer = io.BytesIO()
    Image.new("RGB", (3, 1000)).save(buffer, "PNG")
    return base64.b64encode(buffer.getvalue()).decode()


BAD = {
    "svg": base64.b64encode(b'<svg xmlns="http://www.w3.org/2000/svg"/>').decode(),
    "text": base64.b64encode(b"hi").decode(),
    "no base64": "!",
    "nothing": "",
    "truncated": truncated(),
    "bomb": bomb(),
    "strip": strip(),
}


@pytest.mark.parametrize("name", BAD)
def test_bad_images_are_named(seeing: Server, name: str) -> None:
    runner = runner_of(seeing)
    before = runner.memory_info().rss
    replies = {
        "images[1]": seeing.client.post(
            "/api/generate",
            json={"model": SIGHT, "prompt": "x", "images": [image(), BAD[name]], "options": OPTIONS},
        ),
        "messages[1].images[0]": chat(seeing, user("a"), user("b", BAD[name])),
        "images[0]": seeing.client.post(
            "/api/generate",
            json={"model": SIGHT, "prompt": "x", "raw": True, "images": [BAD[name]], "options": OPTIONS},
        ),
    }
    for field, reply in replies.items():
        assert reply.status_code == 400
        assert reply.json()["error"].startswith(f"{field}: ")
    assert runner.is_running()
    assert runner.memory_info().rss - before < 200 << 20


def runner_of(server: Server) -> psutil.Process:
    """The process that holds the model."""
    generate(server)
    (entry,) = (entry for entry in server.ps() if entry["name"].startswith(SIGHT))
    return psutil.Process(entry["runner"]["pid"])


def test_a_model_that_cannot_see(seeing: Server) -> None:
    for body in (
        {"prompt": "x", "images": [image()]},
        {"prompt": "x", "images": [image()], "raw": True},
        {"messages": [user("x", image())]},
    ):
        path = "/api/chat" if "messages" in body else "/api/generate"
        reply = seeing.client.post(path, json={"model": MODEL, "options": OPTIONS, **body})
        assert reply.status_code == 400
        assert "does not support vision" in reply.json()["error"]

"""Images by their addresses over HTTP: the same answers as with the images themselves, and nothing from inside."""

from __future__ import annotations

import base64
import os
import threading
from collections.abc import Iterator
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from typing import Any

import pytest

from tests.conformance.test_images import SIGHT, image, start_seeing
from tests.conftest import MODEL, Server

PICTURE = image(seed=1)
OPEN = "from corectl import addresses\naddresses.is_public = lambda address: True\n"
"""What Python runs first in the server that takes loopback for the internet."""


class Host:
    """A web server on loopback with one picture, and what was asked of it."""

    def __init__(self) -> None:
        asked = self.asked = list[str]()

        class Handler(BaseHTTPRequestHandler):
            def do_GET(self) -> None:
                asked.append(self.path)
                data = base64.b64decode(PICTURE)
                self.send_response(302 if self.path == "/turn" else 200)
                self.send_header("location", "/picture.png")
                self.send_header("content-type", "image/png")
                self.send_header("content-length", str(len(data)))
                self.end_headers()
                self.wfile.write(data)

            def log_message(self, *args: Any) -> None:
                pass

        self.server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
        threading.Thread(target=self.server.serve_forever, args=(0.01,), daemon=True).start()

    def url(self, path: str = "/picture.png") -> str:
        return f"http://localhost:{self.server.server_address[1]}{path}"


@pytest.fixture
def host() -> Iterator[Host]:
    host = Host()
    yield host
    host.server.shutdown()
    host.server.server_close()


@pytest.fixture(scope="module")
def fetching(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that fetches images, from loopback too."""
    folder = tmp_path_factory.mktemp("fetching")
    (folder / "sitecustomize.py").write_text(OPEN, "utf-8")
    path = os.pathsep.join(filter(None, [str(folder), os.environ.get("PYTHONPATH", "")]))
    running = start_seeing(folder, CORECTL_IMAGE_URLS="1", PYTHONPATH=path)
    yield running
    assert running.stop() == 0, running.log


@pytest.fixture(scope="module")
def guarded(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that fetches images, as one is used."""
    running = start_seeing(tmp_path_factory.mktemp("guarded"), CORECTL_IMAGE_URLS="1")
    yield running
    assert running.stop() == 0, running.log


def post(server: Server, path: str, **body: Any) -> tuple[int, dict[str, Any]]:
    reply = server.client.post(path, json={"model": SIGHT, "temperature": 0, "num_ctx": 1024, **body})
    return reply.status_code, reply.json()


def chat(server: Server, url: str) -> tuple[int, dict[str, Any]]:
    content = [{"type": "text", "text": "What is it?"}, {"type": "image_url", "image_url": {"url": url}}]
    messages = [{"role": "user", "content": content}]
    return post(server, "/v1/chat/completions", messages=messages, max_tokens=4)


def respond(server: Server, url: str) -> tuple[int, dict[str, Any]]:
    content = [{"type": "input_text", "text": "What is it?"}, {"type": "input_image", "image_url": url}]
    return post(server, "/v1/responses", input=[{"role": "user", "content": content}], max_output_tokens=4)


def message(server: Server, url: str, path: str = "/v1/messages") -> tuple[int, dict[str, Any]]:
    source = {"type": "url", "url": url}
    if url.startswith("data:"):
        source = {"type": "base64", "media_type": "image/png", "data": url.partition(",")[2]}
    content = [{"type": "image", "source": source}, {"type": "text", "text": "What is it?"}]
    return post(server, path, messages=[{"role": "user", "content": content}], max_tokens=4)


def count(server: Server, url: str) -> tuple[int, dict[str, Any]]:
    return message(server, url, "/v1/messages/count_tokens")


def said(body: dict[str, Any]) -> Any:
    """What of a reply is the same each time."""
    if "choices" in body:
        return body["choices"], body["usage"]["prompt_tokens"]
    if "output" in body:
        return [item["content"][0]["text"] for item in body["output"]], body["usage"]["input_tokens"]
    usage = body.get("usage", body)
    return body.get("content"), usage["input_tokens"] + usage.get("cache_read_input_tokens", 0)


@pytest.mark.parametrize("ask", [chat, respond, message, count])
def test_an_address_is_as_good_as_the_image(fetching: Server, host: Host, ask: Any) -> None:
    status, by_data = ask(fetching, f"data:image/png;base64,{PICTURE}")
    assert status == 200, by_data
    status, by_address = ask(fetching, host.url())
    assert status == 200 and said(by_address) == said(by_data), by_address
    assert host.asked == ["/picture.png"]


@pytest.mark.parametrize(
    ("ask", "field"),
    [
        (chat, "messages[0].content[1].image_url"),
        (respond, "input[0].content[1].image_url"),
        (message, "messages[0].content[0].source.url"),
        (count, "messages[0].content[0].source.url"),
    ],
)
def test_what_is_refused_is_named(
    fetching: Server, guarded: Server, host: Host, ask: Any, field: str
) -> None:
    for server, path, why in (
        (guarded, "/", "is not a host on the internet"),
        (fetching, "/turn", "redirect"),
    ):
        status, body = ask(server, host.url(path))
        assert status == 400 and why in body["error"]["message"], body
        assert body["error"]["message"].startswith(f"{field}: ")
        assert body["error"].get("param", field) == field
    assert host.asked == ["/turn"]


def test_results_of_tools_and_conversations_have_them_too(fetching: Server, host: Host) -> None:
    call = {"type": "tool_use", "id": "t1", "name": "look", "input": {}}
    picture = {"type": "image", "source": {"type": "url", "url": host.url()}}
    result = {"type": "tool_result", "tool_use_id": "t1", "content": [picture]}
    turns = [("user", "Look."), ("assistant", [call]), ("user", [result])]
    messages = [{"role": role, "content": content} for role, content in turns]
    status, body = post(fetching, "/v1/messages", messages=messages, max_tokens=4)
    assert status == 200, body
    _, first = respond(fetching, host.url())
    status, body = post(
        fetching, "/v1/responses", input="Sure?", previous_response_id=first["id"], max_output_tokens=4
    )
    # What is gone on with has the image itself.
    assert status == 200 and host.asked == ["/picture.png"] * 2, body


@pytest.mark.parametrize("ask", [chat, respond, message, count])
def test_without_the_setting_nothing_is_fetched(
    server: Server, host: Host, ask: Any, monkeypatch: Any
) -> None:
    monkeypatch.setattr(f"{__name__}.SIGHT", MODEL)
    status, body = ask(server, host.url())
    assert status == 400 and "image_urls (CORECTL_IMAGE_URLS)" in body["error"]["message"], body
    assert host.asked == []

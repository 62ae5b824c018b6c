"""A server to speak to: real sockets, and whatever a test wants them to say."""

from __future__ import annotations

import asyncio
import json
import threading
from collections.abc import AsyncIterator, Callable, Coroutine, Iterator, Sequence
from contextlib import asynccontextmanager, contextmanager
from pathlib import Path
from typing import Any

import msgspec

from corectl.errors import CorectlError
from corectl.messages import (
    ChatPrompt,
    Completion,
    Delta,
    Event,
    Finish,
    LoadOptions,
    Message,
    RawPrompt,
    SamplingOptions,
    Template,
)
from corectl.remote.backend import RemoteServer
from corectl.runner.stream import EventStream
from corectl.secret import Secret
from corectl_remote.host import Host

RECORDED = Path(__file__).parents[1] / "data" / "remote"
OWN_TEMPLATE = Template(kind="go", text="")
NO_OPTIONS = LoadOptions()
KEY = "sk-do-not-tell"

VERSION = {"version": "0.33.0", "corectl": "0.1.0"}
OLLAMA = {"version": "0.33.0"}
MODELS = {"object": "list", "data": [{"id": "m", "object": "model", "owned_by": "somebody"}]}


class Asked(msgspec.Struct):
    """A request as the server has read it."""

    method: str
    path: str
    headers: dict[str, str]
    body: bytes

    @property
    def json(self) -> dict[str, Any]:
        return dict(json.loads(self.body))


Script = Callable[["Line"], Coroutine[Any, Any, None]]


class Line:
    """The server's end of a connection, in the hands of a script. `left` is set when the client has closed its end."""

    def __init__(self, asked: Asked, writer: asyncio.StreamWriter, left: asyncio.Event) -> None:
        self.asked = asked
        self.left = left
        self._writer = writer

    def send(self, data: bytes) -> None:
        self._writer.write(data)

    def head(self, status: int = 200, *headers: str, length: int | None = None) -> None:
        """The head of a reply: of one with a length, or one in chunks."""
        ends = "transfer-encoding: chunked" if length is None else f"content-length: {length}"
        lines = [f"HTTP/1.1 {status} Whatever", ends, *headers]
        self.send("\r\n".join(lines).encode() + b"\r\n\r\n")

    def chunk(self, data: bytes) -> None:
        self.send(b"%x\r\n%s\r\n" % (len(data), data))

    def end(self) -> None:
        self.send(b"0\r\n\r\n")

    def cut(self) -> None:
        """Ends the connection without a word."""
        self._writer.transport.abort()

    def close(self) -> None:
        """Ends it as servers do that have said all."""
        self._writer.close()


def reply(value: object, status: int = 200) -> Script:
    """A whole reply: JSON, or bytes as they are."""
    body = value if isinstance(value, bytes) else json.dumps(value).encode()

    async def script(line: Line) -> None:
        line.head(status, length=len(body))
        line.send(body)

    return script


def stream(*parts: object, end: bool = True) -> Script:
    """Chunks: bytes as they are, other values as lines of JSON. Without an end the connection is cut."""

    async def script(line: Line) -> None:
        line.head()
        for part in parts:
            line.chunk(part if isinstance(part, bytes) else json.dumps(part).encode() + b"\n")
            await asyncio.sleep(0)
        if end:
            line.end()
        else:
            await asyncio.sleep(0.05)
            line.cut()

    return script


def events(*parts: object, end: bool = True) -> Script:
    """Server-sent events, with `[DONE]` after the last."""
    data = [part if isinstance(part, bytes) else json.dumps(part).encode() for part in parts]
    return stream(*(b"data: " + item + b"\n\n" for item in data), b"data: [DONE]\n\n", end=end)


class Upstream:
    """A server on a port of its own. `scripts` answer by path; a list of them one after another."""

    def __init__(self, **scripts: Script) -> None:
        self.scripts: dict[str, Script | list[Script]] = dict(scripts)
        self.asked: list[Asked] = []
        self.connections = 0
        self.url = ""
        self._serving: set[asyncio.Task[None]] = set()

    def on(self, path: str, *scripts: Script) -> Upstream:
        self.scripts[path] = scripts[0] if len(scripts) == 1 else list(scripts)
        return self

    def bodies(self, path: str) -> list[dict[str, Any]]:
        """What was posted to a path."""
        return [asked.json for asked in self.asked if asked.path == path]

    @property
    def open(self) -> int:
        """Connections that have not ended."""
        return len(self._serving)

    def accept(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        self.connections += 1
        task = asyncio.get_running_loop().create_task(self._serve(reader, writer))
        self._serving.add(task)
        task.add_done_callback(self._serving.discard)

    async def close(self) -> None:
        for task in self._serving:
            task.cancel()
        await asyncio.gather(*self._serving, return_exceptions=True)

    async def _serve(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            while (asked := await _read(reader)) is not None:
                self.asked.append(asked)
                left = asyncio.Event()
                watching = asyncio.ensure_future(_watch(reader, left))
                try:
                    await self._script(asked.path)(Line(asked, writer, left))
                finally:
                    watching.cancel()
                await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()

    def _script(self, path: str) -> Script:
        script = self.scripts.get(path)
        if isinstance(script, list):
            return script.pop(0)
        return script or reply({"error": f"no {path}"}, 404)


async def _read(reader: asyncio.StreamReader) -> Asked | None:
    try:
        head = (await reader.readuntil(b"\r\n\r\n")).decode("latin-1")
    except asyncio.IncompleteReadError:
        return None
    first, *lines = head.strip().split("\r\n")
    method, path, _ = first.split(" ")
    headers = {name.lower(): value.strip() for name, _, value in (line.partition(":") for line in lines)}
    body = await reader.readexactly(int(headers.get("content-length", 0)))
    return Asked(method, path, headers, body)


async def _watch(reader: asyncio.StreamReader, left: asyncio.Event) -> None:
    """Nothing is sent while a reply is written, so that the end of the connection is all that can come."""
    while not reader.at_eof() and reader.exception() is None:  # noqa: ASYNC110 - reading would take what is to come
        await asyncio.sleep(0.005)
    left.set()


@asynccontextmanager
async def serving(upstream: Upstream) -> AsyncIterator[Upstream]:
    server = await asyncio.start_server(upstream.accept, "127.0.0.1", 0)
    upstream.url = f"http://127.0.0.1:{server.sockets[0].getsockname()[1]}"
    try:
        yield upstream
    finally:
        server.close()
        await upstream.close()


@contextmanager
def in_thread(upstream: Upstream) -> Iterator[Upstream]:
    """The same beside a test that knows nothing of event loops."""
    loop = asyncio.new_event_loop()
    thread = threading.Thread(target=loop.run_forever, daemon=True)
    thread.start()
    context = serving(upstream)
    asyncio.run_coroutine_threadsafe(context.__aenter__(), loop).result(10)
    try:
        yield upstream
    finally:
        asyncio.run_coroutine_threadsafe(context.__aexit__(None, None, None), loop).result(10)
        loop.call_soon_threadsafe(loop.stop)
        thread.join(10)
        loop.close()


@asynccontextmanager
async def hosted(upstream: Upstream, path: str = "", key: str = KEY) -> AsyncIterator[Host]:
    """The way to a server that is up."""
    async with serving(upstream):
        host = Host(RemoteServer(name="lab", url=upstream.url + path, key=Secret(key)))
        try:
            yield host
        finally:
            await host.close()


def native(**version: str) -> Upstream:
    return Upstream().on("/api/version", reply(version or VERSION))


def openai(owner: str = "somebody") -> Upstream:
    """The path of its address ends in `/v1`."""
    return Upstream().on("/v1/models", reply({"data": [{"id": "m", "owned_by": owner}]}))


def chat(*messages: Message, **changes: Any) -> Completion:
    """A request to say something."""
    prompt_fields = {"tools", "think", "template"} & changes.keys()
    prompt = ChatPrompt(
        messages=messages or (Message(role="user", content="Hi"),),
        **{"template": OWN_TEMPLATE, **{name: changes.pop(name) for name in prompt_fields}},
    )
    return Completion(prompt=prompt, **{"sampling": SamplingOptions(), **changes})


def raw(**changes: Any) -> Completion:
    """A request to go on from a text."""
    return Completion(prompt=RawPrompt(text="Once"), sampling=SamplingOptions(), **changes)


async def collect(stream: EventStream) -> list[Event]:
    """All events, to the last. Raises the error that ends them."""
    found: list[Event] = []
    try:
        while not (found and isinstance(found[-1], Finish)):
            found += await stream.take()
    finally:
        stream.close()
    return found


async def complete(
    host: Host, request: Completion, options: LoadOptions = NO_OPTIONS, keep_alive: float | None = None
) -> list[Event]:
    return await collect(host.runner("m", options, keep_alive).complete(request))


def deltas(found: Sequence[Event]) -> list[Delta]:
    return [event for event in found if isinstance(event, Delta)]


def text_of(found: Sequence[Event]) -> str:
    return "".join(delta.text for delta in deltas(found))


def finish_of(found: Sequence[Event]) -> Finish:
    last = found[-1]
    assert isinstance(last, Finish)
    return last


async def failure(host: Host, request: Completion | None = None) -> CorectlError:
    """The error that a completion ends with."""
    try:
        await complete(host, request or chat())
    except CorectlError as exc:
        return exc
    raise AssertionError("it did not fail")

"""What a connection may do before it has sent a request."""

from __future__ import annotations

import asyncio
import resource
import socket
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager, nullcontext
from typing import Any

import pytest
import uvicorn

from corectl.server import connections
from corectl.server.connections import Connection, body_of
from corectl.server.writer import BodyWriter
from tests.core.stories import play, until

REQUEST = b"GET / HTTP/1.1\r\nhost: localhost\r\n\r\n"

Connect = Callable[[], Awaitable[tuple[asyncio.StreamReader, asyncio.StreamWriter]]]


async def app(scope: Any, receive: Any, send: Any) -> None:
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", b"4")]})
    await send({"type": "http.response.body", "body": b"fine"})


async def whole(scope: Any, receive: Any, send: Any) -> None:
    """Answers when it has all of the request's body."""
    while (await receive()).get("more_body"):
        pass
    await app(scope, receive, send)


@asynccontextmanager
async def serving(application: Any = app, **limits: Any) -> AsyncIterator[Connect]:
    """A server whose connections have these limits."""
    kind = type("Limited", (Connection,), limits)
    config = uvicorn.Config(application, http=kind, lifespan="off", log_config=None)
    server = uvicorn.Server(config)
    listener = socket.create_server(("127.0.0.1", 0))
    server.capture_signals = nullcontext  # type: ignore[method-assign,assignment]
    task = asyncio.ensure_future(server.serve(sockets=[listener]))
    try:
        yield lambda: asyncio.open_connection(*listener.getsockname())
    finally:
        server.should_exit = True
        await task
        listener.close()


async def until_closed(reader: asyncio.StreamReader) -> bytes:
    """What still comes; a connection that is closed while a client writes to it is reset."""
    try:
        return await reader.read()
    except ConnectionResetError:
        return b""


async def answer(connect: Connect, request: bytes = REQUEST) -> bytes:
    reader, writer = await connect()
    writer.write(request)
    data = await reader.read(65536)
    writer.close()
    return data


@pytest.mark.parametrize("sent", [b"", b"GET / HT", b"GET / HTTP/1.1\r\nhost: loc"])
def test_a_client_that_never_finishes_its_head_is_dropped(sent: bytes) -> None:
    async def story() -> None:
        async with serving(head_seconds=0.1) as connect:
            reader, writer = await connect()
            writer.write(sent)
            assert await reader.read() == b""
            writer.close()

    play(story())


def test_a_head_that_drips_has_one_deadline() -> None:
    async def story() -> None:
        async with serving(head_seconds=0.2) as connect:
            reader, writer = await connect()
            ended = asyncio.ensure_future(until_closed(reader))
            writer.write(b"GET / HTTP/1.1\r\n")
            while not ended.done():
                writer.write(b"x: y\r\n")
                await asyncio.sleep(0.02)
            assert ended.result() == b""
            writer.close()

    play(story())


def test_a_request_in_time_is_answered_and_so_is_the_next() -> None:
    async def story() -> None:
        async with serving(head_seconds=0.3) as connect:
            reader, writer = await connect()
            for _ in range(3):
                writer.write(REQUEST)
                assert (await reader.read(65536)).startswith(b"HTTP/1.1 200")
                await asyncio.sleep(0.15)
            writer.close()

    play(story())


def test_empty_lines_after_an_answer_do_not_keep_a_connection() -> None:
    async def story() -> None:
        async with serving(head_seconds=0.2) as connect:
            reader, writer = await connect()
            writer.write(REQUEST)
            assert (await reader.read(65536)).startswith(b"HTTP/1.1 200")
            ended = asyncio.ensure_future(until_closed(reader))
            while not ended.done():
                writer.write(b"\r\n")
                await asyncio.sleep(0.02)
            assert ended.result() == b""
            writer.close()

    play(story())


def test_a_second_head_that_never_ends_does_not_outlive_a_long_answer() -> None:
    answering = asyncio.Event()

    async def slow(scope: Any, receive: Any, send: Any) -> None:
        await answering.wait()
        await app(scope, receive, send)

    async def story() -> None:
        async with serving(slow, head_seconds=0.1) as connect:
            reader, writer = await connect()
            writer.write(REQUEST + b"GET / HTTP/1.1\r\nx: ")
            # Longer than a head may take: the first request is not to suffer from the second.
            await asyncio.sleep(0.35)
            answering.set()
            assert (await reader.read(65536)).startswith(b"HTTP/1.1 200")
            ended = asyncio.ensure_future(until_closed(reader))
            while not ended.done():
                writer.write(b"x")
                await asyncio.sleep(0.02)
            assert ended.result() == b""
            writer.close()

    play(story())


LONG = b"x" * connections.MAX_HEAD


@pytest.mark.parametrize(
    "head",
    [
        b"GET /" + LONG + b" HTTP/1.1\r\n\r\n",
        b"GET / HTTP/1.1\r\nx: " + LONG + b"\r\n\r\n",
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * (connections.MAX_HEAD // 2) + b"\r\n",
        b"GET / HTTP/1.1\r\nx: " + LONG * 8,
        b"GET /" + LONG * 8,
        b"GET / HTTP/1.1\r\n" + b"a: b\r\n" * connections.MAX_HEAD,
    ],
    ids=["address", "header", "headers", "header without end", "address without end", "headers without end"],
)
def test_a_head_that_is_too_large_is_refused(head: bytes) -> None:
    async def story() -> None:
        async with serving() as connect:
            answered = await answer(connect, head)
            assert answered.startswith(b"HTTP/1.1 431 Request Header Fields Too Large\r\n")
            assert (
                b'{"error":"the address and the headers of the request are larger than 64 KiB"}' in answered
            )

    play(story())


def test_a_large_head_and_a_large_body_are_fine() -> None:
    async def story() -> None:
        async with serving(whole) as connect:
            reader, writer = await connect()
            large = b"x: " + LONG[:-100] + b"\r\n"
            for _ in range(3):
                writer.write(
                    b"POST / HTTP/1.1\r\ncontent-length: 1000000\r\n" + large + b"\r\n" + bytes(10**6)
                )
                assert (await reader.readuntil(b"fine")).startswith(b"HTTP/1.1 200")
                writer.write(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n")
                writer.write(b"1\r\nx\r\n" * 10**5 + b"0\r\nx: y\r\n\r\n")
                assert (await reader.readuntil(b"fine")).startswith(b"HTTP/1.1 200")
            writer.close()

    play(story())


@pytest.mark.parametrize("after", [b"0\r\nx: ", b"0\r\n", b"1;"], ids=["trailer", "trailers", "extension"])
def test_what_follows_a_body_without_end_ends_the_connection(after: bytes) -> None:
    async def story() -> None:
        async with serving(whole) as connect:
            reader, writer = await connect()
            writer.write(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n" + after)
            ended = asyncio.ensure_future(until_closed(reader))
            while not ended.done():
                writer.write(b"x: y\r\n" * 1000 if after == b"0\r\n" else LONG[:5000])
                await asyncio.sleep(0.001)
            # What a client still sends when the connection closes may cost it the answer.
            assert ended.result() == b"" or ended.result().startswith(b"HTTP/1.1 431")
            writer.close()

    play(story())


def test_a_trailer_that_is_too_large_is_refused() -> None:
    async def story() -> None:
        async with serving(whole) as connect:
            reader, writer = await connect()
            writer.write(b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\n1\r\nx\r\n")
            await asyncio.sleep(0.1)
            writer.write((b"0\r\nx: " + LONG)[: connections.MAX_HEAD + 1])
            assert (await reader.read()).startswith(b"HTTP/1.1 431")
            writer.close()

    play(story())


def test_a_bad_second_request_is_not_answered_in_the_middle_of_the_first_answer() -> None:
    async def halfway(scope: Any, receive: Any, send: Any) -> None:
        await send({"type": "http.response.start", "status": 200, "headers": []})
        await send({"type": "http.response.body", "body": b"half", "more_body": True})
        while (await receive())["type"] != "http.disconnect":
            pass

    async def story() -> None:
        async with serving(halfway) as connect:
            reader, writer = await connect()
            writer.write(REQUEST)
            assert await reader.readuntil(b"4\r\nhalf\r\n")
            writer.write(b"nonsense\r\n\r\n")
            assert await until_closed(reader) == b""
            writer.close()

    play(story())


async def echo(scope: Any, receive: Any, send: Any) -> None:
    """Answers with what it was asked, and with the body."""
    body, more = b"", True
    while more:
        message = await receive()
        body, more = body + message.get("body", b""), message.get("more_body", False)
    names = sorted(name for name, _ in scope["headers"])
    text = b"%s %s %s %s;" % (scope["method"].encode(), scope["raw_path"], b",".join(names), body)
    length = b"%d" % len(text)
    await send({"type": "http.response.start", "status": 200, "headers": [(b"content-length", length)]})
    await send({"type": "http.response.body", "body": text})


UPGRADE = (
    b"POST /x%20y?z HTTP/1.1\r\nhost: h\r\nConnection: Upgrade, HTTP2-Settings\r\nUpgrade: h2c\r\n"
    b"HTTP2-Settings: AAEA\r\nContent-Length: 4\r\n\r\n"
)


@pytest.mark.parametrize("times", [1, 3])
@pytest.mark.parametrize("cut", [0, 1, 30, len(UPGRADE) - 1, len(UPGRADE), len(UPGRADE) + 2])
def test_a_request_that_would_rather_speak_another_protocol_is_answered_in_this_one(
    cut: int, times: int
) -> None:
    async def story() -> None:
        async with serving(echo) as connect:
            reader, writer = await connect()
            sent = (UPGRADE + b"body") * times + b"GET / HTTP/1.1\r\nhost: h\r\n\r\n"
            for part in (sent[:cut], sent[cut:]):
                writer.write(part)
                await asyncio.sleep(0.02)
            for _ in range(times):
                assert (await reader.readuntil(b";")).endswith(b"POST /x%20y content-length,host body;")
            assert (await reader.readuntil(b";")).endswith(b"GET / host ;")
            writer.close()

    play(story())


@pytest.mark.parametrize("target", [b"http://h", b"/\xff"])
def test_a_bad_request_for_another_protocol_is_answered(target: bytes) -> None:
    async def story() -> None:
        async with serving(echo) as connect:
            head = UPGRADE.replace(b"/x%20y?z", target)
            assert (await answer(connect, head)).startswith(b"HTTP/1.1 400")

    play(story())


def test_many_such_requests_at_once_take_no_stack() -> None:
    async def story() -> None:
        async with serving(echo) as connect:
            reader, writer = await connect()
            writer.write((UPGRADE + b"body") * 1000)
            for _ in range(1000):
                assert (await reader.readuntil(b";")).endswith(b"body;")
            writer.close()

    play(story())


def test_a_connection_that_is_to_end_ends_after_such_a_request() -> None:
    async def story() -> None:
        async with serving(echo) as connect:
            reader, writer = await connect()
            writer.write(UPGRADE.replace(b"Upgrade, ", b"close, Upgrade, ") + b"body")
            assert b"connection: close" in (await reader.read())
            writer.close()

    play(story())


def test_a_bad_body_is_answered() -> None:
    async def story() -> None:
        async with serving(whole) as connect:
            answered = await answer(connect, b"POST / HTTP/1.1\r\ntransfer-encoding: chunked\r\n\r\nzz\r\n")
            assert answered.startswith(b"HTTP/1.1 400")

    play(story())


def test_pieces_of_a_body_go_past_middleware_until_the_last() -> None:
    sent: list[str] = []

    async def streaming(scope: Any, receive: Any, send: Any) -> None:
        async def counted(message: Any) -> None:
            sent.append(message["type"].removeprefix("http.response."))
            await send(message)

        assert not body_of(scope)([b"too early"])
        writer = BodyWriter(scope, counted, {"type": "http.response.start", "status": 200, "headers": []})
        for piece in (b"one ", b"", b"two ", b"three"):
            writer.write([piece])
        writer.write([b"!"], last=True)
        await writer.sent
        assert not body_of(scope)([b"too late"])

    async def story() -> None:
        async with serving(streaming) as connect:
            reader, writer = await connect()
            for _ in range(2):
                writer.write(REQUEST)
                data = await reader.readuntil(b"0\r\n\r\n")
                assert data.endswith(b"4\r\none \r\n4\r\ntwo \r\n5\r\nthree\r\n1\r\n!\r\n0\r\n\r\n")
            writer.close()

    play(story())
    assert sent == ["start", "body", "body"] * 2


def test_who_does_not_read_is_waited_for() -> None:
    held: list[int] = []

    async def flooding(scope: Any, receive: Any, send: Any) -> None:
        writer = BodyWriter(scope, send, {"type": "http.response.start", "status": 200, "headers": []})
        for _ in range(400):
            writer.write([bytes(65536)])
        held.append(writer.held)
        writer.write([b""], last=True)
        await writer.sent

    async def story() -> None:
        async with serving(flooding) as connect:
            reader, writer = await connect()
            writer.write(REQUEST)
            await until(lambda: bool(held))
            assert held[0] > 2**20
            data = await _all(reader)
            assert data.count(b"\0") == 400 * 65536
            writer.close()

    play(story())


async def _all(reader: asyncio.StreamReader) -> bytes:
    """A reply of which everything is read, however long it is."""
    data = bytearray()
    while not data.endswith(b"\r\n0\r\n\r\n"):
        data += await reader.read(2**20)
    return bytes(data)


def test_refusals_are_summed_up_in_the_log(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        async with serving(most=1) as connect:
            _, writer = await connect()
            await asyncio.sleep(0.05)
            for _ in range(5):
                assert (await answer(connect, b"")).startswith(b"HTTP/1.1 503 ")
            writer.close()

    play(story())
    assert [line for line in caplog.messages if "refused" in line] == [
        "1 connections were refused: there are 1 already"
    ]


def test_one_connection_too_many_is_told_so() -> None:
    async def story() -> None:
        async with serving(most=2) as connect:
            held = [await connect() for _ in range(2)]
            await asyncio.sleep(0.05)
            refusal = await answer(connect, b"")
            assert refusal.startswith(b"HTTP/1.1 503 ") and b"retry-after: 1" in refusal
            assert refusal.endswith(b'{"error":"too many connections to this server, please try again"}')
            reader, writer = held[0]
            writer.write(REQUEST)
            assert (await reader.read(65536)).startswith(b"HTTP/1.1 200")
            held[1][1].close()
            await asyncio.sleep(0.05)
            assert (await answer(connect)).startswith(b"HTTP/1.1 200")
            for _, writer in held:
                writer.close()

    play(story())


def test_the_limit_leaves_files_for_everything_else(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[tuple[int, int]] = []
    monkeypatch.setattr(resource, "getrlimit", lambda _: (1024, 4096))
    monkeypatch.setattr(resource, "setrlimit", lambda _, limits: asked.append(limits))
    assert connections.connections().most == 4096 - connections.RESERVED_FILES
    assert asked == [(4096, 4096)]
    assert connections.connections(100).most == 100

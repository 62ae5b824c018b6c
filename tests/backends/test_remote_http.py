"""The connection to a remote server: kept, cut, silent, hostile."""

from __future__ import annotations

import asyncio
import logging
import socket

import pytest

from corectl.errors import CorectlError, RemoteError, RemoteUnreachable
from corectl.remote.backend import RemoteServer
from corectl.secret import Secret
from corectl_remote import connection, http
from corectl_remote.connection import Head, Take
from corectl_remote.http import HttpClient
from tests.backends.remote_kit import KEY, Line, Script, Upstream, reply, serving
from tests.core.stories import play, until


async def client(upstream: Upstream, key: str = KEY) -> HttpClient:
    return HttpClient(RemoteServer(name="lab", url=upstream.url, key=Secret(key)))


def ask(script: Script, *, times: int = 1, seconds: float | None = None) -> list[bytes]:
    """What `/x` answers, asked so many times. Raises what the client raises."""
    found: list[bytes] = []

    async def story() -> None:
        async with serving(Upstream().on("/x", script)) as upstream:
            it = await client(upstream)
            found.extend([(await it.ask("GET", "/x", seconds=seconds)).body for _ in range(times)])
            await it.close()

    play(story())
    return found


def failing(script: Script, seconds: float | None = None) -> CorectlError:
    with pytest.raises(CorectlError) as caught:
        ask(script, seconds=seconds)
    assert "lab" in caught.value.message
    return caught.value


def test_a_connection_is_used_again() -> None:
    async def story() -> None:
        async with serving(Upstream().on("/x", reply({"a": 1}))) as upstream:
            it = await client(upstream)
            for _ in range(3):
                answer = await it.ask("POST", "/x", b"{}")
                assert (answer.head.status, answer.body) == (200, b'{"a": 1}')
            assert upstream.connections == 1
            first = upstream.asked[0].headers
            assert first["authorization"] == f"Bearer {KEY}"
            assert first["content-type"] == "application/json"
            assert first["host"] == upstream.url.removeprefix("http://")
            await it.close()
            await until(lambda: upstream.open == 0)

    play(story())


def test_requests_at_once_have_connections_of_their_own() -> None:
    async def story() -> None:
        together = asyncio.Barrier(3)

        async def slowly(line: Line) -> None:
            await together.wait()
            await reply({})(line)

        async with serving(Upstream().on("/x", slowly)) as upstream:
            it = await client(upstream)
            await asyncio.gather(*(it.ask("GET", "/x") for _ in range(3)))
            assert upstream.connections == 3
            await it.close()

    play(story())


def test_a_connection_that_the_server_has_closed_meanwhile_is_replaced() -> None:
    async def and_close(line: Line) -> None:
        await reply({})(line)
        line.close()

    assert ask(and_close, times=4) == [b"{}"] * 4


def test_a_request_on_a_connection_that_dies_under_it_is_sent_again() -> None:
    """A server may close a connection in the very moment in which it is used again."""

    async def story() -> None:
        async def drop(line: Line) -> None:
            line.cut()

        async with serving(Upstream().on("/x", reply({}), drop, reply({"n": 2}))) as upstream:
            it = await client(upstream)
            await it.ask("GET", "/x")
            assert (await it.ask("GET", "/x")).body == b'{"n": 2}'
            assert upstream.connections == 2
            await it.close()

    play(story())


def test_a_request_that_a_server_may_have_worked_on_is_not_sent_again(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(connection, "UNSEEN", 0.01)

    async def story() -> None:
        async def drop(line: Line) -> None:
            await asyncio.sleep(0.1)
            line.cut()

        async with serving(Upstream().on("/x", reply({}), drop, reply({"n": 2}))) as upstream:
            it = await client(upstream)
            await it.ask("GET", "/x")
            with pytest.raises(RemoteError, match="broke off"):
                await it.ask("GET", "/x")
            assert upstream.connections == 1
            await it.close()

    play(story())


def test_a_new_connection_that_is_dropped_is_an_error() -> None:
    async def drop(line: Line) -> None:
        line.cut()

    assert "closed the connection without an answer" in failing(drop).message


async def _half(line: Line) -> None:
    line.head(length=10)
    line.send(b"12345")
    await asyncio.sleep(0.02)
    line.cut()


async def _half_chunk(line: Line) -> None:
    line.head()
    line.send(b"a\r\n12345")
    await asyncio.sleep(0.02)
    line.close()


async def _head_without_end(line: Line) -> None:
    line.send(b"HTTP/1.1 200 OK\r\n")
    while not line.left.is_set():
        line.send(b"x-more: " + b"y" * 10_000 + b"\r\n")
        await asyncio.sleep(0)


async def _no_http(line: Line) -> None:
    line.send(b"220 mail.example ESMTP\r\n")


async def _bad_chunk(line: Line) -> None:
    line.head()
    line.send(b"zz\r\n")


async def _upgrade(line: Line) -> None:
    line.send(b"HTTP/1.1 101 Switching Protocols\r\nconnection: upgrade\r\nupgrade: websocket\r\n\r\n")


@pytest.mark.parametrize(
    ("script", "text"),
    [
        (_half, "broke off"),
        (_half_chunk, "broke off"),
        (_head_without_end, "a head without an end"),
        (_no_http, "does not speak HTTP"),
        (_bad_chunk, "does not speak HTTP"),
        (_upgrade, "does not speak HTTP"),
    ],
)
def test_what_no_server_should_send(script: Script, text: str) -> None:
    assert text in failing(script, seconds=20).message


def test_a_reply_without_a_length_ends_with_its_connection() -> None:
    async def script(line: Line) -> None:
        line.send(b"HTTP/1.1 200 OK\r\n\r\n")
        line.send(b"all of it")
        line.close()

    assert ask(script, times=2) == [b"all of it"] * 2


def test_a_head_before_the_head_is_passed_over() -> None:
    async def script(line: Line) -> None:
        line.send(b"HTTP/1.1 100 Continue\r\n\r\n")
        await reply({"a": 1})(line)

    assert ask(script, times=2) == [b'{"a": 1}'] * 2


def test_what_comes_after_a_reply_is_never_taken_for_the_next_one() -> None:
    stolen = b"HTTP/1.1 200 OK\r\ncontent-length: 6\r\n\r\nforged"

    async def story() -> None:
        async def script(line: Line) -> None:
            line.head(length=4)
            line.send(b"true" + stolen)

        async with serving(Upstream().on("/x", script)) as upstream:
            it = await client(upstream)
            assert [(await it.ask("GET", "/x")).body for _ in range(2)] == [b"true"] * 2
            assert upstream.connections == 2
            await it.close()

    play(story())


def test_a_body_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "MAX_BODY", 1000)
    assert "more than 1000 bytes" in failing(reply(b"x" * 2000)).message


def test_a_server_that_is_too_slow() -> None:
    async def silent(line: Line) -> None:
        await line.left.wait()

    error = failing(silent, seconds=0.05)
    assert isinstance(error, RemoteUnreachable) and "did not answer within 0.05 seconds" in error.message


def test_a_stream_that_falls_silent(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "SILENCE_SECONDS", 0.1)

    async def story() -> None:
        async def script(line: Line) -> None:
            line.head()
            line.chunk(b"begins")
            await line.left.wait()

        parts: list[bytes] = []

        def on_head(head: Head) -> Take:
            return parts.append

        async with serving(Upstream().on("/x", script)) as upstream:
            it = await client(upstream)
            with pytest.raises(RemoteError, match=r"has sent nothing for 0\.1 seconds"):
                await it.send("GET", "/x", None, on_head)
            assert parts == [b"begins"]
            await until(lambda: upstream.open == 0)

    play(story())


def test_whoever_leaves_closes_the_connection() -> None:
    async def story() -> None:
        left = asyncio.Event()

        async def script(line: Line) -> None:
            line.head()
            line.chunk(b"x")
            await line.left.wait()
            left.set()

        async with serving(Upstream().on("/x", script)) as upstream:
            it = await client(upstream)
            task = asyncio.ensure_future(it.ask("GET", "/x"))
            await until(lambda: bool(upstream.asked))
            task.cancel()
            await left.wait()

    play(story())


def test_closing_the_client_ends_what_runs() -> None:
    async def story() -> None:
        async def script(line: Line) -> None:
            await line.left.wait()

        async with serving(Upstream().on("/x", script)) as upstream:
            it = await client(upstream)
            task = asyncio.ensure_future(it.ask("GET", "/x"))
            await until(lambda: bool(upstream.asked))
            await it.close()
            with pytest.raises(RemoteError):
                await task

    play(story())


def test_what_was_closed_is_not_asked_again() -> None:
    """A request on a connection that was used before is sent again if that was dropped, but not by us."""

    async def story() -> None:
        async def silent(line: Line) -> None:
            await line.left.wait()

        async with serving(Upstream().on("/x", reply({}), silent, reply({}))) as upstream:
            it = await client(upstream)
            await it.ask("GET", "/x")
            task = asyncio.ensure_future(it.ask("POST", "/x", b"{}"))
            await until(lambda: len(upstream.asked) == 2)
            await it.close()
            for question in (task, it.ask("GET", "/x")):
                with pytest.raises(RemoteError, match="is closed"):
                    await question
            assert (len(upstream.asked), upstream.connections) == (2, 1)

    play(story())


def test_an_address_that_leads_nowhere_does_not_take_all_of_the_time(monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        async with serving(Upstream().on("/x", reply({}))) as upstream:
            port = int(upstream.url.rpartition(":")[2])

            async def several(host: str, at: int) -> list[str]:
                # The first is for documents (RFC 5737): nobody answers there, or it is refused at once.
                return ["192.0.2.1", "192.0.2.2", "127.0.0.1"]

            monkeypatch.setattr(http, "addresses", several)
            it = HttpClient(RemoteServer(name="lab", url=f"http://lab.example:{port}"))
            assert (await it.ask("GET", "/x")).body == b"{}"
            await it.close()

    play(story())


@pytest.mark.parametrize(
    ("url", "text"),
    [
        ("http://127.0.0.1:{port}", "connection refused"),
        ("http://no-such-host.invalid:80", "there is no host of that name"),
        ("http://" + "a" * 70 + ".example:80", "there is no host of that name"),
    ],
)
def test_a_server_that_is_not_there(url: str, text: str) -> None:
    async def story() -> None:
        with socket.socket() as unused:
            unused.bind(("127.0.0.1", 0))
            at = url.format(port=unused.getsockname()[1])
            it = HttpClient(RemoteServer(name="lab", url=at, key=Secret(KEY)))
            with pytest.raises(RemoteUnreachable) as caught:
                await it.ask("GET", "/x")
        assert text in caught.value.message
        assert f"lab ({at})" in caught.value.message and "check that it runs" in caught.value.message

    play(story())


def test_a_host_that_does_not_even_refuse(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(http, "CONNECT_SECONDS", 0.2)

    async def story() -> None:
        # A full backlog: the system answers nothing to those who want to connect.
        with socket.socket() as full, socket.socket() as one, socket.socket() as two:
            full.bind(("127.0.0.1", 0))
            full.listen(0)
            for filler in (one, two):
                filler.setblocking(False)
                filler.connect_ex(full.getsockname())
            it = HttpClient(RemoteServer(name="lab", url=f"http://127.0.0.1:{full.getsockname()[1]}"))
            with pytest.raises(RemoteUnreachable, match=r"within 0\.2 seconds"):
                await it.ask("GET", "/x")

    play(story())


def test_tls_where_there_is_none() -> None:
    async def story() -> None:
        async with serving(Upstream()) as upstream:
            url = upstream.url.replace("http:", "https:")
            it = HttpClient(RemoteServer(name="lab", url=url))
            with pytest.raises(RemoteUnreachable, match="cannot be reached"):
                await it.ask("GET", "/x")

    play(story())


def test_an_address_cannot_add_lines_to_a_request() -> None:
    async def story() -> None:
        async with serving(Upstream().on("/a%0D%0Ax:%20y%20/x", reply({}))) as upstream:
            it = HttpClient(RemoteServer(name="lab", url=f"{upstream.url}/a\r\nx: y "))
            # Parsers of addresses leave out some of these characters; what is left is one path.
            await it.ask("GET", "/x")
            (asked,) = upstream.asked
            assert "x" not in asked.headers and asked.path.endswith("/x")
            await it.close()

    play(story())


def test_the_key_is_in_no_log_and_no_error(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.DEBUG)
    errors = [failing(script, seconds=5) for script in (_half, _no_http)]
    assert all(KEY not in error.message and KEY not in repr(error) for error in errors)
    assert KEY not in caplog.text

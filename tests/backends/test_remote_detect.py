"""Which protocol a server speaks, and what to do about one that says nothing sensible."""

from __future__ import annotations

import asyncio
from contextlib import suppress

import pytest

from corectl import trace
from corectl.errors import CorectlError, RemoteError, RemoteUnreachable
from corectl.remote.backend import RemoteServer
from corectl_remote.host import Host
from tests.backends.remote_kit import (
    KEY,
    MODELS,
    OLLAMA,
    VERSION,
    Line,
    Script,
    Upstream,
    chat,
    failure,
    hosted,
    native,
    reply,
    serving,
)
from tests.core.stories import play, until


def spoken(upstream: Upstream, path: str = "") -> str:
    """What is found out about a server."""
    found = ""

    async def story() -> None:
        nonlocal found
        async with hosted(upstream, path) as host:
            await host.wire()
            found = host.protocol

    play(story())
    return found


def refused(upstream: Upstream, path: str = "") -> CorectlError:
    with pytest.raises(CorectlError) as caught:
        spoken(upstream, path)
    return caught.value


def test_a_corectl_and_an_ollama() -> None:
    assert spoken(native(**VERSION)) == "the native API (corectl 0.1.0)"
    assert spoken(native(**OLLAMA)) == "the native API (Ollama 0.33.0)"


def test_an_address_that_ends_in_v1_is_taken_at_its_word() -> None:
    upstream = native().on("/v1/models", reply(MODELS))
    assert spoken(upstream, "/v1") == "OpenAI's protocol"
    assert [asked.path for asked in upstream.asked] == ["/v1/models"]


@pytest.mark.parametrize(
    "version",
    [
        reply({"error": {"message": "File Not Found"}}, 404),
        # Some servers answer every path with a 200.
        reply({"error": "Unexpected endpoint or method. (GET /api/version)"}),
        reply(b"<html>hello</html>"),
        reply({"version": 1}),
    ],
)
def test_a_server_without_the_native_api_may_have_the_other_one(version: object) -> None:
    upstream = Upstream().on("/api/version", version).on("/v1/models", reply(MODELS))  # type: ignore[arg-type]
    assert spoken(upstream) == "OpenAI's protocol"


@pytest.mark.parametrize(("owner", "name"), [("vllm", "vLLM"), ("llamacpp", "llama-server")])
def test_servers_that_say_who_they_are(owner: str, name: str) -> None:
    upstream = Upstream().on("/v1/models", reply({"data": [{"id": "m", "owned_by": owner}]}))
    assert spoken(upstream, "/v1") == f"OpenAI's protocol ({name})"


def test_a_server_that_speaks_neither() -> None:
    error = refused(Upstream())
    assert isinstance(error, RemoteError)
    assert "speaks neither the native API nor OpenAI's protocol" in error.message
    assert "check its address" in error.message


def test_a_key_that_is_refused() -> None:
    upstream = Upstream().on("/v1/models", reply({"error": {"message": f"no: {KEY}"}}, 401))
    for path in ("", "/v1"):
        error = refused(upstream, path)
        assert error.status == 502
        assert "refuses to answer (401): no: ***; check its key in remote_keys" in error.message


def test_a_server_that_fails_is_not_taken_for_one_of_another_kind() -> None:
    error = refused(Upstream().on("/api/version", reply({"error": "starting"}, 503)))
    assert (error.code, error.message.endswith("starting")) == ("busy", True)


def test_redirects_are_not_followed_and_take_no_key_with_them() -> None:
    async def story() -> None:
        async with serving(native()) as thief:

            async def redirect(line: Line) -> None:
                line.head(307, f"location: {thief.url}{line.asked.path}", length=0)

            scripts = dict.fromkeys(("/api/version", "/v1/models", "/api/chat"), redirect)
            async with hosted(Upstream(**scripts)) as host:
                error = await failure(host)
                assert "redirects to another address (307), and is not followed" in error.message
            async with hosted(native().on("/api/chat", redirect)) as host:
                error = await failure(host)
                assert (error.status, "not followed" in error.message) == (502, True)
            assert thief.asked == []

    play(story())


def test_all_who_wait_share_one_question_and_its_answer() -> None:
    async def story() -> None:
        go = asyncio.Event()

        async def slowly(line: Line) -> None:
            await go.wait()
            await reply({"error": "broken"}, 500)(line)

        async with hosted(Upstream().on("/api/version", slowly)) as host:
            leaving, *waiting = (asyncio.ensure_future(host.wire()) for _ in range(5))
            await asyncio.sleep(0.01)
            leaving.cancel()
            go.set()
            found = await asyncio.gather(*waiting, return_exceptions=True)
            assert all(isinstance(error, RemoteError) for error in found)
            assert leaving.cancelled()

    play(story())


def test_after_a_server_was_gone_another_one_may_stand_in_its_place() -> None:
    async def story() -> None:
        upstream = native().on("/api/tags", reply({"models": []}))
        async with serving(upstream):
            host = Host(RemoteServer(name="lab", url=upstream.url))
            await host.models()
            assert "native" in host.protocol
        with pytest.raises(RemoteUnreachable):
            await host.models()
        assert host.protocol == ""
        port = int(upstream.url.rpartition(":")[2])
        later = Upstream().on("/v1/models", reply(MODELS))
        server = await asyncio.start_server(later.accept, "127.0.0.1", port)
        assert [entry.id for entry in await host.models()] == ["m"]
        assert "OpenAI" in host.protocol
        await host.close()
        server.close()
        await until(lambda: later.open == 0)

    play(story())


def test_an_error_of_a_request_reaches_whoever_made_it() -> None:
    async def story() -> None:
        async with hosted(Upstream()) as host:
            assert (await failure(host, chat())).code == "remote_error"

    play(story())


async def _protocols(upstream: Upstream, *changes: tuple[str, Script]) -> list[str]:
    """What is spoken with a server before and after a change, two checks later."""
    async with hosted(upstream) as host:
        await host.models()
        before = host.protocol
        for path, script in changes:
            upstream.on(path, script)
        with suppress(CorectlError):
            await host.models()
        await host.models()
        return [before, host.protocol]


def test_a_server_that_was_replaced_by_one_of_another_kind() -> None:
    async def story() -> None:
        none = reply({"detail": "Not Found"}, 404)
        upstream = native(**OLLAMA).on("/api/tags", reply({"models": []}))
        changes = (("/api/version", none), ("/api/tags", none), ("/v1/models", reply(MODELS)))
        assert await _protocols(upstream, *changes) == ["the native API (Ollama 0.33.0)", "OpenAI's protocol"]

    play(story())


def test_an_ollama_in_the_place_of_a_corectl_gets_nothing_that_it_would_pass_over() -> None:
    async def story() -> None:
        upstream = native(**VERSION).on("/api/tags", reply({"models": []}))
        before, after = await _protocols(upstream, ("/api/version", reply(OLLAMA)))
        assert (before, after) == ("the native API (corectl 0.1.0)", "the native API (Ollama 0.33.0)")

    play(story())


def test_a_check_that_was_given_up_gives_up_what_it_had_found_out() -> None:
    async def story() -> None:
        async def silent(line: Line) -> None:
            await line.left.wait()

        upstream = native().on("/api/tags", silent)
        async with hosted(upstream) as host:
            with pytest.raises(TimeoutError):
                await asyncio.wait_for(host.models(), 0.1)
            assert host.protocol == ""
            none = reply({}, 404)
            upstream.on("/api/version", none).on("/api/tags", none).on("/v1/models", reply(MODELS))
            assert [entry.id for entry in await host.models()] == ["m"]

    play(story())


def test_finding_out_is_nobodys_request() -> None:
    async def story() -> None:
        trace.begin(trace.Trace(id="abc", via="1.1 corectl-0123456789abcdef"))
        upstream = native().on("/api/show", reply({}))
        async with hosted(upstream) as host:
            await host.describe("m")
        version, show = upstream.asked
        assert (version.path, "x-request-id" in version.headers, "via" in version.headers) == (
            "/api/version",
            False,
            False,
        )
        assert show.headers["x-request-id"] == "abc"

    play(story())

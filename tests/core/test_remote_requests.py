"""Requests that are passed on to other servers: leases, options, and where they have been."""

from __future__ import annotations

import asyncio
from pathlib import Path
from typing import Any, cast

import pytest

from corectl import trace
from corectl.errors import (
    BadRequest,
    Busy,
    CorectlError,
    NotFound,
    NotSupported,
    RemoteError,
    RemoteUnreachable,
)
from corectl.messages import GivenOptions, LoadOptions
from corectl.remote.remotes import MAX_HOPS, forwarded
from corectl.trace import Trace
from tests.core import fake
from tests.core.remote_fake import (
    URL,
    host_of,
    make,
    stub,
)
from tests.core.stories import Stage, outcomes, play


def test_a_request_takes_its_id_along_and_says_where_it_has_been() -> None:
    first = forwarded(Trace(id="abc"))
    assert first["x-request-id"] == "abc"
    other = "corectl-0123456789abcdef"
    second = forwarded(Trace(id="abc", via=f"1.1 nginx, 1.1 {other}\x00"))
    assert second["via"] == f"1.1 {other}, {first['via']}", "only what is ours goes on"


def test_requests_do_not_go_in_circles() -> None:
    via = forwarded(Trace(id="abc"))["via"]
    with pytest.raises(RemoteError, match="in a circle") as caught:
        forwarded(Trace(id="abc", via=f"1.1 proxy, {via}"))
    assert caught.value.status == 508
    long = ", ".join(f"1.1 corectl-{number:016x}" for number in range(MAX_HOPS))
    with pytest.raises(RemoteError):
        forwarded(Trace(id="abc", via=long))


def test_a_lease_of_a_remote_model_waits_for_nothing_and_is_told_of(tmp_path: Path) -> None:
    async def story() -> None:
        stage = Stage(tmp_path, max_queue=0, max_loaded_models=1)
        made = make(remotes={"lab": URL})
        model = made.model(stub())
        host = host_of(model.server)
        options = LoadOptions(num_ctx=9)
        async with stage.scheduler.lease(model, options, 5.0) as lease:
            assert lease.runner is cast(Any, host) and lease.notices == ()
            lease.trace.answered(3)
        assert host.asked == [("x", options, 5.0)]
        assert stage.scheduler.loaded() == [] and stage.scheduler.stats.loads == 0
        for error in (NotFound("x"), RemoteUnreachable("x"), ZeroDivisionError("x")):
            with pytest.raises(type(error)):
                async with stage.scheduler.lease(model, options):
                    raise error
        await stage.scheduler.unload(model)
        assert host.asked[-1] == ("unload", "x")
        with pytest.raises(NotSupported, match="takes no memory of this machine"):
            await stage.scheduler.plan(model, options)
        await stage.scheduler.shutdown()
        with pytest.raises(Busy):
            async with stage.scheduler.lease(model, options):
                pass

    play(story())
    assert outcomes() == ["finished", "not_found", "remote_unreachable", "internal", "busy"]
    summary = next(value for event, value in fake.EVENTS if event == "finished")
    assert summary.model == "stub:latest" and summary.usage.prompt_tokens == 3


def test_a_lease_that_is_cancelled(tmp_path: Path) -> None:
    async def story() -> None:
        stage = Stage(tmp_path)
        held = stage.hold(cast(Any, make(remotes={"lab": URL}).model(stub())))
        await held.granted
        held.task.cancel()
        await asyncio.gather(held.task, return_exceptions=True)
        await stage.scheduler.shutdown()

    play(story())
    assert outcomes() == ["cancelled"]


def test_options_remember_what_was_given() -> None:
    from corectl.model.options import read_given_options, read_options

    model, request = {"temperature": 0.8, "num_ctx": 5}, {"top_k": 40, "stop": ["a"], "unknown": 1}
    load, sampling = read_given_options(model, request)
    assert isinstance(sampling, GivenOptions)
    assert sampling.given == ("temperature", "top_k", "stop") and load == LoadOptions(num_ctx=5)
    assert read_options(model, request)[0] == load
    with pytest.raises(BadRequest, match="top_p"):
        read_given_options({}, {"top_p": 7})


def test_the_trace_of_a_request_has_where_it_came_through() -> None:
    from corectl.server.request_log import RequestLog

    seen: list[Trace] = []

    async def app(scope: Any, receive: Any, send: Any) -> None:
        seen.append(trace.current())
        await send({"type": "http.response.start", "status": 200, "headers": []})

    async def send(message: Any) -> None:
        return None

    async def story() -> None:
        headers = [(b"via", b"1.1 a"), (b"x-request-id", b"abc"), (b"via", b"1.1 b" + b"x" * 5000)]
        scope = {"type": "http", "headers": headers, "path": "/", "method": "GET"}
        await RequestLog(app)(scope, cast(Any, None), send)

    play(story())
    assert seen[0].id == "abc"
    assert "1.1 a, 1.1 bx" in seen[0].via and len(seen[0].via) < 1100


def test_errors_of_remote_servers_have_the_status_that_they_are_given() -> None:
    assert (RemoteError("x").status, RemoteError("x", 429).status) == (502, 429)
    assert isinstance(RemoteUnreachable("x"), RemoteError) and issubclass(RemoteError, CorectlError)

"""What is noted of a request on its way, and what plugins are told of it."""

from __future__ import annotations

import asyncio

import pytest

from corectl import trace
from corectl.errors import Busy, Canceled
from corectl.messages import Finish, Fit, Notice, Usage
from corectl.scheduler.state import RequestSummary
from corectl.trace import Trace, fit_codes
from tests.core import fake
from tests.core.stories import MakeStage, Stage, play


def summaries() -> list[RequestSummary]:
    return [value for event, value in fake.EVENTS if event == "finished"]


async def loaded(stage: MakeStage, **settings: int) -> Stage:
    """A stage whose model `a` has answered one request."""
    it = stage(**settings)
    held = it.hold()
    await it.loaded(0)
    await held.granted
    await held.let_go()
    return it


@pytest.mark.parametrize(
    ("fit", "codes"),
    [
        (Fit(num_ctx=8), []),
        (Fit(num_ctx=8, dropped_messages=1), ["messages_dropped"]),
        (Fit(num_ctx=8, dropped_tokens=3), ["prompt_truncated"]),
        (Fit(num_ctx=8, dropped_tokens=3, shifts=1), ["context_shifted"]),
    ],
)
def test_codes_of_what_was_done_to_make_it_fit(fit: Fit, codes: list[str]) -> None:
    assert fit_codes(fit) == codes


def test_a_trace_belongs_to_the_tasks_of_its_request() -> None:
    async def story() -> None:
        async def request(id: str) -> str:
            trace.begin(Trace(id=id))
            await asyncio.sleep(0)
            return await asyncio.create_task(inner())

        async def inner() -> str:
            return trace.current().id

        assert list(await asyncio.gather(request("a"), request("b"))) == ["a", "b"]

    play(story())


def test_a_summary_has_what_the_trace_has(stage: MakeStage) -> None:
    async def story() -> None:
        it = await loaded(stage)
        trace.begin(Trace(id="abc", path="/api/chat"))
        async with it.lease() as lease:
            lease.trace.answers()
            notices = (Notice(code="tool_call_not_parsed", message="m"),)
            usage = Usage(prompt_tokens=3, cached_tokens=2, output_tokens=5)
            fit = Fit(num_ctx=8, dropped_messages=1)
            lease.trace.finished(Finish(reason="length", usage=usage, fit=fit, notices=notices))
        first, second = summaries()
        assert (first.id, first.path, first.usage, first.first_token) == ("", "", None, None)
        assert 0 <= first.load <= first.queued <= first.total
        assert (second.id, second.path, second.outcome) == ("abc", "/api/chat", "finished")
        assert (second.model, second.reason, second.usage) == ("a:latest", "length", usage)
        assert second.notices == ("tool_call_not_parsed", "messages_dropped")
        assert second.load == 0, "it was in memory already"
        assert second.first_token is not None and second.queued <= second.first_token <= second.total
        await it.scheduler.shutdown()

    play(story())


def test_a_client_that_left_is_no_error(stage: MakeStage) -> None:
    async def story() -> None:
        it = await loaded(stage)
        with pytest.raises(Canceled):
            async with it.lease():
                raise Canceled("request canceled")
        assert summaries()[1].outcome == "cancelled"
        await it.scheduler.shutdown()

    play(story())


@pytest.mark.parametrize(("seconds", "advice"), [(0.0, 1), (12.1, 13), (1000.0, 60)])
def test_when_to_ask_again_is_after_a_load(stage: MakeStage, seconds: float, advice: int) -> None:
    async def story() -> None:
        it = await loaded(stage, max_loaded_models=1, max_queue=0)
        it.scheduler._load_seconds = seconds
        held = it.hold()
        await held.granted
        waiting = it.hold(it.b)
        await asyncio.sleep(0)
        with pytest.raises(Busy) as refused:
            await it.hold(it.b).task
        assert refused.value.retry_after == advice
        await held.let_go()
        await it.loaded(1)
        await waiting.granted
        await waiting.let_go()
        await it.scheduler.shutdown()

    play(story())

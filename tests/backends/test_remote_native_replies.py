"""Streamed replies of the native API: whole, cut, hostile."""

from __future__ import annotations

import asyncio
import json
from typing import Any

import pytest

from corectl.messages import (
    Completion,
    Finish,
    Fit,
    LoadOptions,
    Logprob,
    Notice,
    RawPrompt,
    SamplingOptions,
    Started,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from corectl_remote import lines
from tests.backends.remote_kit import (
    VERSION,
    Line,
    Script,
    chat,
    complete,
    deltas,
    failure,
    finish_of,
    hosted,
    native,
    reply,
    stream,
    text_of,
)
from tests.core.stories import play, until


def said(text: str = "", **more: Any) -> dict[str, Any]:
    """A line of a chat."""
    return {"model": "m", "message": {"role": "assistant", "content": text, **more}, "done": False}


def done(**more: Any) -> dict[str, Any]:
    return {**said(), "done": True, "done_reason": "stop", **more}


def asked(
    request: Completion,
    *,
    version: dict[str, str] = VERSION,
    options: LoadOptions = LoadOptions(),  # noqa: B008
    keep_alive: float | None = None,
) -> tuple[str, dict[str, Any], Finish]:
    """Path and body of what a completion becomes, and the end of its reply."""
    found: list[tuple[str, dict[str, Any], Finish]] = []

    async def story() -> None:
        answer = stream(done(), {"model": "m", "response": "", "done": True})
        upstream = native(**version).on("/api/chat", answer).on("/api/generate", answer)
        async with hosted(upstream) as host:
            last = finish_of(await complete(host, request, options, keep_alive))
            sent = upstream.asked[-1]
            found.append((sent.path, sent.json, last))

    play(story())
    return found[0]


def answered(script: Script, request: Completion | None = None, path: str = "/api/chat") -> list[Any]:
    """The events of a reply."""
    found: list[Any] = []

    async def story() -> None:
        async with hosted(native().on(path, script)) as host:
            found.extend(await complete(host, request or chat()))

    play(story())
    return found


def test_a_reply_in_pieces() -> None:
    found = answered(
        stream(said(thinking="Hm."), said("Hello"), said(" there"), done(message={"content": "!"}))
    )
    assert isinstance(found[0], Started)
    assert [(delta.text, delta.thinking) for delta in deltas(found)] == [
        ("", "Hm."),
        ("Hello", ""),
        (" there", ""),
        ("!", ""),
    ]
    assert finish_of(found).reason == "stop"


def test_lines_in_any_pieces() -> None:
    body = b"".join(json.dumps(line).encode() + b"\n" for line in (said("a"), said("ß€"), done()))
    assert text_of(answered(stream(*(body[at : at + 3] for at in range(0, len(body), 3))))) == "aß€"


def test_generate_has_another_form() -> None:
    lines = ({"response": "a", "done": False}, {"response": "", "thinking": "t", "done": False})
    last = {"response": "b", "done": True, "done_reason": "length", "context": [1, 2]}
    request = Completion(prompt=RawPrompt(text="x"), sampling=SamplingOptions())
    found = answered(stream(*lines, last), request, "/api/generate")
    assert [(delta.text, delta.thinking) for delta in deltas(found)] == [("a", ""), ("", "t"), ("b", "")]
    assert (finish_of(found).reason, finish_of(found).context) == ("length", (1, 2))


def test_the_figures_at_the_end() -> None:
    last = done(
        prompt_eval_count=7,
        prompt_cached_count=3,
        prompt_eval_duration=10.5,
        eval_count=2,
        eval_duration=20,
        context_fit={
            "num_ctx": 64,
            "requested_ctx": 64,
            "dropped_messages": 1,
            "dropped_tokens": 2,
            "shifts": 3,
        },
        warnings=[{"code": "reduced_load", "message": "m"}, {"code": "NO CODE", "message": "m"}],
    )
    finish = finish_of(answered(stream(said("a"), last)))
    assert finish.usage == Usage(
        prompt_tokens=7, cached_tokens=3, prompt_ns=10, output_tokens=2, output_ns=20
    )
    assert finish.fit == Fit(num_ctx=64, dropped_messages=1, dropped_tokens=2, shifts=3)
    assert finish.notices == (Notice(code="reduced_load", message="m"),)


def test_what_another_corectl_says_before_the_first_token() -> None:
    header = "requested_ctx=0, num_ctx=512, prompt_tokens=30, dropped_messages=2, dropped_tokens=9"

    async def script(line: Line) -> None:
        line.head(200, f"X-Corectl-Context: {header}", "set-cookie: a=b")
        line.chunk(b'{"message":{"content":"a"},"done":true}\n')
        line.end()

    started = answered(script)[0]
    fit = Fit(num_ctx=512, dropped_messages=2, dropped_tokens=9)
    assert started == Started(prompt_tokens=30, fit=fit)


def test_calls() -> None:
    calls = [
        {"id": "call_1", "function": {"index": 7, "name": "f", "arguments": {"b": 1, "a": 2}}},
        {"function": {"name": "g"}},
    ]
    (delta,) = deltas(answered(stream(said(tool_calls=calls), done())))
    first, second = delta.tool_calls
    assert first == ToolCallDelta(0, "call_1", "f", '{"b": 1, "a": 2}', True)
    assert (second.index, second.name, second.arguments, second.done) == (1, "g", "{}", True)
    assert second.id.startswith("call_")


@pytest.mark.parametrize(
    "call",
    [
        {"function": {"name": "f", "arguments": "text"}},
        {"function": {"name": "f", "arguments": [1]}},
        {"function": {"arguments": {}}},
        {"id": "x"},
    ],
)
def test_what_is_no_call_is_left_as_text(call: dict[str, Any]) -> None:
    found = answered(stream(said("So: ", tool_calls=[call]), done()))
    (delta,) = deltas(found)
    assert delta.tool_calls == () and delta.text.startswith("So: {")
    assert [notice.code for notice in finish_of(found).notices] == ["tool_call_not_parsed"]


def test_probabilities() -> None:
    top = [{"token": "a", "logprob": -0.5, "bytes": [97]}, {"token": "ß", "logprob": -1}]
    line = {**said("a"), "logprobs": [{**top[0], "top_logprobs": top}]}
    (delta,) = deltas(answered(stream(line, done())))
    chosen = TokenLogprob("a", -0.5, b"a")
    assert delta.logprobs == (Logprob(chosen, (chosen, TokenLogprob("ß", -1.0, "ß".encode()))),)


def test_nothing_after_the_end_counts() -> None:
    assert text_of(answered(stream(said("a"), done(), said("b"), b"garbage\n"))) == "a"


@pytest.mark.parametrize(
    ("script", "status", "text"),
    [
        (reply({"error": "model 'm' not found"}, 404), 404, "model 'm' not found"),
        (reply({"error": "no"}, 400), 400, "no"),
        (reply({"error": "queue is full"}, 503), 503, "queue is full"),
        (reply(b"Bad Gateway", 502), 502, "Bad Gateway"),
        (stream(said("a"), {"error": "it broke"}), 502, "it broke"),
        (stream({"error": {"message": "it broke"}}), 502, "it broke"),
        (stream(said("a")), 502, "ended its reply before it was complete"),
        (stream(), 502, "ended its reply before it was complete"),
        (stream(said("a"), end=False), 502, "broke off"),
        (stream(b"not json\n"), 502, "sent what cannot be read"),
        (stream(b"[1]\n"), 502, "sent what cannot be read"),
        (stream({"message": {"content": 5}}), 502, "sent what cannot be read"),
        (stream({"message": "hi"}), 502, "sent what cannot be read"),
        (stream({**done(), "eval_count": "many"}), 502, "sent what cannot be read"),
        (stream(b"\xff\xfe\n"), 502, "sent what cannot be read"),
        (stream(b"[" * 100_000 + b"\n"), 502, "sent what cannot be read"),
    ],
)
def test_replies_that_go_wrong(script: Script, status: int, text: str) -> None:
    async def story() -> None:
        async with hosted(native().on("/api/chat", script)) as host:
            error = await failure(host)
            assert (error.status, "lab" in error.message) == (status, True)
            assert text in error.message

    play(story())


def test_a_line_that_does_not_end(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(lines, "MAX_LINE", 10_000)

    async def script(line: Line) -> None:
        line.head()
        while not line.left.is_set():
            line.chunk(b"x" * 1000)
            await asyncio.sleep(0)

    async def story() -> None:
        upstream = native().on("/api/chat", script)
        async with hosted(upstream) as host:
            assert "does not end" in (await failure(host)).message
            await until(lambda: upstream.open == 1)  # that of the question for the version

    play(story())


def test_huge_and_negative_numbers_are_held_in_bounds() -> None:
    usage = finish_of(answered(stream(done(eval_count=-5, prompt_eval_count=1e300)))).usage
    assert (usage.output_tokens, usage.prompt_tokens) == (0, 2**62)


def test_whoever_closes_the_stream_closes_the_connection() -> None:
    async def story() -> None:
        left = asyncio.Event()

        async def endless(line: Line) -> None:
            line.head()
            while not line.left.is_set():
                line.chunk(b'{"message":{"content":"a"},"done":false}\n')
                await asyncio.sleep(0.001)
            left.set()

        async with hosted(native().on("/api/chat", endless)) as host:
            stream = host.runner("m", LoadOptions(), None).complete(chat())
            await stream.take()
            stream.close()
            await left.wait()

    play(story())


def test_a_stream_may_be_closed_before_anything_was_sent() -> None:
    async def story() -> None:
        upstream = native()
        async with hosted(upstream) as host:
            host.runner("m", LoadOptions(), None).complete(chat()).close()
            await asyncio.sleep(0.01)
            assert upstream.asked == []

    play(story())


def test_a_finished_request_leaves_its_connection_for_the_next() -> None:
    async def story() -> None:
        upstream = native().on("/api/chat", stream(said("a"), done()))
        async with hosted(upstream) as host:
            for _ in range(3):
                await complete(host, chat())
                await asyncio.sleep(0.01)
            assert upstream.connections == 1

    play(story())

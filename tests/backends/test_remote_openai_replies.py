"""Streams of OpenAI's protocol, as vLLM, llama-server and others send them."""

from __future__ import annotations

import json
from typing import Any

import pytest

from corectl.messages import (
    Completion,
    Event,
    Finish,
    LoadOptions,
    Usage,
)
from tests.backends.remote_kit import (
    RECORDED,
    Script,
    Upstream,
    chat,
    complete,
    deltas,
    events,
    failure,
    finish_of,
    hosted,
    openai,
    raw,
    reply,
    stream,
    text_of,
)
from tests.core.stories import play

PATHS = ("/v1/chat/completions", "/v1/completions")


def said(content: str | None = None, *, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """A chunk of a chat."""
    if content is not None:
        delta["content"] = content
    return {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


END = said(finish="stop")
USAGE = {
    "choices": [],
    "usage": {"prompt_tokens": 7, "completion_tokens": 2, "prompt_tokens_details": {"cached_tokens": 3}},
}


def asked(
    request: Completion,
    owner: str = "somebody",
    options: LoadOptions = LoadOptions(),  # noqa: B008
) -> tuple[str, dict[str, Any], Finish]:
    """Path and body of what a completion becomes, and the end of its reply."""
    found: list[tuple[str, dict[str, Any], Finish]] = []

    async def story() -> None:
        upstream = openai(owner)
        for path in PATHS:
            upstream.on(path, events(END))
        async with hosted(upstream, "/v1") as host:
            last = finish_of(await complete(host, request, options))
            sent = upstream.asked[-1]
            found.append((sent.path, sent.json, last))

    play(story())
    path, body, finish = found[0]
    assert body.pop("model") == "m" and body.pop("stream") is True
    assert body.pop("stream_options") == {"include_usage": True}
    return path, body, finish


def answered(script: Script, request: Completion | None = None) -> list[Event]:
    found: list[Event] = []

    async def story() -> None:
        upstream = openai()
        for path in PATHS:
            upstream.on(path, script)
        async with hosted(upstream, "/v1") as host:
            found.extend(await complete(host, request or chat()))

    play(story())
    return found


def test_a_reply_in_pieces() -> None:
    found = answered(events(said("", role="assistant"), said("Hello"), said(" there"), END, USAGE))
    assert [delta.text for delta in deltas(found)] == ["Hello", " there"]
    finish = finish_of(found)
    usage = finish.usage
    assert finish.reason == "stop"
    assert (usage.prompt_tokens, usage.cached_tokens, usage.output_tokens) == (7, 3, 2)
    assert usage.prompt_ns > 0 and usage.output_ns > 0


@pytest.mark.parametrize("key", ["reasoning_content", "reasoning"])
def test_thoughts(key: str) -> None:
    found = answered(events(said(**{key: "Hm."}), said("So."), END))
    assert [(delta.thinking, delta.text) for delta in deltas(found)] == [("Hm.", ""), ("", "So.")]


@pytest.mark.parametrize(
    ("reason", "ours", "notices"),
    [
        ("stop", "stop", []),
        ("length", "length", []),
        ("tool_calls", "stop", []),
        ("eos_token", "stop", []),
        ("content_filter", "stop", ["other_end"]),
    ],
)
def test_how_it_ends(reason: str, ours: str, notices: list[str]) -> None:
    finish = finish_of(answered(events(said("a", finish=reason))))
    assert (finish.reason, [notice.code for notice in finish.notices]) == (ours, notices)


def test_a_stream_may_end_without_saying_so_once_there_was_a_reason() -> None:
    body = b"".join(b"data: " + json.dumps(chunk).encode() + b"\n\n" for chunk in (said("a"), END, USAGE))
    finish = finish_of(answered(stream(body)))
    assert finish.usage.prompt_tokens == 7


def test_comments_other_fields_and_other_line_ends() -> None:
    body = (
        b": keep-alive\r\n\r\nevent: message\r\nid: 1\r\ndata:"
        + json.dumps(said("a")).encode()
        + b"\r\n\r\ndata: [DONE]\r\n\r\n"
    )
    assert text_of(answered(stream(body))) == "a"


def test_a_reply_of_a_server_that_does_not_stream_is_not_lost() -> None:
    call = {"id": "a", "type": "function", "function": {"name": "f", "arguments": "{}"}}
    message = {"role": "assistant", "content": "Hello", "tool_calls": [call]}
    whole = {"choices": [{"message": message, "finish_reason": "tool_calls"}], "usage": USAGE["usage"]}
    found = answered(stream(json.dumps(whole).encode()))
    assert text_of(found) == "Hello" and finish_of(found).usage.output_tokens == 2
    assert calls_of(found) == [(0, "f", "{}", True)]


def test_a_refusal_is_text() -> None:
    assert text_of(answered(events(said(refusal="I will not."), END))) == "I will not."


def fragment(index: int | None, id: str | None, name: str | None, arguments: object) -> dict[str, Any]:
    function = {"name": name, "arguments": arguments}
    return {"index": index, "id": id, "type": "function", "function": function}


def calls_of(found: list[Event]) -> list[tuple[int, str, str, bool]]:
    """The calls that a client puts together: index, name, arguments, and whether it is done."""
    calls: dict[int, list[Any]] = {}
    for delta in deltas(found):
        for piece in delta.tool_calls:
            call = calls.setdefault(piece.index, ["", "", False])
            call[0] += piece.name
            call[1] += piece.arguments
            call[2] = piece.done
    return [(index, name, arguments, done) for index, (name, arguments, done) in calls.items()]


def called(*fragments: dict[str, Any]) -> list[Event]:
    return answered(events(*(said(tool_calls=[item]) for item in fragments), said(finish="tool_calls")))


@pytest.mark.parametrize(
    "fragments",
    [
        # As OpenAI and vLLM send them: a beginning, then pieces of the arguments.
        (
            fragment(0, "a", "f", ""),
            fragment(0, None, None, '{"x"'),
            fragment(0, None, None, ": 1}"),
            fragment(1, "b", "g", ""),
            fragment(1, None, None, "{}"),
        ),
        # Each call in one piece, all with the same number, or with none.
        (fragment(0, "a", "f", '{"x": 1}'), fragment(0, "b", "g", "{}")),
        (fragment(None, "a", "f", '{"x": 1}'), fragment(None, "b", "g", "{}")),
        (fragment(None, None, "f", '{"x": 1}'), fragment(None, None, "g", "{}")),
        # The name again with each piece; and arguments as an object, or none at all.
        (fragment(0, "a", "f", '{"x"'), fragment(0, "a", "f", ": 1}"), fragment(1, "b", "g", None)),
        (fragment(0, "a", "f", {"x": 1}), fragment(1, "b", "g", {})),
    ],
)
def test_calls_in_whatever_fragments(fragments: tuple[dict[str, Any], ...]) -> None:
    found = called(*fragments)
    first, second = calls_of(found)
    assert (first[:2], json.loads(first[2]), first[3]) == ((0, "f"), {"x": 1}, True)
    assert (second[:2], json.loads(second[2]), second[3]) == ((1, "g"), {}, True)
    assert finish_of(found).notices == () and text_of(found) == ""


def test_a_call_has_its_id_in_its_first_piece() -> None:
    pieces = [piece for delta in deltas(called(*_CALL)) for piece in delta.tool_calls]
    assert [(piece.id, piece.name) for piece in pieces] == [("a", "f"), ("", ""), ("", "")]


_CALL = (fragment(0, "a", "f", '{"x"'), fragment(0, None, None, ": 1}"))


@pytest.mark.parametrize(
    ("fragments", "text"),
    [
        ((fragment(0, "a", "f", '{"x": '),), 'f({"x": )'),
        ((fragment(0, "a", "f", "[1]"),), "f([1])"),
        ((fragment(0, "a", None, "{}"),), "({})"),
    ],
)
def test_what_is_no_call_in_the_end_is_left_as_text(fragments: tuple[dict[str, Any], ...], text: str) -> None:
    found = called(*fragments)
    assert text_of(found) == text
    assert [notice.code for notice in finish_of(found).notices] == ["tool_call_not_parsed"]
    assert not any(done for *_, done in calls_of(found))


def test_probabilities_of_completions_in_the_old_form() -> None:
    logprobs = {
        "tokens": ["a", "b"],
        "token_logprobs": [None, -0.5],
        "top_logprobs": [None, {"c": -2.0, "b": -0.5}],
    }
    chunk = {"choices": [{"text": "ab", "logprobs": logprobs, "finish_reason": "stop"}]}
    (delta,) = deltas(answered(events(chunk), raw()))
    assert [(item.chosen.token, item.chosen.logprob) for item in delta.logprobs] == [("b", -0.5)]
    assert [top.token for top in delta.logprobs[0].top] == ["b", "c"]


@pytest.mark.parametrize(
    ("script", "status", "text"),
    [
        (
            reply({"error": {"message": "The model `m` does not exist.", "code": 404}}, 404),
            404,
            "does not exist",
        ),
        (reply({"error": {"message": "too long"}}, 400), 400, "too long"),
        (reply({"detail": "slow down"}, 429), 429, "slow down"),
        (events(said("a"), {"error": {"message": "it broke"}}), 502, "it broke"),
        (events({"object": "error", "message": "it broke", "code": 400}), 502, "it broke"),
        (stream(b'error: {"message": "x", "error": "it broke"}\n\n'), 502, "it broke"),
        (reply({"error": "Unexpected endpoint"}), 502, "Unexpected endpoint"),
        (stream(b"data: " + json.dumps(said("a")).encode() + b"\n\n"), 502, "before it was complete"),
        (stream(), 502, "before it was complete"),
        (events(said("a"), end=False), 0, ""),
        (stream(b"data: " + json.dumps(said("a")).encode() + b"\n\n", end=False), 502, "broke off"),
        (stream(b"data: nonsense\n\n"), 502, "sent what cannot be read"),
        (events({"choices": [{"delta": {"content": 5}}]}), 502, "sent what cannot be read"),
        (events({"choices": {}}), 502, "sent what cannot be read"),
        (
            events({"choices": [{"delta": {"tool_calls": [{"function": 1}]}}]}),
            502,
            "sent what cannot be read",
        ),
    ],
)
def test_replies_that_go_wrong(script: Script, status: int, text: str) -> None:
    async def story() -> None:
        async with hosted(openai().on("/v1/chat/completions", script), "/v1") as host:
            if not status:
                assert text_of(await complete(host, chat())) == "a", "what breaks after the end broke nothing"
                return
            error = await failure(host)
            assert (error.status, "lab" in error.message, text in error.message) == (status, True, True)

    play(story())


def recorded(name: str, request: Completion) -> list[Event]:
    """The events of a stream that a real server has sent, cut into small pieces."""
    data = (RECORDED / name).read_bytes()
    return answered(stream(*(data[at : at + 50] for at in range(0, len(data), 50))), request)


def test_a_chat_of_llama_server() -> None:
    found = recorded("llama-server-chat.sse", chat(logprobs=True, top_logprobs=2))
    assert text_of(found) == "I'm glad you"
    assert [item.logprobs[0].chosen.token for item in deltas(found)] == ["I", "'m", " glad", " you"]
    assert all(len(item.logprobs[0].top) == 2 for item in deltas(found))
    finish = finish_of(found)
    assert finish.reason == "length"
    assert finish.usage == Usage(
        prompt_tokens=32, cached_tokens=31, prompt_ns=30_131_000, output_tokens=4, output_ns=99_939_000
    )


def test_a_completion_of_llama_server() -> None:
    found = recorded("llama-server-completion.sse", raw(logprobs=True, top_logprobs=2))
    assert text_of(found) == " Paris.\n"
    assert [item.logprobs[0].chosen.token for item in deltas(found)] == [" Paris", ".", "\n"]
    assert (finish_of(found).usage.prompt_tokens, finish_of(found).reason) == (5, "length")


def test_a_call_of_llama_cpp_python() -> None:
    found = recorded("llama-cpp-python-call.sse", chat())
    assert calls_of(found) == [(0, "get_weather", '{ "city": "Paris" }', True)]
    assert text_of(found) == "" and finish_of(found).notices == ()
    assert finish_of(found).usage.prompt_tokens == 0, "it does not say"


def test_the_models_of_llama_server() -> None:
    async def story() -> None:
        models = (RECORDED / "llama-server-models.json").read_bytes()
        async with hosted(Upstream().on("/v1/models", reply(models))) as host:
            (entry,) = await host.models()
            assert entry.id == "/models/SmolLM2-135M-Instruct.Q4_1.gguf"
            assert (entry.context_length, entry.embedding_length) == (8192, 576)
            assert entry.capabilities == ("completion", "tools")
            assert "llama-server" in host.protocol

    play(story())

"""How events become the chunks of a streamed chat, and errors their objects."""

from __future__ import annotations

import json
from typing import Any

import pytest

from corectl.errors import (
    BadRequest,
    Busy,
    CorectlError,
    Forbidden,
    NotFound,
    NotSupported,
    RemoteError,
    RunnerDied,
    TooLarge,
    TooLong,
    Unauthorized,
)
from corectl.messages import (
    Completion,
    Delta,
    Finish,
    Fit,
    Logprob,
    Notice,
    RawPrompt,
    SamplingOptions,
    TokenLogprob,
    ToolCallDelta,
    Usage,
)
from corectl.server.context import Clock
from corectl.server.inference import CLOUD_DISABLED
from corectl_openai.choices import SEEDS, variants
from corectl_openai.errors import OURS_IN_RESPONSES, error_body, error_event
from corectl_openai.response import ResponseHead
from corectl_openai.response_stream import ResponseStream
from corectl_openai.schema import ResponsesRequest
from corectl_openai.stream import ChatStream
from corectl_openai.text import TextReply, legacy_logprobs

LOGPROB = Logprob(TokenLogprob("a", -0.5, b"a"), ())


def finish(reason: str = "stop", *notices: Notice, **fit: int) -> Finish:
    usage = Usage(prompt_tokens=3, cached_tokens=1, output_tokens=2)
    return Finish(reason=reason, usage=usage, fit=Fit(num_ctx=64, **fit), notices=notices)


def stream(choices: int = 1, *, usage: bool = False) -> ChatStream:
    return ChatStream("m", 1, Clock(), choices=choices, usage=usage)


def chunks(data: bytes) -> list[Any]:
    found = [event.removeprefix("data: ") for event in data.decode().split("\n\n")[:-1]]
    return [json.loads(text) if text != "[DONE]" else text for text in found]


def deltas(reply: ChatStream, *events: Delta | Finish) -> list[Any]:
    data = b"".join(reply.choices[0].encode(event) for event in events)
    return [chunk["choices"][0]["delta"] if "choices" in chunk else chunk for chunk in chunks(data)[:-1]]


@pytest.mark.parametrize(
    ("seed", "seeds"), [(7, [7, 8, 9]), (-1, [-1, -1, -1]), (SEEDS - 1, [SEEDS - 1, 0, 1])]
)
def test_choices_draw_with_seeds_of_their_own(seed: int, seeds: list[int]) -> None:
    work = Completion(prompt=RawPrompt(text="a"), sampling=SamplingOptions(seed=seed))
    assert [variant.sampling.seed for variant in variants(work, 3)] == seeds


def test_the_role_comes_once() -> None:
    assert deltas(stream(), Delta('"a\n'), Delta("b"), finish()) == [
        {"role": "assistant", "content": '"a\n'},
        {"content": "b"},
        {},
    ]
    assert deltas(stream(), finish()) == [{"role": "assistant", "content": ""}, {}], "also to an empty reply"


def test_thoughts_text_and_calls_come_in_chunks_of_their_own() -> None:
    call = ToolCallDelta(0, "call_1", "f", '{"a": 1}', True)
    reply = stream()
    first, second, third = chunks(reply.choices[0].encode(Delta("text", (LOGPROB,), "thought", (call,))))
    assert first["choices"][0]["delta"] == {"role": "assistant", "content": "", "reasoning": "thought"}
    assert first["choices"][0]["logprobs"] == {
        "content": [{"token": "a", "logprob": -0.5, "bytes": [97], "top_logprobs": []}]
    }
    assert second["choices"][0]["delta"] == {"content": "text"} and "logprobs" not in second["choices"][0]
    assert third["choices"][0]["delta"]["tool_calls"] == [
        {"id": "call_1", "index": 0, "type": "function", "function": {"name": "f", "arguments": '{"a": 1}'}}
    ]
    end, done = chunks(reply.choices[0].encode(finish()))
    assert end["choices"][0]["finish_reason"] == "tool_calls" and done == "[DONE]"


def pieces(*calls: ToolCallDelta) -> Delta:
    return Delta("", (), "", calls)


def test_calls_come_as_they_are_written() -> None:
    first, second = ToolCallDelta(0, "call_1", "f"), ToolCallDelta(1, "call_2", "g", "{}")
    rest = ToolCallDelta(0, arguments="1}\n"), ToolCallDelta(0, done=True)
    middle = ToolCallDelta(0, arguments='{"a":')
    *shown, end = deltas(stream(), pieces(first), pieces(middle), pieces(*rest, second), finish())
    assert end == {}
    assert [delta.pop("content") for delta in shown] == ["", "", ""] and shown[0].pop("role") == "assistant"
    function = {"name": "f", "arguments": ""}
    assert [delta["tool_calls"] for delta in shown] == [
        [{"id": "call_1", "index": 0, "type": "function", "function": function}],
        [{"index": 0, "function": {"arguments": '{"a":'}}],
        [
            {"index": 0, "function": {"arguments": "1} "}},
            {"id": "call_2", "index": 1, "type": "function", "function": {"name": "g", "arguments": "{}"}},
        ],
    ]
    assert stream().choices[0].encode(pieces(ToolCallDelta(0, done=True))) == b"", "an end shows nothing"


@pytest.mark.parametrize(
    ("done", "reason", "shown"),
    [
        (True, "stop", "tool_calls"),
        (True, "length", "length"),
        (False, "length", "length"),
        (False, "stop", "stop"),
    ],
)
def test_only_calls_that_are_complete_are_a_reason_to_end(done: bool, reason: str, shown: str) -> None:
    reply = stream().choices[0]
    reply.encode(pieces(ToolCallDelta(0, "call_1", "f", '{"a":', done)))
    assert chunks(reply.encode(finish(reason)))[0]["choices"][0]["finish_reason"] == shown


def test_the_last_choice_to_end_ends_the_reply() -> None:
    reply = stream(2, usage=True)
    first = chunks(reply.choices[1].encode(finish()))
    assert [chunk["choices"][0]["index"] for chunk in first] == [1, 1]
    *_, usage, done = chunks(reply.choices[0].encode(finish()))
    assert usage["choices"] == [] and done == "[DONE]"
    assert usage["usage"] == {
        "prompt_tokens": 3,
        "completion_tokens": 4,
        "total_tokens": 7,
        "prompt_tokens_details": {"cached_tokens": 1},
    }


def test_the_end_says_what_went_another_way() -> None:
    notice = Notice(code="tool_call_not_parsed", message="m")
    (_, end, _) = chunks(stream().choices[0].encode(finish("stop", notice, shifts=2, dropped_tokens=9)))
    assert end["warnings"] == [{"code": "tool_call_not_parsed", "message": "m"}]
    assert end["context_fit"]["shifts"] == 2 and end["context_fit"]["dropped_tokens"] == 9


def test_an_error_in_mid_stream_is_an_event_that_clients_raise() -> None:
    (event,) = chunks(error_event(RunnerDied("gone")))
    assert event == {"error": {"message": "gone", "type": "api_error", "param": None, "code": "runner_died"}}


@pytest.mark.parametrize(
    ("error", "kind", "param", "code"),
    [
        (BadRequest("something"), "invalid_request_error", None, None),
        (BadRequest("model is required"), "invalid_request_error", "model", "missing_required_parameter"),
        (BadRequest("messages[3].images[0]: x"), "invalid_request_error", "messages[3].images[0]", "invalid_value"),
        (BadRequest("context: 5 is not a token"), "invalid_request_error", "prompt", "invalid_value"),
        (BadRequest("Expected `int` >= 1 - at `$.n`"), "invalid_request_error", "n", "invalid_value"),
        (BadRequest("Expected `int`, got `str` - at `$.n`"), "invalid_request_error", "n", "invalid_type"),
        (TooLong("too long"), "invalid_request_error", None, "context_length_exceeded"),
        (TooLarge("large"), "invalid_request_error", None, "too_large"),
        (NotFound("no"), "not_found_error", "model", "model_not_found"),
        (Unauthorized("who"), "authentication_error", None, "unauthorized"),
        (Forbidden("no"), "permission_error", None, "forbidden"),
        (Forbidden(CLOUD_DISABLED), "permission_error", "model", "forbidden"),
        (RemoteError("slow down", 429), "rate_limit_error", None, "remote_error"),
        (Busy("later"), "api_error", None, "busy"),
        (NotSupported("cannot"), "api_error", None, "not_supported"),
        (CorectlError("bug"), "api_error", None, "internal"),
    ],
)  # fmt: skip
def test_errors(error: CorectlError, kind: str, param: str | None, code: str | None) -> None:
    body = error_body(error)
    assert (body.type, body.param, body.code) == (kind, param, code)


@pytest.mark.parametrize(
    ("error", "code"),
    [
        (RunnerDied("gone"), "server_error"),
        (RemoteError("away"), "server_error"),
        (RemoteError("slow down", 429), "rate_limit_exceeded"),
        (Busy("full"), "rate_limit_exceeded"),
        (TooLong("too long"), "invalid_prompt"),
        (BadRequest("no image"), "invalid_prompt"),
    ],
)
def test_a_response_that_fails_has_a_code_of_its_own_kind(error: CorectlError, code: str) -> None:
    failed = ResponseStream(ResponseHead(ResponsesRequest(model="m"), Clock(), ()), lambda _: None).failed(
        error
    )
    last = json.loads(failed.decode().strip().rpartition("data: ")[2])
    assert (last["type"], last["response"]["status"]) == ("response.failed", "failed")
    assert last["response"]["error"] == {"code": code, "message": error.message}


def test_errors_speak_of_what_the_client_has_sent() -> None:
    wrong = BadRequest("format.type: must be another")
    assert error_body(wrong).message == "response_format.json_schema.schema.type: must be another"
    body = error_body(wrong, OURS_IN_RESPONSES)
    assert (body.param, body.message) == (
        "text.format.schema.type",
        "text.format.schema.type: must be another",
    )


def test_offsets_of_a_long_text_are_counted_in_one_go() -> None:
    found = [Logprob(TokenLogprob("ab", -0.5, b"ab"), ())] * 100_000
    assert legacy_logprobs(found).text_offset == list(range(0, 200_000, 2))
    assert legacy_logprobs([]).text_offset == []


def test_offsets_of_a_stream_go_on_from_event_to_event() -> None:
    first, second = TextReply("m", 1, Clock(), prompts=1, n=2).encoders([""], usage=False)
    piece = Delta("aa", (LOGPROB, LOGPROB))
    data = first(piece) + second(piece) + first(piece)
    found = [chunk["choices"][0]["logprobs"]["text_offset"] for chunk in chunks(data)]
    assert found == [[0, 1], [0, 1], [2, 3]]

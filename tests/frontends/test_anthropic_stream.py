"""How the events of a completion become those of a stream, or one message."""

from __future__ import annotations

import json
from collections.abc import Callable
from contextvars import copy_context
from typing import Any, TypeVar

from corectl import trace
from corectl.errors import Busy
from corectl.messages import Delta, Event, Finish, Fit, Notice, ToolCallDelta, Usage
from corectl.server.context import Clock
from corectl.trace import Trace
from corectl_anthropic import replies
from corectl_anthropic.replies import Reply, blocks_of, end_of, usage_of
from corectl_anthropic.stream import MessageStream

T = TypeVar("T")

NOTICE = Notice(code="tool_call_not_parsed", message="m")
DONE = ToolCallDelta(0, "call_1", "f", '{"a": 1}', True)
PIECES = (
    ToolCallDelta(0, "call_1", "f"),
    ToolCallDelta(0, arguments='{"a"'),
    ToolCallDelta(0, arguments=": 1}"),
    ToolCallDelta(0, done=True),
)


def finish(
    reason: str = "stop", *, stop: str = "", num_ctx: int = 0, notices: tuple[Notice, ...] = ()
) -> Finish:
    usage = Usage(prompt_tokens=10, cached_tokens=7, output_tokens=3)
    return Finish(reason=reason, usage=usage, fit=Fit(num_ctx=num_ctx), notices=notices, stop=stop)


def opening() -> Reply:
    return Reply(id="msg_1", model="m", usage=replies.Usage(input_tokens=10))


def make(
    *, eager: tuple[str, ...] = (), stops: tuple[str, ...] = (), notices: tuple[Notice, ...] = ()
) -> MessageStream:
    return MessageStream(opening(), Clock(), stops=stops, eager=eager, notices=notices)


def parse(data: bytes) -> list[dict[str, Any]]:
    """The data of all events; each says twice what it is."""
    found = []
    for event in data.decode().split("\n\n")[:-1]:
        name, value = event.split("\n")
        found.append(json.loads(value.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    return found


def shown(stream: MessageStream, *events: Event) -> list[dict[str, Any]]:
    return parse(b"".join(stream.lines(event) for event in events))


def brief(events: list[dict[str, Any]]) -> list[Any]:
    """Blocks as (index, type of the block), pieces as (index, text), ends as their index, others by their names."""
    made: list[Any] = []
    for event in events:
        match event["type"]:
            case "content_block_start":
                made.append((event["index"], event["content_block"]["type"]))
            case "content_block_delta":
                made.append((event["index"], *list(event["delta"].values())[1:]))
            case "content_block_stop":
                made.append(event["index"])
            case name:
                made.append(name)
    return made


def test_text_is_one_block_and_the_message_is_told_around_it() -> None:
    events = shown(make(), Delta("He"), Delta(""), Delta('"l\n'), Delta("lo"), finish())
    assert brief(events) == [
        "message_start",
        (0, "text"),
        (0, "He"),
        (0, '"l\n'),
        (0, "lo"),
        0,
        "message_delta",
        "message_stop",
    ]
    start = events[0]["message"]
    assert (start["id"], start["content"], start["stop_reason"]) == ("msg_1", [], None)
    assert start["usage"]["input_tokens"] == 10
    assert events[-2]["delta"] == {"stop_reason": "end_turn", "stop_sequence": None}
    assert events[-2]["usage"] == {
        "input_tokens": 3,
        "cache_creation_input_tokens": 0,
        "cache_read_input_tokens": 7,
        "output_tokens": 3,
    }


def test_an_output_of_nothing_has_no_block() -> None:
    assert brief(shown(make(), finish())) == ["message_start", "message_delta", "message_stop"]


def test_a_thought_is_signed_before_its_block_ends() -> None:
    events = shown(make(), Delta("", (), "hm"), Delta("", (), "m"), Delta("So"), finish())
    signature = blocks_of(Delta("", (), "hmm"))[0]
    assert isinstance(signature, replies.ThinkingBlock)
    assert brief(events)[1:-2] == [
        (0, "thinking"),
        (0, "hm"),
        (0, "m"),
        (0, signature.signature),
        0,
        (1, "text"),
        (1, "So"),
        1,
    ]


def test_thought_text_and_call_of_one_step_are_three_blocks() -> None:
    events = shown(make(), Delta("b", (), "a", (DONE,)), finish())
    kinds = [(item["index"], item["content_block"]["type"]) for item in events if "content_block" in item]
    assert kinds == [(0, "thinking"), (1, "text"), (2, "tool_use")]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_a_call_is_shown_when_it_is_complete() -> None:
    stream = make()
    assert brief(shown(stream, *(Delta("", (), "", (piece,)) for piece in PIECES[:-1]))) == ["message_start"]
    assert brief(shown(stream, Delta("", (), "", PIECES[-1:]))) == [(0, "tool_use"), (0, '{"a": 1}'), 0]


def test_two_calls_are_two_blocks() -> None:
    second = ToolCallDelta(1, "call_2", "g", "{}", True)
    events = shown(make(), Delta("", (), "", (DONE, second)), finish())
    started = [item["content_block"] for item in events if "content_block" in item]
    assert [(block["id"], block["name"], block["input"]) for block in started] == [
        ("call_1", "f", {}),
        ("call_2", "g", {}),
    ]


def test_a_call_that_turns_out_to_be_none_is_text_and_no_call() -> None:
    events = shown(make(), Delta("", (), "", PIECES[:2]), Delta("<call>{"), finish("length"))
    assert brief(events)[1:-2] == [(0, "text"), (0, "<call>{"), 0]
    assert events[-2]["delta"]["stop_reason"] == "max_tokens"


def test_an_eager_call_comes_in_pieces() -> None:
    stream = make(eager=("f",))
    steps = [brief(shown(stream, Delta("", (), "", (piece,)))) for piece in PIECES]
    assert steps == [["message_start", (0, "tool_use")], [(0, '{"a"')], [(0, ": 1}")], [0]]
    assert shown(stream, finish())[0]["delta"]["stop_reason"] == "tool_use"


def test_an_eager_call_that_turns_out_to_be_none_ends_where_the_text_begins() -> None:
    events = shown(make(eager=("f",)), Delta("", (), "", PIECES[:2]), Delta("<call>{"), finish())
    assert brief(events)[1:-2] == [(0, "tool_use"), (0, '{"a"'), 0, (1, "text"), (1, "<call>{"), 1]
    assert events[-2]["delta"]["stop_reason"] == "end_turn"


def test_eager_calls_whose_ends_come_together_are_two_calls() -> None:
    """The second is written when it is complete: the first may still go on."""
    started = (
        ToolCallDelta(0, "call_1", "f"),
        ToolCallDelta(1, "call_2", "g"),
        ToolCallDelta(1, arguments="{}"),
    )
    ended = (ToolCallDelta(0, arguments="{}", done=True), ToolCallDelta(1, done=True))
    events = shown(make(eager=("f", "g")), Delta("", (), "", started), Delta("", (), "", ended), finish())
    first, second = (event["content_block"] for event in events if event["type"] == "content_block_start")
    assert [(block["id"], block["name"]) for block in (first, second)] == [("call_1", "f"), ("call_2", "g")]
    assert brief(events)[1:-2] == [(0, "tool_use"), (0, "{}"), 0, (1, "tool_use"), (1, "{}"), 1]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_an_eager_call_whose_end_comes_after_text_is_one_call() -> None:
    pieces = (ToolCallDelta(0, "call_1", "f"), ToolCallDelta(0, arguments="{}"))
    events = shown(
        make(eager=("f",)),
        Delta("", (), "", pieces),
        Delta("so"),
        Delta("", (), "", (ToolCallDelta(0, done=True),)),
        finish(),
    )
    assert brief(events)[1:-2] == [(0, "tool_use"), (0, "{}"), 0, (1, "text"), (1, "so"), 1]
    assert events[-2]["delta"]["stop_reason"] == "tool_use"


def test_an_error_has_the_id_of_the_request_that_the_stream_is_of() -> None:
    def within(id: str, work: Callable[[], T]) -> T:
        def of_that() -> T:
            trace.begin(Trace(id=id, path="/"))
            return work()

        return copy_context().run(of_that)

    stream = within("mine", make)
    (event,) = parse(within("of-another", lambda: stream.failed(Busy("too much"))))
    assert event["request_id"] == "req_mine"


def test_an_error_in_mid_stream_is_an_event() -> None:
    stream = make()
    stream.lines(Delta("a"))
    (event,) = parse(stream.failed(Busy("too much")))
    assert event["type"] == "error"
    assert event["error"]["type"] == "overloaded_error" and event["error"]["message"] == "too much"


def test_what_is_to_be_said_comes_last() -> None:
    stream = make(notices=(Notice(code="thinking_not_supported", message="t"),))
    last = shown(stream, finish(num_ctx=64, notices=(NOTICE,)))[-2]
    assert [notice["code"] for notice in last["warnings"]] == [
        "thinking_not_supported",
        "tool_call_not_parsed",
    ]
    assert last["context_fit"]["num_ctx"] == 64
    assert not {"warnings", "context_fit"} & shown(make(), finish())[-2].keys()


def test_why_an_output_has_ended() -> None:
    def end(done: Finish, called: bool = False) -> tuple[str, str | None]:
        found = end_of(done, called, ["END", ""])
        return found.stop_reason, found.stop_sequence

    assert end(finish()) == ("end_turn", None)
    assert end(finish("length")) == ("max_tokens", None)
    assert end(finish(stop="END")) == ("stop_sequence", "END")
    assert end(finish(stop="<|im_end|>")) == ("end_turn", None)
    assert end(finish("length"), called=True) == ("tool_use", None)


def test_tokens_in_the_cache_are_no_input_tokens() -> None:
    usage = usage_of(finish())
    assert (usage.input_tokens, usage.cache_read_input_tokens) == (3, 7)


def test_one_message_has_the_blocks_of_the_stream() -> None:
    blocks = blocks_of(Delta("text", (), "thought", PIECES))
    assert [type(block).__name__ for block in blocks] == ["ThinkingBlock", "TextBlock", "ToolUseBlock"]
    assert blocks_of(Delta("")) == []
    assert [type(block).__name__ for block in blocks_of(Delta("<call>{", (), "", PIECES[:2]))] == [
        "TextBlock"
    ]

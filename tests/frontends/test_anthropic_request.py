"""How a request of the Messages API becomes a conversation, tools and a choice."""

from __future__ import annotations

import base64
from typing import Any

import msgspec
import pytest

from corectl.errors import BadRequest, TooLarge, Unauthorized
from corectl.messages import Message, ToolChoice
from corectl.server.body import decode
from corectl_anthropic.asked import check, read_tool_choice, read_tools
from corectl_anthropic.conversation import conversation
from corectl_anthropic.errors import error_of
from corectl_anthropic.schema import CountRequest, MessagesRequest

PIXEL = base64.b64encode(b"pixel").decode()
OTHER = base64.b64encode(b"other").decode()
CALL = {"type": "tool_use", "id": "t1", "name": "f", "input": {"a": 1}}
RESULT = {"type": "tool_result", "tool_use_id": "t1", "content": "fine"}
TOOL = {"name": "f", "description": "F", "input_schema": {"type": "object"}}


def request(**body: Any) -> MessagesRequest:
    return decode(msgspec.json.encode(body), MessagesRequest)


def turns(*messages: tuple[str, Any], **body: Any) -> list[Message]:
    said = [{"role": role, "content": content} for role, content in messages]
    return conversation(request(messages=said, **body)).messages


def text(value: str, **more: Any) -> dict[str, Any]:
    return {"type": "text", "text": value, **more}


def image(data: str) -> dict[str, Any]:
    return {"type": "image", "source": {"type": "base64", "media_type": "image/png", "data": data}}


def document(source: dict[str, Any], **more: Any) -> dict[str, Any]:
    return {"type": "document", "source": source, **more}


def test_texts_and_blocks_of_text_are_the_same() -> None:
    assert turns(("user", "Hi")) == turns(("user", [text("Hi")])) == [Message(role="user", content="Hi")]


def test_system_blocks_stand_apart_and_may_be_cached() -> None:
    cached = text("B", cache_control={"type": "ephemeral", "ttl": "1h"})
    told, _ = turns(("user", "Hi"), system=[text("A"), cached])
    assert told == Message(role="system", content="A\n\nB")
    assert turns(("user", "Hi"), system="") == turns(("user", "Hi"), system=[]) == turns(("user", "Hi"))


def test_a_system_turn_in_the_middle_stays_there() -> None:
    roles = [turn.role for turn in turns(("user", "a"), ("system", [text("b")]), ("assistant", "c"))]
    assert roles == ["user", "system", "assistant"]


def test_neighbours_of_one_role_are_one_turn() -> None:
    assert [turn.content for turn in turns(("user", "a"), ("user", [text("b"), text("c")]))] == [
        "a\n\nb\n\nc"
    ]
    assert [turn.content for turn in turns(("assistant", "a"), ("assistant", "b"))] == ["a\n\nb"]


def test_what_the_model_said_in_blocks_is_one_text() -> None:
    (turn,) = turns(("assistant", [text("Hel"), text("lo")]))
    assert turn.content == "Hello"


def test_a_thought_goes_with_what_it_led_to() -> None:
    blocks = [
        {"type": "thinking", "thinking": "hm", "signature": "any"},
        {"type": "redacted_thinking", "data": "secret"},
        text("So"),
        CALL,
    ]
    (turn,) = turns(("assistant", blocks))
    assert (turn.thinking, turn.content) == ("hm", "So")
    assert turn.tool_calls[0]["function"] == {"name": "f", "arguments": {"a": 1}}


def test_a_thought_that_nobody_can_read_is_a_turn_all_the_same() -> None:
    (turn,) = turns(("user", [{"type": "redacted_thinking", "data": "secret"}]))
    assert turn == Message(role="user")


def test_results_are_turns_of_their_own_in_front_of_the_text() -> None:
    _, first, second, asked = turns(
        ("assistant", [CALL, {**CALL, "id": "t2", "name": "g"}]),
        ("user", [RESULT, {"type": "tool_result", "tool_use_id": "t2", "is_error": True}, text("And?")]),
    )
    assert (first.role, first.content, first.tool_name, first.tool_call_id) == ("tool", "fine", "f", "t1")
    assert (second.role, second.content, second.tool_name) == ("tool", "Error", "g")
    assert asked == Message(role="user", content="And?")


def test_a_result_may_have_an_image() -> None:
    content = [text("see"), image(PIXEL)]
    (result,) = turns(("user", [{**RESULT, "content": content}]))
    assert (result.content, result.images) == ("see\n\n[img]", (PIXEL,))


@pytest.mark.parametrize(
    ("content", "shown"),
    [
        ("no such file", "Error: no such file"),
        ([text("a"), text("b")], "Error: a\n\nb"),
        ([], "Error"),
        (None, "Error"),
        ([text("see"), image(PIXEL)], "Error: see\n\n[img]"),
    ],
)
def test_the_model_sees_that_a_tool_has_failed(content: Any, shown: str) -> None:
    (result,) = turns(("user", [{**RESULT, "content": content, "is_error": True}]))
    assert result.content == shown
    (result,) = turns(("user", [{**RESULT, "content": "fine", "is_error": False}]))
    assert result.content == "fine"


@pytest.mark.parametrize(
    ("block", "shown"),
    [
        (document({"type": "text", "media_type": "text/plain", "data": "The sky."}), "The sky."),
        (document({"type": "content", "content": "The sky."}), "The sky."),
        (
            document({"type": "content", "content": [text("A"), text("B")]}, title="T", context="C"),
            "T\n\nC\n\nA\n\nB",
        ),
        (document({"type": "text", "data": "A"}, title=None, citations={"enabled": True}), "A"),
        (
            {"type": "search_result", "source": "http://x", "title": "T", "content": [text("A"), text("B")]},
            "T\nhttp://x\n\nA\n\nB",
        ),
    ],
)
def test_documents_and_findings_are_read_as_text(block: Any, shown: str) -> None:
    (asked,) = turns(("user", [text("Read:"), block]))
    assert asked == Message(role="user", content=f"Read:\n\n{shown}")
    (result,) = turns(("user", [{**RESULT, "content": [block]}]))
    assert (result.role, result.content) == ("tool", shown)


def test_documents_may_have_images() -> None:
    named = {"type": "image", "source": {"type": "url", "url": "http://x/a.png"}}
    block = document({"type": "content", "content": [text("A"), image(PIXEL), named]})
    told = conversation(request(messages=[{"role": "user", "content": [block]}]))
    (turn,) = told.messages
    assert (turn.content, turn.images) == ("A\n\n[img]\n\n[img]", (PIXEL, "http://x/a.png"))
    assert told.urls == {"messages[0].content[0].source.content[2].source.url": "http://x/a.png"}


def test_a_tool_that_was_found_is_its_name() -> None:
    found = [{"type": "tool_reference", "tool_name": name} for name in ("f", "g")]
    (result,) = turns(("user", [{**RESULT, "content": found}]))
    assert result.content == "f\n\ng"


def test_images_stand_where_they_were() -> None:
    (front,) = turns(("user", [image(PIXEL), text("What is it?")]))
    assert (front.content, front.images) == ("What is it?", (PIXEL,))
    (between,) = turns(("user", [text("A:"), image(PIXEL), text("B:"), image(OTHER)]))
    assert (between.content, between.images) == ("A:\n\n[img]\n\nB:\n\n[img]", (PIXEL, OTHER))
    (mixed,) = turns(("user", [image(PIXEL), text("and")]), ("user", [image(OTHER)]))
    assert (mixed.content, mixed.images) == ("[img]\n\nand\n\n[img]", (PIXEL, OTHER))


def test_images_that_are_only_named_are_told_by_their_blocks() -> None:
    named = {"type": "image", "source": {"type": "url", "url": "http://x/a.png"}}
    content = [text("see"), named, {**RESULT, "content": [named, image(PIXEL)]}]
    told = conversation(request(messages=[{"role": "user", "content": content}]))
    assert [turn.images for turn in told.messages] == [("http://x/a.png",), ("http://x/a.png", PIXEL)]
    fields = ("messages[0].content[1].source.url", "messages[0].content[2].content[0].source.url")
    assert told.urls == dict.fromkeys(fields, "http://x/a.png")


def test_what_another_server_has_searched_is_history() -> None:
    called = {"type": "server_tool_use", "id": "s1", "name": "web_search", "input": {"query": "q"}}
    found = {"type": "web_search_tool_result", "tool_use_id": "s1", "content": [{"url": "u"}]}
    call, result, said = turns(("assistant", [called, found, text("Found.")]))
    assert call.tool_calls[0]["function"]["name"] == "web_search"
    assert (result.role, result.content, result.tool_name) == ("tool", '[{"url":"u"}]', "web_search")
    assert said.content == "Found."


def test_a_message_without_content_is_a_turn() -> None:
    assert turns(("user", [])) == turns(("user", "")) == [Message(role="user")]


@pytest.mark.parametrize(
    ("content", "named"),
    [
        ([{"type": "audio"}], "messages[0].content[0].type"),
        ([{"text": "no type"}], "messages[0].content[0]"),
        ([text("a"), {"type": "text", "text": 5}], "messages[0].content[1].text"),
        (5, "messages[0].content"),
        ([{"type": "image", "source": {"type": "url"}}], "messages[0].content[0].source.url"),
        ([{"type": "image", "source": {"type": "base64"}}], "messages[0].content[0].source.data"),
        ([{"type": "image", "source": {"type": "file", "file_id": "f"}}], "messages[0].content[0].source"),
        ([image("!!!")], "messages[0].content[0].source.data"),
        ([{**RESULT, "content": [image("?")]}], "messages[0].content[0].content[0].source.data"),
        ([document({"type": "base64", "data": PIXEL})], "messages[0].content[0].source: only text documents"),
        ([document({"type": "url", "url": "http://x/a.pdf"})], "messages[0].content[0].source: only text"),
        ([document({"type": "text"})], "messages[0].content[0].source.data"),
        ([document({"type": "content"})], "messages[0].content[0].source.content"),
        (
            [document({"type": "content", "content": [image("?")]})],
            "messages[0].content[0].source.content[0].source.data",
        ),
        (
            [{**RESULT, "content": [document({"type": "file", "file_id": "f"})]}],
            "messages[0].content[0].content[0].source: only text documents",
        ),
        ([{**CALL, "name": ""}], "messages[0].content[0].name"),
        ([{**CALL, "input": "text"}], "messages[0].content[0].input"),
    ],
)
def test_errors_name_the_block(content: Any, named: str) -> None:
    with pytest.raises(BadRequest) as caught:
        turns(("user", content))
    assert named in caught.value.message


def test_an_unknown_role_is_named() -> None:
    with pytest.raises(BadRequest, match=r"messages\[1\].role: 'robot' must be one of"):
        turns(("user", "a"), ("robot", "b"))


def test_what_is_checked_first() -> None:
    def why(**body: Any) -> str:
        with pytest.raises(BadRequest) as caught:
            check(request(**body))
        return caught.value.message

    assert why() == "model is required"
    assert why(model="m") == why(model="m", max_tokens=-1) == "max_tokens is required and must be positive"
    assert why(model="m", max_tokens=1) == why(model="m", max_tokens=1, messages=[]) == "messages is required"
    good = {"model": "m", "max_tokens": 1, "messages": [{"role": "user", "content": ""}]}
    assert why(**good, mcp_servers=[{"name": "x"}]).startswith("mcp_servers:")
    assert why(**good, container="c").startswith("container:")
    check(request(**good, mcp_servers=[]))
    check(CountRequest(model="m", messages=request(**good).messages))


@pytest.mark.parametrize(
    "field",
    [
        {"max_tokens": 2**31},
        {"stop_sequences": [1]},
        {"temperature": "hot"},
        {"thinking": {"type": "enabled", "budget_tokens": -1}},
        {"tool_choice": "auto"},
        {"tools": [5]},
        {"stream": "yes"},
    ],
)
def test_a_wrong_field_is_named(field: dict[str, Any]) -> None:
    with pytest.raises(BadRequest) as caught:
        request(**field)
    assert next(iter(field)) in caught.value.message


def test_tools_of_the_client() -> None:
    (tool,) = read_tools(request(tools=[{**TOOL, "type": "custom", "cache_control": None}]).tools)
    assert tool["function"] == {"name": "f", "description": "F", "parameters": {"type": "object"}}


@pytest.mark.parametrize(
    ("tool", "named"),
    [
        ({"type": "web_search_20250305", "name": "web_search"}, "tools[0].type"),
        ({"name": "f"}, "tools[0].input_schema"),
        ({"input_schema": {}}, "tools[0].name"),
    ],
)
def test_tools_that_cannot_be_taken(tool: dict[str, Any], named: str) -> None:
    with pytest.raises(BadRequest) as caught:
        read_tools(request(tools=[tool]).tools)
    assert caught.value.message.startswith(f"{named}: ")


@pytest.mark.parametrize(
    ("choice", "wanted"),
    [
        (None, ToolChoice()),
        ({"type": "auto"}, ToolChoice()),
        ({"type": "auto", "disable_parallel_tool_use": True}, ToolChoice(parallel=False)),
        ({"type": "any"}, ToolChoice(mode="required")),
        ({"type": "tool", "name": "f"}, ToolChoice(mode="required", name="f")),
        ({"type": "none"}, ToolChoice(mode="none")),
    ],
)
def test_which_tools_may_be_called(choice: Any, wanted: ToolChoice) -> None:
    body = request(tools=[TOOL], tool_choice=choice)
    assert read_tool_choice(body.tool_choice, read_tools(body.tools)) == wanted


@pytest.mark.parametrize(
    ("choice", "named"),
    [
        ({"type": "must"}, "tool_choice.type"),
        ({"type": "tool", "name": "g"}, "tool_choice.name"),
        ({"type": "tool"}, "tool_choice.name"),
    ],
)
def test_choices_that_cannot_be_made(choice: Any, named: str) -> None:
    body = request(tools=[TOOL], tool_choice=choice)
    with pytest.raises(BadRequest, match=named):
        read_tool_choice(body.tool_choice, read_tools(body.tools))
    with pytest.raises(BadRequest, match="tool_choice"):
        read_tool_choice(request(tool_choice={"type": "any"}).tool_choice, ())


def test_what_is_wrong_with_a_schema_is_named_as_clients_know_it() -> None:
    shown = error_of(BadRequest("format.properties.a: must be an object"), "req_1").error.message
    assert shown == "output_config.format.schema.properties.a: must be an object"
    assert error_of(BadRequest("formats differ"), "req_1").error.message == "formats differ"


def test_errors_have_types_by_their_status() -> None:
    def kind(status: int) -> str:
        error = BadRequest("x")
        error.status = status
        return error_of(error, "req_1").error.type

    assert [kind(status) for status in (400, 401, 403, 404, 408, 413, 429, 500, 501, 503, 529)] == [
        "invalid_request_error",
        "authentication_error",
        "permission_error",
        "not_found_error",
        "invalid_request_error",
        "request_too_large",
        "rate_limit_error",
        "api_error",
        "api_error",
        "overloaded_error",
        "overloaded_error",
    ]
    assert error_of(TooLarge("x"), "req_1").error.details.error_code == "too_large"
    assert error_of(Unauthorized("x"), "req_1").error.type == "authentication_error"

"""POST /v1/responses, on real weights."""

from __future__ import annotations

import json
import time
import tracemalloc
from typing import Any

import pytest
from openai.types.responses import ResponseUsage

from corectl.messages import Message
from corectl_openai.errors import WrongField
from corectl_openai.items import read_items
from corectl_openai.memory import NOTHING, Conversations, decoded, encoded, joined
from corectl_openai.response import answer_of
from corectl_openai.response_objects import CallItem
from tests.conftest import MODEL, Server
from tests.frontends.conftest import SKY, create
from tests.frontends.openai_kit import ask, recorded_model, refused

PATH = "/v1/responses"
COLD = {"temperature": 0, "max_output_tokens": 8}
WEATHER = {
    "type": "function",
    "name": "get_weather",
    "parameters": {
        "type": "object",
        "properties": {"city": {"type": "string", "enum": ["Paris", "Rome"]}},
        "required": ["city"],
    },
}

SKIES = {"type": "namespace", "name": "sky", "tools": [{"type": "function", "name": "f"}]}


def respond(server: Server, /, **body: Any) -> dict[str, Any]:
    return ask(server, PATH, **{"input": SKY, **COLD, **body})


def events(server: Server, /, **body: Any) -> list[dict[str, Any]]:
    request = {"model": MODEL, "input": SKY, "stream": True, **COLD, **body}
    with server.client.stream("POST", PATH, json=request) as reply:
        assert reply.status_code == 200, reply.read()
        assert reply.headers["content-type"] == "text/event-stream"
        text = "".join(reply.iter_text())
    found = []
    for event in text.split("\n\n")[:-1]:
        name, data = event.split("\n")
        found.append(json.loads(data.removeprefix("data: ")))
        assert name == f"event: {found[-1]['type']}"
    assert [event["sequence_number"] for event in found] == list(range(len(found)))
    return found


def text_of(reply: dict[str, Any]) -> str:
    return "".join(item["content"][0]["text"] for item in reply["output"] if item["type"] == "message")


@pytest.fixture(scope="module")
def tooled(shop: Server) -> str:
    return recorded_model(shop, "responses-tools", "smoltool")


@pytest.fixture(scope="module")
def thinker(shop: Server) -> str:
    return recorded_model(shop, "responses-thinks", "smolthink")


def test_a_reply_that_was_cut_says_so(server: Server) -> None:
    reply = respond(server)
    assert reply["object"] == "response" and reply["id"].startswith("resp_")
    assert reply["status"] == "incomplete"
    assert reply["incomplete_details"] == {"reason": "max_output_tokens"}
    (item,) = reply["output"]
    assert item["status"] == "incomplete"
    assert item["type"] == "message" and item["role"] == "assistant" and item["id"].startswith("msg_")
    assert text_of(reply).startswith("The ")
    assert reply["usage"]["output_tokens"] == 8
    assert ResponseUsage.model_validate(reply["usage"]).input_tokens_details.cache_write_tokens == 0
    assert respond(server, max_output_tokens=200, text={"format": {"type": "json_schema", "name": "a",
        "schema": {"enum": ["yes"]}}})["status"] == "completed"  # fmt: skip


def test_the_events_of_a_message_in_their_order(server: Server) -> None:
    found = events(server)
    kinds = list(dict.fromkeys(event["type"] for event in found))
    assert kinds == [
        "response.created",
        "response.in_progress",
        "response.output_item.added",
        "response.content_part.added",
        "response.output_text.delta",
        "response.output_text.done",
        "response.content_part.done",
        "response.output_item.done",
        "response.incomplete",
    ]
    assert found[0]["response"]["status"] == "in_progress"
    text = "".join(event["delta"] for event in found if event["type"] == "response.output_text.delta")
    assert text == text_of(found[-1]["response"])
    assert found[-2]["item"] == found[-1]["response"]["output"][0]
    assert found[-2]["item"]["status"] == "incomplete"
    assert found[-1]["response"]["id"] == found[0]["response"]["id"]


def test_a_limit_among_the_native_options_holds(server: Server) -> None:
    body = {"input": SKY, "temperature": 0, "options": {"num_predict": 3}}
    assert ask(server, PATH, **body)["usage"]["output_tokens"] == 3
    assert ask(server, PATH, **body, max_output_tokens=2)["usage"]["output_tokens"] == 2


def test_instructions_and_items(server: Server) -> None:
    items = [{"role": "developer", "content": "Be brief"}, {"role": "user", "content": SKY}]
    parts = [{"type": "message", "role": "user", "content": [{"type": "input_text", "text": SKY}]}]
    for one, other in (
        (respond(server, input=items), respond(server, instructions="Be brief")),
        (respond(server, input=parts), respond(server)),
    ):
        assert one["usage"]["input_tokens"] == other["usage"]["input_tokens"]
        assert text_of(one).split()[0] == text_of(other).split()[0]


def test_a_call_and_its_answer(shop: Server, tooled: str) -> None:
    kinds = ("", "_2025_08_26", "_preview", "_preview_2025_03_11")
    searches = [{"type": f"web_search{kind}"} for kind in kinds]
    body = {"model": tooled, "tools": [WEATHER, *searches], "max_output_tokens": 64}
    found = events(shop, tool_choice={"type": "function", "name": "get_weather"}, **body)
    last = found[-1]["response"]
    assert last["status"] == "completed"
    assert [notice["code"] for notice in last["warnings"]] == ["tool_left_out"] * 4
    assert last["warnings"][3]["message"] == "tools[4]: there is no web_search_preview_2025_03_11 here"
    (call,) = [item for item in last["output"] if item["type"] == "function_call"]
    arguments = next(e for e in found if e["type"] == "response.function_call_arguments.done")["arguments"]
    assert call["name"] == "get_weather" and call["arguments"] == arguments
    assert json.loads(arguments)["city"] in ("Paris", "Rome")
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "22 degrees"}
    again = [{"role": "user", "content": SKY}, call, output]
    whole = respond(shop, input=again, tool_choice="none", **body)
    kept = respond(shop, input=[output], previous_response_id=last["id"], tool_choice="none", **body)
    assert text_of(whole) and text_of(kept)
    assert kept["usage"]["input_tokens"] == whole["usage"]["input_tokens"]
    assert kept["previous_response_id"] == last["id"]


def test_a_result_has_the_name_of_a_call_that_was_kept(shop: Server) -> None:
    template = (
        "{{ .Tools }}{{ range .Messages }}[{{ .Role }} {{ .ToolName }}]{{ .Content }}{{ range .ToolCalls }}"
        '{"name": "{{ .Function.Name }}", "arguments": {{ .Function.Arguments }}}{{ end }}{{ end }}'
    )
    create(shop, "names-results", **{"from": MODEL}, template=template)
    body = {"model": "names-results", "tools": [WEATHER], "max_output_tokens": 64}
    choice = {"type": "function", "name": "get_weather"}
    first = respond(shop, tool_choice=choice, **body)
    (call,) = [item for item in first["output"] if item["type"] == "function_call"]
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "22 degrees"}
    again = [{"role": "user", "content": SKY}, *first["output"], output]
    whole = respond(shop, input=again, tool_choice="none", **body)
    kept = respond(shop, input=[output], previous_response_id=first["id"], tool_choice="none", **body)
    assert kept["usage"]["input_tokens"] == whole["usage"]["input_tokens"]


def test_a_call_into_a_namespace_and_its_answer(shop: Server, tooled: str) -> None:
    choice = {"type": "function", "namespace": "sky", "name": "get_weather"}
    body = {"model": tooled, "max_output_tokens": 64, "tool_choice": choice}
    body["tools"] = [{"type": "namespace", "name": "sky", "description": "Above us.", "tools": [WEATHER]}]
    found = events(shop, **body)
    last = found[-1]["response"]
    (call,) = [item for item in last["output"] if item["type"] == "function_call"]
    assert (call["namespace"], call["name"]) == ("sky", "get_weather")
    items = [event["item"] for event in found if event.get("item", {}).get("type") == "function_call"]
    assert [(item["namespace"], item["name"]) for item in items] == [("sky", "get_weather")] * 2
    assert respond(shop, **body)["output"][-1]["namespace"] == "sky"
    output = {"type": "function_call_output", "call_id": call["call_id"], "output": "22 degrees"}
    again = [{"role": "user", "content": SKY}, call, output]
    body["tool_choice"] = "none"
    whole = respond(shop, input=again, **body)
    kept = respond(shop, input=[output], previous_response_id=last["id"], **body)
    assert kept["usage"]["input_tokens"] == whole["usage"]["input_tokens"]


def test_a_namespace_is_a_part_of_the_name_that_the_model_sees() -> None:
    call = {"type": "function_call", "call_id": "c", "namespace": "sky", "name": "f", "arguments": "{}"}
    output = {"type": "function_call_output", "call_id": "c", "output": "x"}
    asked, answered = read_items([call, output])
    assert asked.tool_calls[0]["function"]["name"] == answered.tool_name == "sky.f"


@pytest.mark.parametrize("stream", [False, True])
def test_items_may_be_referred_to(shop: Server, tooled: str, thinker: str, stream: bool) -> None:
    """As the Vercel AI SDK does it in the second turn."""
    asked = {"role": "user", "content": SKY}
    more = {"role": "user", "content": "And at night?"}
    said = {"tools": [WEATHER], "tool_choice": {"type": "function", "name": "get_weather"}}
    bodies: tuple[dict[str, Any], ...] = (
        {"model": MODEL},
        {"model": thinker, "reasoning": {"effort": "low"}},
        {"model": tooled, "max_output_tokens": 64, **said},
    )
    kinds = []
    for body in bodies:
        first = events(shop, **body)[-1]["response"] if stream else respond(shop, **body)
        kinds += [item["type"] for item in first["output"]]
        body = {**body, "tool_choice": "none"} if "tools" in body else body
        again = respond(shop, **{**body, "input": [asked, *first["output"], more]})["usage"]["input_tokens"]
        for kind in ({"type": "item_reference"}, {"type": None}, {}):
            named = [{**kind, "id": item["id"]} for item in first["output"]]
            assert respond(shop, **{**body, "input": [asked, *named, more]})["usage"]["input_tokens"] == again
    assert {"message", "reasoning", "function_call"} <= set(kinds)


def test_references_to_items_that_are_not_here(server: Server) -> None:
    stored, unstored = respond(server)["output"], respond(server, store=False)["output"]
    (item,) = stored
    named = {"type": "item_reference", "id": item["id"]}
    error = refused(server, PATH, input=[named, {"type": "item_reference", "id": unstored[0]["id"]}])
    assert error["param"] == "input[1].id" and error["message"].endswith("send the item itself")
    assert refused(server, PATH, input=[named, named])["param"] == "input[1].id"
    assert refused(server, PATH, input=[{"type": "item_reference"}])["param"] == "input[0].id"
    assert refused(server, PATH, input=[{"id": 5}])["param"] == "input[0].id"


def test_thoughts_are_items(shop: Server, thinker: str) -> None:
    reply = respond(shop, model=thinker, reasoning={"effort": "low"})
    (thought,) = reply["output"]
    assert thought["type"] == "reasoning" and thought["summary"][0]["text"]
    back = [{**thought, "encrypted_content": None}, {"type": None, "role": "user", "content": SKY}]
    assert respond(shop, model=thinker, input=back, max_output_tokens=1)["usage"]["input_tokens"] > 20
    kinds = [event["type"] for event in events(shop, model=thinker, reasoning={"effort": "low"})]
    assert "response.reasoning_summary_text.delta" in kinds
    assert kinds.index("response.reasoning_summary_part.added") < kinds.index(
        "response.reasoning_summary_text.done"
    )


def test_what_is_too_long_is_cut_unless_the_request_says_otherwise(shop: Server) -> None:
    shop.client.post("/api/copy", json={"source": MODEL, "destination": "responses-tight"})
    body = {"model": "responses-tight", "input": "word " * 600, "num_ctx": 256, "max_output_tokens": 1}
    for truncation in ({}, {"truncation": "auto"}):
        cut = respond(shop, **body, **truncation)
        assert cut["truncation"] == "auto" and cut["context_fit"]["dropped_tokens"] > 0
    error = refused(shop, PATH, 400, **body, truncation="disabled")
    assert error["code"] == "context_length_exceeded"
    assert respond(shop, truncation="disabled", max_output_tokens=1)["truncation"] == "disabled"


def test_what_is_not_stored_cannot_be_continued(server: Server) -> None:
    unknown = respond(server, store=False)["id"]
    error = refused(server, PATH, input=SKY, previous_response_id=unknown)
    assert (error["param"], error["code"]) == ("previous_response_id", "previous_response_not_found")
    known = respond(server, store=True)["id"]
    more = respond(server, input="And at night?", previous_response_id=known)
    assert more["usage"]["input_tokens"] > respond(server, input="And at night?")["usage"]["input_tokens"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"input": 5}, "input"),
        ({"input": []}, "input"),
        ({"input": [{"type": "zzz"}]}, "input[0].type"),
        ({"input": [{"role": "user", "content": 5}]}, "input[0].content"),
        ({"input": [{"type": "function_call", "call_id": "a", "name": "f", "arguments": 5}]}, "input[0].arguments"),
        ({"input": [{"type": "function_call_output", "output": "x"}]}, "input[0].call_id"),
        ({"tools": [{"type": "code_interpreter"}]}, "tools[0].type"),
        ({"tools": [{**WEATHER, "name": "sky.f"}, SKIES]}, "tools[1].tools[0].name"),
        ({"tools": [SKIES, {**WEATHER, "name": "sky.f"}]}, "tools[1].name"),
        ({"tools": [WEATHER], "tool_choice": {"type": "allowed_tools", "mode": "auto"}}, "tool_choice.type"),
        ({"options": {"num_ctx": -5}}, "options.num_ctx"),
        ({"text": {"format": {"type": "xml"}}}, "text.format.type"),
        ({"text": {"format": {"type": "json_schema", "schema": 5}}}, "text.format.schema"),
        ({"text": {"format": {"type": "json_schema", "schema": {"type": "zzz"}}}}, "text.format.schema.type"),
        ({"reasoning": {"effort": "zzz"}}, "reasoning.effort"),
        ({"reasoning": {"effort": "low"}}, "reasoning.effort"),
        ({"max_output_tokens": 10**12}, "max_output_tokens"),
        ({"conversation": "c1"}, "conversation"),
        ({"background": True}, "background"),
        ({"prompt": {"id": "p"}}, "prompt"),
        ({"include": ["message.output_text.logprobs"]}, "include"),
        ({"include": "all"}, "include"),
        ({"top_logprobs": 2}, "top_logprobs"),
        ({"truncation": "middle"}, "truncation"),
        ({"input": [{"type": "reasoning", "summary": 5}]}, "input[0].summary"),
        ({"input": [{"type": "reasoning", "summary": [5]}]}, "input[0].summary[0].type"),
        ({"input": [{"type": "reasoning", "encrypted_content": 5}]}, "input[0].encrypted_content"),
        ({"input": [{"type": "reasoning", "content": 5}]}, "input[0].content"),
        ({"input": [{"type": "reasoning", "summary": []}]}, "input"),
        ({"tools": [{"type": "function", "name": "f", "parameters": 5}]}, "tools[0].parameters"),
        ({"tools": [{"type": "function", "name": "f", "description": 5}]}, "tools[0].description"),
        ({"model": ""}, "model"),
    ],
)  # fmt: skip
def test_what_is_wrong_is_named(server: Server, body: dict[str, Any], param: str) -> None:
    assert refused(server, PATH, **{"input": SKY, "max_output_tokens": 1, **body})["param"] == param


def test_calls_are_part_of_the_turn_that_made_them() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    thought = {"type": "reasoning", "summary": [], "encrypted_content": "hm"}
    said = {"role": "assistant", "content": [{"type": "output_text", "text": "Let me see."}]}
    (message,) = read_items([thought, said, call, {**call, "call_id": "d"}])
    assert (message.content, message.thinking) == ("Let me see.", "hm")
    assert [made["id"] for made in message.tool_calls] == ["c", "d"]


def test_thoughts_as_other_servers_write_them() -> None:
    thought = {"type": "reasoning", "content": [{"type": "reasoning_text", "text": "hm"}]}
    said = {"role": "assistant", "content": "So."}
    short = {"summary": [{"type": "summary_text", "text": "h"}]}
    others: tuple[dict[str, Any], ...] = ({}, {"summary": []}, {"encrypted_content": None}, short)
    for more in others:
        (message,) = read_items([{**thought, **more}, said])
        assert (message.content, message.thinking) == ("So.", "hm")


def test_arguments_that_no_object_of_ours_can_hold_are_taken_back() -> None:
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": '{"a": 1e999}'}
    item = CallItem(id="fc_1", status="completed", call_id="c", name="f", arguments='{"a": 1e999}')
    (message,) = read_items([call])
    assert message.tool_calls == answer_of([item]).tool_calls
    assert message.tool_calls[0]["function"]["arguments"] == {"INVALID_JSON": '{"a": 1e999}'}


def test_many_calls_of_one_turn_are_read_in_one_go() -> None:
    thought = {"type": "reasoning", "summary": [], "encrypted_content": "x" * 1000}
    call = {"type": "function_call", "call_id": "c", "name": "f", "arguments": "{}"}
    begun = time.process_time()
    (message,) = read_items([thought, call] * 15_000)
    assert time.process_time() - begun < 10, "it took 40 s where each call copied all that stood before it"
    assert len(message.tool_calls) == 15_000 and len(message.thinking) == 15_000_000


def test_an_error_does_not_repeat_all_that_was_sent() -> None:
    with pytest.raises(WrongField) as found:
        read_items([{"type": "x" * 10_000}])
    assert len(found.value.message) < 200


def test_conversations_are_put_together_without_being_read() -> None:
    messages = [Message(role="user", content=text) for text in ("a", "[b]", "")]
    parts = [encoded(messages[:1]), encoded([]), NOTHING, encoded(messages[1:])]
    assert decoded(joined(*parts)) == tuple(messages)
    assert joined(NOTHING, NOTHING) == NOTHING and decoded(NOTHING) == ()


def test_conversations_are_bounded() -> None:
    memory = Conversations(most=2, size=2000)
    for name in "abc":
        memory.keep(name, encoded([Message(role="user", content=name)]), {})
    assert memory.find("a") is None and memory.find("b") is not None
    memory.keep("long", encoded([Message(role="user", content="x" * 1950)]), {})
    assert memory.find("long") is not None and memory.find("b") is None and memory.find("c") is None
    memory.keep("longer", encoded([Message(role="user", content="x" * 5000)]), {})
    assert memory.find("longer") is None and memory.find("long") is not None, (
        "nobody else's is forgotten for it"
    )
    memory.keep("d", encoded([Message(role="user", content="d")]), {})
    assert memory.find("d") is not None


def test_items_are_forgotten_with_their_response() -> None:
    memory = Conversations(most=3, size=2000)
    for name in "abc":
        memory.keep(name, NOTHING, {f"msg_{name}": b"{}"})
    assert memory.find_item("msg_a") == b"{}", "this is a use of it"
    memory.keep("d", NOTHING, {"msg_d": b"{}"})
    assert [memory.find_item(f"msg_{name}") for name in "abcd"] == [b"{}", None, b"{}", b"{}"]
    assert memory.find("b") is None and memory.find("a") is not None
    memory.keep("large", NOTHING, {"msg_large": b"x" * 1998})
    assert memory.find_item("msg_large") and not any(memory.find_item(f"msg_{name}") for name in "acd")
    memory.keep("larger", NOTHING, {"msg_larger": b"x" * 1999})
    assert memory.find_item("msg_larger") is None and memory.find_item("msg_large")


def test_what_is_kept_takes_no_more_memory_than_is_counted() -> None:
    arguments: dict[str, Any] = {"a": [[] for _ in range(100_000)]}
    call = {"id": "c", "function": {"name": "f", "arguments": arguments}}
    said = (Message(role="assistant", content="\N{SNOWMAN}", tool_calls=(call,)),)
    memory = Conversations(size=2**20)
    tracemalloc.start()
    for number in range(20):
        memory.keep(str(number), encoded(said), {})
    taken, _ = tracemalloc.get_traced_memory()
    tracemalloc.stop()
    assert memory.find("0") is None and memory.find("19") == encoded(said)
    assert taken < 2 * 2**20

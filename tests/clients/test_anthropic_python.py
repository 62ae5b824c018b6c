"""Anthropic's official Python client against a real server and real weights."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from typing import Any

import anthropic
import pydantic
import pytest
from anthropic import beta_async_tool, beta_tool
from anthropic.types import MessageParam, TextBlock, ThinkingBlock, ToolParam, ToolUseBlock

from tests.agent import AGENT, CITY, DONE, create_agent
from tests.conformance.test_output_matrix import QWEN
from tests.conftest import MODEL, Server
from tests.frontends.conftest import create

SKY: list[MessageParam] = [{"role": "user", "content": "Why is the sky blue?"}]
STORY: list[MessageParam] = [{"role": "user", "content": "Tell me a story."}]
HI: list[Any] = [{"role": "user", "content": "hi"}]
THINKER = "thinker"
WEATHER: ToolParam = {
    "name": "get_weather",
    "description": "Says what the weather is like",
    "input_schema": {
        "type": "object",
        "properties": {"city": {"type": "string", "maxLength": 20}},
        "required": ["city"],
        "additionalProperties": False,
    },
}


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("anthropic"), OLLAMA_MAX_LOADED_MODELS="1")
    create_agent(running)
    greedy = {"temperature": 0, "num_thread": 1}
    create(running, THINKER, **{"from": MODEL}, template=QWEN, parameters=greedy)
    create(running, "plain", **{"from": MODEL}, parameters=greedy)
    yield running
    assert running.stop() == 0, running.log


@pytest.fixture(scope="module")
def client(own: Server) -> Iterator[anthropic.Anthropic]:
    http = anthropic.DefaultHttpxClient(trust_env=False)
    with anthropic.Anthropic(base_url=own.url, api_key="none", max_retries=0, http_client=http) as made:
        yield made


def test_a_message(client: anthropic.Anthropic) -> None:
    message = client.messages.create(model="plain", max_tokens=8, messages=SKY)
    (block,) = message.content
    assert isinstance(block, TextBlock) and block.text
    assert (message.role, message.model, message.stop_reason) == ("assistant", "plain", "max_tokens")
    assert message.usage.output_tokens == 8 and message.usage.input_tokens > 0
    assert message._request_id is not None and message._request_id.startswith("req_")


def test_what_was_read_before_is_in_the_cache(client: anthropic.Anthropic) -> None:
    def read() -> tuple[int, int]:
        usage = client.messages.create(model="plain", max_tokens=1, messages=SKY).usage
        return usage.input_tokens, usage.cache_read_input_tokens or 0

    first, again = read(), read()
    assert sum(first) == sum(again)
    assert again[0] == 1 and again[1] > 1


def test_a_stream_is_the_message_in_pieces(client: anthropic.Anthropic) -> None:
    whole = client.messages.create(model="plain", max_tokens=8, messages=SKY)
    with client.messages.stream(model="plain", max_tokens=8, messages=SKY) as stream:
        pieces = list(stream.text_stream)
        final = stream.get_final_message()
    assert len(pieces) > 2
    assert isinstance(whole.content[0], TextBlock) and "".join(pieces) == whole.content[0].text
    assert final.content[0].type == "text" and final.content[0].text == whole.content[0].text
    assert (final.stop_reason, final.usage.output_tokens) == (whole.stop_reason, 8)


def test_raw_events_in_their_order(client: anthropic.Anthropic) -> None:
    stream = client.messages.create(model="plain", max_tokens=4, messages=SKY, stream=True)
    names = [event.type for event in stream]
    assert names[:2] == ["message_start", "content_block_start"]
    assert set(names[2:-3]) == {"content_block_delta"}
    assert names[-3:] == ["content_block_stop", "message_delta", "message_stop"]


def test_the_asynchronous_client(own: Server) -> None:
    async def story() -> list[str]:
        http = anthropic.DefaultAsyncHttpxClient(trust_env=False)
        async with (
            anthropic.AsyncAnthropic(base_url=own.url, api_key="none", http_client=http) as client,
            client.messages.stream(model="plain", max_tokens=4, messages=SKY) as stream,
        ):
            return [text async for text in stream.text_stream]

    assert "".join(asyncio.run(story()))


def test_system_and_stop_sequences(client: anthropic.Anthropic) -> None:
    system: Any = [{"type": "text", "text": "Be brief.", "cache_control": {"type": "ephemeral"}}]
    said = client.messages.create(model="plain", max_tokens=24, messages=SKY, system=system)
    assert isinstance(said.content[0], TextBlock)
    stop = said.content[0].text[6:10]
    ended = client.messages.create(
        model="plain", max_tokens=24, messages=SKY, system=system, stop_sequences=["never so", stop]
    )
    assert (ended.stop_reason, ended.stop_sequence) == ("stop_sequence", stop)
    assert isinstance(ended.content[0], TextBlock)
    assert ended.content[0].text == said.content[0].text.split(stop)[0]


def test_tokens_are_counted_as_they_are_read(client: anthropic.Anthropic) -> None:
    counted = client.messages.count_tokens(model="plain", messages=SKY, system="Be kind.")
    usage = client.messages.create(model="plain", max_tokens=1, messages=SKY, system="Be kind.").usage
    assert counted.input_tokens == usage.input_tokens + (usage.cache_read_input_tokens or 0)
    more = client.messages.count_tokens(model=AGENT, messages=SKY, tools=[WEATHER])
    assert more.input_tokens > client.messages.count_tokens(model=AGENT, messages=SKY).input_tokens


def test_a_tool_is_called_and_its_result_is_answered(client: anthropic.Anthropic) -> None:
    asked = client.messages.create(model=AGENT, max_tokens=64, messages=SKY, tools=[WEATHER])
    (call,) = asked.content
    assert isinstance(call, ToolUseBlock)
    assert (asked.stop_reason, call.name, call.input) == ("tool_use", "get_weather", {"city": CITY})
    answered = client.messages.create(
        model=AGENT,
        max_tokens=64,
        tools=[WEATHER],
        messages=[
            *SKY,
            {"role": "assistant", "content": asked.content},
            {"role": "user", "content": [{"type": "tool_result", "tool_use_id": call.id, "content": "Sun"}]},
        ],
    )
    assert isinstance(answered.content[0], TextBlock) and answered.content[0].text == DONE
    assert answered.stop_reason == "end_turn"


@pytest.mark.parametrize("eager", [False, True])
def test_a_streamed_call_comes_as_pieces_of_json(client: anthropic.Anthropic, eager: bool) -> None:
    tools: list[ToolParam] = [{**WEATHER, "eager_input_streaming": eager}]
    with client.messages.stream(model=AGENT, max_tokens=64, messages=SKY, tools=tools) as stream:
        pieces = [event.partial_json for event in stream if event.type == "input_json"]
        final = stream.get_final_message()
    assert json.loads("".join(pieces)) == {"city": CITY}
    assert (len(pieces) > 1) is eager
    assert final.content[0].type == "tool_use" and final.content[0].input == {"city": CITY}
    assert final.stop_reason == "tool_use"


@pytest.mark.parametrize("choice", [{"type": "any"}, {"type": "tool", "name": "get_weather"}])
def test_a_call_that_must_be(client: anthropic.Anthropic, choice: Any) -> None:
    choice = {**choice, "disable_parallel_tool_use": True}
    message = client.messages.create(
        model=THINKER,
        max_tokens=96,
        messages=SKY,
        tools=[WEATHER],
        tool_choice=choice,
        thinking={"type": "disabled"},
    )
    (call,) = message.content
    assert isinstance(call, ToolUseBlock) and isinstance(call.input, dict)
    assert list(call.input) == ["city"]


def test_no_call_where_none_may_be(client: anthropic.Anthropic) -> None:
    message = client.messages.create(
        model=AGENT, max_tokens=16, messages=SKY, tools=[WEATHER], tool_choice={"type": "none"}
    )
    assert [block.type for block in message.content] == ["text"]


@beta_tool
def get_weather(city: str) -> str:
    """Says what the weather is like.

    Args:
        city: Where.
    """
    return f"Sunny in {city}"


def test_the_tool_runner_walks_the_whole_loop(client: anthropic.Anthropic) -> None:
    runner = client.beta.messages.tool_runner(model=AGENT, max_tokens=64, messages=HI, tools=[get_weather])
    first, last = list(runner)
    assert first.stop_reason == "tool_use"
    assert last.content[0].type == "text" and last.content[0].text == DONE
    told: list[Any] = list(runner._params["messages"])
    assert [message["role"] for message in told] == ["user", "assistant", "user", "assistant"]
    assert [result["content"] for result in told[2]["content"]] == [f"Sunny in {CITY}"]


def test_the_tool_runner_streams(client: anthropic.Anthropic) -> None:
    runner = client.beta.messages.tool_runner(
        model=AGENT, max_tokens=64, messages=HI, tools=[get_weather], stream=True
    )
    said = [[event.type for event in stream] for stream in runner]
    assert "input_json" in said[0] and "text" in said[1] and len(said) == 2


def test_the_tool_runner_of_the_asynchronous_client(own: Server) -> None:
    cities: list[str] = []

    @beta_async_tool
    async def get_weather(city: str) -> str:
        """Says what the weather is like."""
        cities.append(city)
        return "Sunny"

    async def walk() -> Any:
        async with anthropic.AsyncAnthropic(base_url=own.url, api_key="none", max_retries=0) as client:
            runner = client.beta.messages.tool_runner(
                model=AGENT, max_tokens=64, messages=HI, tools=[get_weather]
            )
            return await runner.until_done()

    assert asyncio.run(walk()).content[0].text == DONE and cities == [CITY]


def test_thoughts_within_their_budget(client: anthropic.Anthropic) -> None:
    thinking: Any = {"type": "enabled", "budget_tokens": 6}
    message = client.messages.create(model=THINKER, max_tokens=16, messages=STORY, thinking=thinking)
    thought, text = message.content
    assert isinstance(thought, ThinkingBlock) and thought.thinking and thought.signature
    assert isinstance(text, TextBlock) and text.text
    with client.messages.stream(model=THINKER, max_tokens=16, messages=STORY, thinking=thinking) as stream:
        kinds = {event.type for event in stream}
        final = stream.get_final_message()
    assert {"thinking", "signature", "text"} <= kinds
    assert final.content[0].type == "thinking" and final.content[0].thinking == thought.thinking
    assert final.content[0].signature == thought.signature
    # What was thought goes back as it came.
    follow: list[MessageParam] = [*STORY, {"role": "assistant", "content": message.content}, *STORY]
    assert client.messages.create(model=THINKER, max_tokens=4, messages=follow, thinking=thinking).content


def test_output_that_is_parsed(client: anthropic.Anthropic) -> None:
    class Person(pydantic.BaseModel):
        age: int

    parsed = client.messages.parse(
        model="plain",
        max_tokens=32,
        messages=[{"role": "user", "content": "How old is Ann?"}],
        output_format=Person,
    )
    assert isinstance(parsed.parsed_output, Person)
    with client.messages.stream(
        model="plain",
        max_tokens=32,
        messages=[{"role": "user", "content": "How old is Ann?"}],
        output_format=Person,
    ) as stream:
        final = stream.get_final_message()
    assert final.parsed_output == parsed.parsed_output


def test_errors_are_those_of_the_client(client: anthropic.Anthropic) -> None:
    with pytest.raises(anthropic.NotFoundError, match="model 'claude-opus-5' not found") as missing:
        client.messages.create(model="claude-opus-5", max_tokens=8, messages=SKY)
    assert missing.value.type == "not_found_error" and missing.value.error_code == "not_found"
    assert missing.value.request_id is not None
    with pytest.raises(anthropic.BadRequestError, match="max_tokens is required") as bad:
        client.messages.create(model="plain", max_tokens=-1, messages=SKY)
    assert bad.value.type == "invalid_request_error"
    with pytest.raises(anthropic.NotFoundError):
        client.messages.count_tokens(model="nobody", messages=SKY)


def test_a_client_that_leaves_in_mid_stream(client: anthropic.Anthropic, own: Server) -> None:
    with client.messages.stream(model="plain", max_tokens=400, messages=SKY) as stream:
        next(iter(stream.text_stream))
    assert client.messages.create(model="plain", max_tokens=1, messages=SKY).stop_reason == "max_tokens"

"""OpenAI's own Python client against a real server and real weights."""

from __future__ import annotations

import asyncio
import json
from collections.abc import Iterator
from contextlib import closing
from typing import Any, Literal

import numpy as np
import openai
import pytest
from pydantic import BaseModel

from tests.conftest import DATA, MODEL, Server
from tests.frontends.conftest import create, upload
from tests.frontends.openai_kit import WEATHER, recorded_model

SKY: list[Any] = [{"role": "user", "content": "Why is the sky blue?"}]
GREEDY: dict[str, Any] = {"model": MODEL, "temperature": 0, "seed": 42, "max_tokens": 8}


class Person(BaseModel):
    kind: Literal["person"]
    grown: bool


@pytest.fixture(scope="module")
def own(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("openai"))
    embedder = DATA / "tinybert.gguf"
    create(running, "tinybert", files={embedder.name: upload(running, embedder.read_bytes())})
    recorded_model(running, "tools", "smoltool")
    yield running
    assert running.stop() == 0, running.log


@pytest.fixture(scope="module")
def client(own: Server) -> Iterator[openai.OpenAI]:
    made = openai.OpenAI(base_url=f"{own.url}/v1", api_key="any", max_retries=0, timeout=120)
    with closing(made):
        yield made


def test_a_chat(client: openai.OpenAI) -> None:
    reply = client.chat.completions.create(messages=SKY, **GREEDY, logprobs=True, top_logprobs=1)
    choice = reply.choices[0]
    assert choice.message.content and choice.finish_reason == "length"
    assert reply.usage is not None and reply.usage.completion_tokens == 8
    assert reply.usage.prompt_tokens_details is not None
    assert choice.logprobs is not None and choice.logprobs.content is not None
    assert "".join(token.token for token in choice.logprobs.content) == choice.message.content


def test_a_streamed_chat(client: openai.OpenAI) -> None:
    options: Any = {"stream_options": {"include_usage": True}}
    chunks = list(client.chat.completions.create(messages=SKY, stream=True, **GREEDY, **options))
    text = "".join(chunk.choices[0].delta.content or "" for chunk in chunks if chunk.choices)
    whole = client.chat.completions.create(messages=SKY, **GREEDY)
    assert text == whole.choices[0].message.content
    assert chunks[-1].usage is not None and chunks[-1].usage.completion_tokens == 8


def test_the_helper_for_streams(client: openai.OpenAI) -> None:
    # The helper raises for a reply that was cut.
    with client.chat.completions.stream(messages=SKY, **GREEDY, stop=[" "]) as stream:
        deltas = "".join(event.delta for event in stream if event.type == "content.delta")
        final = stream.get_final_completion()
    assert final.choices[0].message.content == deltas == "The"


def test_an_asynchronous_chat(own: Server) -> None:
    async def story() -> str:
        async with openai.AsyncOpenAI(base_url=f"{own.url}/v1", api_key="any", timeout=120) as client:
            stream = await client.chat.completions.create(messages=SKY, stream=True, **GREEDY)
            return "".join([chunk.choices[0].delta.content or "" async for chunk in stream])

    assert asyncio.run(story())


def test_a_parsed_reply(client: openai.OpenAI) -> None:
    body = GREEDY | {"max_tokens": 64}
    reply = client.chat.completions.parse(messages=SKY, response_format=Person, **body)
    person = reply.choices[0].message.parsed
    assert isinstance(person, Person) and person.kind == "person"


def test_tools(client: openai.OpenAI) -> None:
    body: dict[str, Any] = {**GREEDY, "model": "tools", "max_tokens": 64, "tools": [WEATHER]}
    messages: list[Any] = [{"role": "user", "content": "Weather in Paris?"}]
    reply = client.chat.completions.create(messages=messages, tool_choice="required", **body)
    assert reply.choices[0].finish_reason == "tool_calls"
    calls = reply.choices[0].message.tool_calls
    assert calls and calls[0].type == "function"
    assert json.loads(calls[0].function.arguments)["city"] in ("Paris", "Rome")
    messages += [
        reply.choices[0].message,
        {"role": "tool", "tool_call_id": calls[0].id, "content": "22 degrees"},
    ]
    final = client.chat.completions.create(messages=messages, tool_choice="none", **body)
    assert final.choices[0].message.content
    with client.chat.completions.stream(messages=messages[:1], tool_choice="required", **body) as stream:
        streamed = stream.get_final_completion().choices[0]
    assert streamed.finish_reason == "tool_calls" and streamed.message.tool_calls


def test_responses(client: openai.OpenAI) -> None:
    cold: dict[str, Any] = {"model": MODEL, "temperature": 0, "max_output_tokens": 8}
    reply = client.responses.create(input="Why is the sky blue?", **cold)
    assert reply.output_text and reply.status == "incomplete"
    more = client.responses.create(input="And at night?", previous_response_id=reply.id, **cold)
    assert more.output_text and more.usage is not None
    with client.responses.stream(input="Why is the sky blue?", **cold) as stream:
        text = "".join(event.delta for event in stream if event.type == "response.output_text.delta")
    assert text.split()[0] == reply.output_text.split()[0]
    parsed = client.responses.parse(input="Bob", text_format=Person, **cold | {"max_output_tokens": 64})
    assert isinstance(parsed.output_parsed, Person)


def test_a_tool_in_a_response(client: openai.OpenAI) -> None:
    tool: Any = {"type": "function", **WEATHER["function"]}  # type: ignore[dict-item]
    body: dict[str, Any] = {"model": "tools", "tools": [tool], "max_output_tokens": 64, "temperature": 0}
    items: list[Any] = [{"role": "user", "content": "Weather in Paris?"}]
    reply = client.responses.create(input=items, tool_choice="required", **body)
    (call,) = [item for item in reply.output if item.type == "function_call"]
    assert json.loads(call.arguments)["city"] in ("Paris", "Rome")
    items += [*reply.output, {"type": "function_call_output", "call_id": call.call_id, "output": "22"}]
    assert client.responses.create(input=items, tool_choice="none", **body).output_text


def test_completions(client: openai.OpenAI) -> None:
    reply = client.completions.create(prompt=["a", "b"], **GREEDY)
    assert [choice.index for choice in reply.choices] == [0, 1] and reply.choices[0].text
    chunks = list(client.completions.create(prompt="a", stream=True, **GREEDY))
    assert "".join(chunk.choices[0].text for chunk in chunks)


def test_embeddings(client: openai.OpenAI) -> None:
    """The client asks for base64 unless it is told otherwise."""
    packed = client.embeddings.create(model="tinybert", input=["good sky", "blue"])
    plain = client.embeddings.create(model="tinybert", input=["good sky", "blue"], encoding_format="float")
    assert np.allclose([item.embedding for item in packed.data], [item.embedding for item in plain.data])
    assert packed.usage.prompt_tokens > 0


def test_models(client: openai.OpenAI) -> None:
    assert f"{MODEL}:latest" in [model.id for model in client.models.list()]
    assert client.models.retrieve(MODEL).owned_by == "library"


def test_errors_have_the_clients_classes(client: openai.OpenAI) -> None:
    with pytest.raises(openai.NotFoundError) as missing:
        client.chat.completions.create(messages=SKY, **GREEDY | {"model": "nope"})
    assert missing.value.code == "model_not_found" and missing.value.param == "model"
    with pytest.raises(openai.BadRequestError) as wrong:
        client.chat.completions.create(messages=SKY, **GREEDY | {"top_p": 5})
    assert (wrong.value.param, wrong.value.type) == ("top_p", "invalid_request_error")
    with pytest.raises(openai.BadRequestError):
        client.chat.completions.create(messages=SKY, stream=True, **GREEDY | {"temperature": -1})
    with pytest.raises(openai.NotFoundError):
        client.models.retrieve("nope")

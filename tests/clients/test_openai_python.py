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
    create(running, "filler", **{"from": MODEL}, template="<file_sep>{{ .Suffix }}<file_sep>{{ .Prompt }}")
    recorded_model(running, "tools", "smoltool")
    yield running
    assert running.stop() == 0, running.log


@pytest.fixture(scope="module")
def client(own: Server) -> Iterator[openai.OpenAI]:
    made = openai.OpenAI(base_url=f"{own.url}/v1", api_key="any", max_retries=0, timeout=120)
    with closing(made):
        yield made


def _tokens(server: Server, text: str, model: str = MODEL) -> list[int]:
    body = {"model": model, "prompt": text, "add_special_tokens": False}
    return list(server.client.post("/v1/tokenize", json=body).raise_for_status().json()["tokens"])


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


def test_a_parsed_reply_that_comes_in_pieces(client: openai.OpenAI) -> None:
    body: dict[str, Any] = GREEDY | {"max_tokens": 64}
    with client.chat.completions.stream(messages=SKY, response_format=Person, **body) as stream:
        halves = [event.parsed for event in stream if event.type == "content.delta"]
        final = stream.get_final_completion()
    assert isinstance(final.choices[0].message.parsed, Person)
    assert len(halves) > 2 and isinstance(halves[-1], dict) and halves[-1]["kind"] == "person"


def test_json_choices_and_bias(client: openai.OpenAI, own: Server) -> None:
    body: dict[str, Any] = GREEDY | {"max_tokens": 48, "response_format": {"type": "json_object"}}
    said = client.chat.completions.create(messages=SKY, **body).choices[0].message.content
    assert said is not None and said.startswith("{")
    several = client.chat.completions.create(messages=SKY, n=3, **GREEDY | {"temperature": 1})
    assert [choice.index for choice in several.choices] == [0, 1, 2]
    (comma,) = _tokens(own, ",")
    biased = client.chat.completions.create(messages=SKY, logit_bias={str(comma): 100}, **GREEDY)
    assert biased.choices[0].message.content == 8 * ","


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


def test_tools_that_are_classes(client: openai.OpenAI) -> None:
    """The library parses arguments by the class that the tool was made of."""
    tools: list[Any] = [openai.pydantic_function_tool(Person)]
    body: dict[str, Any] = GREEDY | {
        "max_tokens": 64,
        "model": "tools",
        "tools": tools,
        "tool_choice": "required",
    }
    reply = client.chat.completions.parse(messages=SKY, **body)
    (call,) = reply.choices[0].message.tool_calls or []
    assert isinstance(call.function.parsed_arguments, Person)
    with client.chat.completions.stream(messages=SKY, **body) as stream:
        done = [event for event in stream if event.type == "tool_calls.function.arguments.done"]
    assert [type(event.parsed_arguments) for event in done] == [Person]


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


def test_the_helper_for_streamed_responses(client: openai.OpenAI) -> None:
    tool: Any = {"type": "function", **WEATHER["function"]}  # type: ignore[dict-item]
    body: dict[str, Any] = {"temperature": 0, "max_output_tokens": 64, "input": "Weather in Paris?"}
    with client.responses.stream(model="tools", tools=[tool], tool_choice="required", **body) as calling:
        pieces = [event.delta for event in calling if event.type == "response.function_call_arguments.delta"]
        (call,) = [item for item in calling.get_final_response().output if item.type == "function_call"]
    assert "".join(pieces) == call.arguments
    with client.responses.stream(model=MODEL, text_format=Person, **body) as writing:
        final = writing.get_final_response()
    assert isinstance(final.output_parsed, Person)


def test_asynchronous_responses(own: Server) -> None:
    async def told() -> tuple[str, list[str]]:
        body: dict[str, Any] = {"model": MODEL, "input": "Hi", "temperature": 0, "max_output_tokens": 4}
        async with openai.AsyncOpenAI(base_url=f"{own.url}/v1", api_key="any", timeout=120) as client:
            whole = await client.responses.create(**body)
            return whole.output_text, [
                event.type async for event in await client.responses.create(stream=True, **body)
            ]

    text, kinds = asyncio.run(told())
    assert text and (kinds[0], kinds[-1]) == ("response.created", "response.incomplete")


def test_completions(client: openai.OpenAI, own: Server) -> None:
    reply = client.completions.create(prompt=["a", "b"], **GREEDY)
    assert [choice.index for choice in reply.choices] == [0, 1] and reply.choices[0].text
    chunks = list(client.completions.create(prompt="a", stream=True, **GREEDY))
    assert "".join(chunk.choices[0].text for chunk in chunks)
    echoed = client.completions.create(prompt=_tokens(own, "The sky"), echo=True, best_of=2, **GREEDY)
    assert echoed.choices[0].text.startswith("The sky") and len(echoed.choices) == 1
    likely = client.completions.create(prompt="a", logprobs=2, **GREEDY).choices[0].logprobs
    assert likely is not None and len(likely.tokens or []) == 8
    assert {len(found) for found in likely.top_logprobs or []} == {2}
    filled = client.completions.create(prompt="def f(", suffix="return 1", **GREEDY | {"model": "filler"})
    assert filled.choices[0].text and filled.usage is not None


def test_embeddings(client: openai.OpenAI, own: Server) -> None:
    """The client asks for base64 unless it is told otherwise."""
    packed = client.embeddings.create(model="tinybert", input=["good sky", "blue"])
    plain = client.embeddings.create(model="tinybert", input=["good sky", "blue"], encoding_format="float")
    assert np.allclose([item.embedding for item in packed.data], [item.embedding for item in plain.data])
    assert packed.usage.prompt_tokens > 0
    words = _tokens(own, "good sky", "tinybert")
    short = client.embeddings.create(model="tinybert", input=words, dimensions=8).data[0].embedding
    start = np.array(plain.data[0].embedding[:8])
    assert np.allclose(short, start / np.linalg.norm(start), atol=1e-5)


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

"""Which class of the official Python clients an error becomes, where it takes more than a wrong request to have one."""

from __future__ import annotations

import asyncio
from collections.abc import Iterator
from contextlib import closing
from typing import Any

import anthropic
import openai
import pytest

from tests.backends.remote_kit import Upstream, events, in_thread, reply
from tests.backends.remote_kit import openai as another_server
from tests.conftest import MODEL, Server
from tests.frontends.conftest import create

SKY: list[Any] = [{"role": "user", "content": "Why is the sky blue?"}]
ELSEWHERE = "svc/m"
"""A model of a server that we can have say anything."""
PATH = "/v1/chat/completions"


@pytest.fixture(scope="module")
def service() -> Iterator[Upstream]:
    with in_thread(another_server()) as running:
        yield running


@pytest.fixture(scope="module")
def own(service: Upstream, tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    """A server that holds one model at a time, lets one request wait for another, and cuts no prompt."""
    running = Server(
        tmp_path_factory.mktemp("errors"),
        CORECTL_REMOTES=f"svc={service.url}/v1",
        OLLAMA_MAX_LOADED_MODELS="1",
        OLLAMA_MAX_QUEUE="0",
        CORECTL_STRICT_CONTEXT="1",
    )
    create(running, "second", **{"from": MODEL}, system="Be brief.")
    yield running
    assert running.stop() == 0, running.log


@pytest.fixture(scope="module")
def ours(own: Server) -> Iterator[openai.OpenAI]:
    with closing(openai.OpenAI(base_url=f"{own.url}/v1", api_key="any", max_retries=0, timeout=120)) as made:
        yield made


@pytest.fixture(scope="module")
def theirs(own: Server) -> Iterator[anthropic.Anthropic]:
    http = anthropic.DefaultHttpxClient(trust_env=False)
    with anthropic.Anthropic(base_url=own.url, api_key="any", max_retries=0, http_client=http) as made:
        yield made


@pytest.mark.parametrize("stream", [False, True])
def test_a_rate_limit_of_another_server(
    service: Upstream, ours: openai.OpenAI, theirs: anthropic.Anthropic, stream: bool
) -> None:
    service.on(PATH, reply({"error": {"message": "slow down"}}, 429))
    with pytest.raises(openai.RateLimitError, match="slow down") as limited:
        ours.chat.completions.create(model=ELSEWHERE, messages=SKY, stream=stream)
    assert (limited.value.status_code, limited.value.type) == (429, "rate_limit_error")
    with pytest.raises(openai.RateLimitError, match="slow down"):
        ours.responses.create(model=ELSEWHERE, input="Hi", stream=stream)
    with pytest.raises(anthropic.RateLimitError, match="slow down") as told:
        theirs.messages.create(model=ELSEWHERE, max_tokens=8, messages=SKY, stream=stream)
    assert told.value.type == "rate_limit_error"


def test_a_client_waits_for_a_rate_limit_and_asks_again(service: Upstream, ours: openai.OpenAI) -> None:
    said = {"choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": "stop"}]}
    service.on(PATH, reply({"error": {"message": "slow down"}}, 429), events(said))
    patient = ours.with_options(max_retries=1)
    answer = patient.chat.completions.create(model=ELSEWHERE, messages=SKY)
    assert answer.choices[0].message.content == "Hello"


def test_an_error_in_the_middle_of_a_stream(
    service: Upstream, ours: openai.OpenAI, theirs: anthropic.Anthropic
) -> None:
    """The classes are those without a status: it was 200."""
    said = {"choices": [{"index": 0, "delta": {"content": "Hello"}, "finish_reason": None}]}
    service.on(PATH, events(said, {"error": {"message": "out of breath"}}))
    pieces = []
    with pytest.raises(openai.APIError, match="out of breath"):
        for chunk in ours.chat.completions.create(model=ELSEWHERE, messages=SKY, stream=True):
            pieces += [choice.delta.content for choice in chunk.choices]
    assert pieces == ["Hello"]
    with (
        pytest.raises(anthropic.APIError, match="out of breath"),
        theirs.messages.stream(model=ELSEWHERE, max_tokens=8, messages=SKY) as stream,
    ):
        pieces += list(stream.text_stream)
    last = list(ours.responses.create(model=ELSEWHERE, input="Hi", stream=True))[-1]
    assert last.type == "response.failed"
    assert last.response.error is not None and "out of breath" in last.response.error.message


def test_a_prompt_that_is_too_long(ours: openai.OpenAI, theirs: anthropic.Anthropic) -> None:
    messages: list[Any] = [{"role": "user", "content": "word " * 600}]
    strict: dict[str, Any] = {"extra_body": {"num_ctx": 256}}
    with pytest.raises(openai.BadRequestError) as long:
        ours.chat.completions.create(model=MODEL, messages=messages, **strict)
    assert long.value.code == "context_length_exceeded"
    with pytest.raises(anthropic.BadRequestError) as too:
        theirs.messages.create(model=MODEL, max_tokens=8, messages=messages, **strict)
    assert too.value.type == "invalid_request_error"


def test_what_cannot_be_done_is_not_tried_again(ours: openai.OpenAI) -> None:
    with pytest.raises(openai.InternalServerError) as refused:
        ours.with_options(max_retries=2).embeddings.create(model=MODEL, input="Hi")
    assert (refused.value.status_code, refused.value.code) == (501, "not_supported")
    # The error is that of the last try, and the library counts its tries there.
    assert refused.value.request.headers["x-stainless-retry-count"] == "0"


def test_a_full_queue(own: Server) -> None:
    """While one model works, one request for another may wait, and no more."""

    said = own.client.post("/v1/tokenize", json={"model": MODEL, "prompt": ",", "add_special_tokens": False})
    (comma,) = said.json()["tokens"]

    async def fill() -> tuple[BaseException | None, anthropic.APIStatusError, Any]:
        async with (
            openai.AsyncOpenAI(base_url=f"{own.url}/v1", api_key="any", max_retries=0) as ours,
            anthropic.AsyncAnthropic(base_url=own.url, api_key="any", max_retries=0) as theirs,
        ):
            endless: Any = {"max_tokens": 100_000, "logit_bias": {comma: 100}}
            stream = await ours.chat.completions.create(model=MODEL, messages=SKY, stream=True, **endless)
            await anext(aiter(stream))
            body: dict[str, Any] = {"model": "second", "max_tokens": 2, "messages": SKY}
            # The one that comes first waits; which is that, the network says.
            both = [asyncio.create_task(ours.chat.completions.create(**body)) for _ in range(2)]
            (done,), (waiting,) = await asyncio.wait(both, return_when=asyncio.FIRST_COMPLETED)
            with pytest.raises(anthropic.APIStatusError) as told:
                await theirs.messages.create(**body)
            await stream.close()
            return done.exception(), told.value, await waiting

    error, told, answer = asyncio.run(fill())
    assert isinstance(error, openai.InternalServerError)
    assert (error.status_code, error.code) == (503, "busy")
    assert int(error.response.headers["retry-after"]) >= 1
    assert told.status_code == 503 and told.type == "overloaded_error"
    assert answer.choices[0].finish_reason == "length"

"""Large requests and replies of OpenAI's and Anthropic's APIs: what goes through all of them is beside the loop."""

from __future__ import annotations

import asyncio
import importlib
import threading
from array import array
from types import SimpleNamespace
from typing import Any, cast

import msgspec
import pytest

from corectl.config import Settings
from corectl.messages import Message, Vectors
from corectl.server.apart import INLINE
from corectl.testing.asgi import Mounted
from corectl_anthropic import AnthropicFrontend
from corectl_openai import OpenAiFrontend
from corectl_openai import embeddings as embeddings_module
from corectl_openai import responses as responses_module
from corectl_openai.embeddings import AskedEmbeddings, embeddings
from corectl_openai.memory import Conversations, encoded
from corectl_openai.responses import read_response, respond
from corectl_openai.schema import EmbeddingsRequest, ResponsesRequest

TOKENS = list(range(INLINE // 4))
MESSAGES = [{"role": "user", "content": "x" * 100}] * (INLINE // 100)
ITEMS = [{"type": "message", **message} for message in MESSAGES]
REQUESTS: dict[str, tuple[str, dict[str, Any], dict[str, Any]]] = {
    "/v1/chat/completions": (
        "corectl_openai.chat.read_messages",
        {"messages": MESSAGES[:1]},
        {"messages": MESSAGES},
    ),
    "/v1/completions": ("corectl_openai.completions.read_inputs", {"prompt": "a"}, {"prompt": TOKENS}),
    "/v1/embeddings": ("corectl_openai.embeddings.read_inputs", {"input": "a"}, {"input": TOKENS}),
    "/v1/rerank": (
        "corectl_openai.rerank.read_documents",
        {"query": "q", "documents": ["a"]},
        {"query": "q", "documents": ["a" * 100] * (INLINE // 100)},
    ),
    "/v1/responses": ("corectl_openai.responses.read_items", {"input": ITEMS[:1]}, {"input": ITEMS}),
    "/v1/messages": (
        "corectl_anthropic.asked.conversation",
        {"max_tokens": 1, "messages": MESSAGES[:1]},
        {"max_tokens": 1, "messages": MESSAGES},
    ),
    "/v1/messages/count_tokens": (
        "corectl_anthropic.asked.conversation",
        {"messages": MESSAGES[:1]},
        {"messages": MESSAGES},
    ),
}


SERVICES: Any = SimpleNamespace(settings=Settings())


@pytest.fixture(scope="module")
def mounted(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Mounted]:
    """Servers without models: requests end where theirs is looked up."""
    folder = tmp_path_factory.mktemp("store")
    return {
        kind.name: Mounted(kind, folder, SERVICES.settings.max_body)
        for kind in (OpenAiFrontend(), AnthropicFrontend())
    }


def noted(monkeypatch: pytest.MonkeyPatch, name: str) -> list[bool]:
    """Whether each call of a function was in the event loop."""
    where, _, function = name.rpartition(".")
    module, calls = importlib.import_module(where), []
    real = getattr(module, function)

    def call(*args: Any, **kwargs: Any) -> Any:
        calls.append(threading.current_thread() is threading.main_thread())
        return real(*args, **kwargs)

    monkeypatch.setattr(module, function, call)
    return calls


@pytest.mark.parametrize("path", REQUESTS)
def test_large_requests_are_read_beside_the_loop(
    mounted: dict[str, Mounted], monkeypatch: pytest.MonkeyPatch, path: str
) -> None:
    function, small, large = REQUESTS[path]
    server = mounted["anthropic" if "anthropic" in function else "openai"]
    calls = noted(monkeypatch, function)
    decoded = noted(monkeypatch, "corectl.server.body.decode")
    for body, in_loop in ((small, True), (large, False)):
        answer = server.ask("POST", path, msgspec.json.encode({"model": "nope", **body}))
        assert answer.status == 404, answer.body
        assert (calls, decoded) == ([in_loop], [in_loop])
        calls.clear()
        decoded.clear()


@pytest.mark.parametrize(("length", "in_loop"), [(10, True), (INLINE, False)])
def test_long_conversations_are_gone_on_with_beside_the_loop(
    monkeypatch: pytest.MonkeyPatch, length: int, in_loop: bool
) -> None:
    memory = Conversations()
    memory.keep("resp_1", encoded([Message(role="user", content="x" * length)]), {})
    asked = read_response(ResponsesRequest(model="nope", input="And?", previous_response_id="resp_1"), memory)
    calls = noted(monkeypatch, "corectl_openai.responses.decoded")

    async def sought(request: Any, services: Any, name: str, *_: Any) -> Any:
        raise LookupError(name)

    monkeypatch.setattr(responses_module, "read_with_images", sought)
    with pytest.raises(LookupError):
        asyncio.run(respond(cast(Any, SimpleNamespace(headers={}, state={})), SERVICES, memory, asked))
    assert calls == [in_loop]


@pytest.mark.parametrize("packed", [True, False])
@pytest.mark.parametrize(("count", "in_loop"), [(1, True), (INLINE // 64, False)])
def test_many_vectors_are_written_beside_the_loop(
    monkeypatch: pytest.MonkeyPatch, count: int, in_loop: bool, packed: bool
) -> None:
    vectors = Vectors(data=array("f", [0.5] * 32 * count).tobytes(), size=32, prompt_tokens=1)

    async def computed(*_: Any) -> Vectors:
        return vectors

    async def connected(_: Any, work: Any) -> Any:
        return await work

    monkeypatch.setattr(embeddings_module, "_vectors", computed)
    monkeypatch.setattr(embeddings_module, "while_connected", connected)
    calls = noted(monkeypatch, "corectl_openai.embeddings.reply")
    asked = AskedEmbeddings(body=EmbeddingsRequest(model="m"), inputs=["a"] * count, packed=packed)
    answer = asyncio.run(embeddings(cast(Any, None), SERVICES, asked))
    assert len(msgspec.json.decode(answer.content)["data"]) == count
    assert calls == [in_loop]

"""OpenAI's protocol: vLLM, llama-server, LM Studio, TGI, and services on the net."""

from __future__ import annotations

import asyncio
import math
import time
from collections.abc import Sequence
from datetime import UTC, datetime
from typing import Any

import msgspec

from corectl.errors import NotFound
from corectl.messages import (
    Completion,
    Detokenize,
    Embedding,
    Rendered,
    Rerank,
    Scores,
    Text,
    Tokenize,
    Tokens,
    Vectors,
)
from corectl.remote.backend import RemoteEntry
from corectl_remote.native_reply import Number
from corectl_remote.openai_reply import OpenAiReader, WireUsage
from corectl_remote.openai_request import OpenAiRequest
from corectl_remote.vectors import scores_of, vectors_of
from corectl_remote.wire import Api, Asked, Target, count, given_load

ASSUMED = ("completion", "tools")
"""What a model can do, as far as anybody can say: the protocol does not tell."""

LIST_SECONDS = 4.0
_DAY = 86400


class WireMeta(msgspec.Struct):
    """What llama-server says of a model."""

    n_ctx_train: Number = None
    n_embd: Number = None


class WireModel(msgspec.Struct):
    id: str
    owned_by: str | None = None
    created: Number = None
    max_model_len: Number = None
    meta: WireMeta | None = None


class WireModels(msgspec.Struct):
    data: list[WireModel] | None


class WireEmbedding(msgspec.Struct):
    embedding: list[float]
    index: int = 0


class WireEmbeddings(msgspec.Struct):
    data: list[WireEmbedding]
    usage: WireUsage | None = None


class WireResult(msgspec.Struct):
    """Services disagree about the name of the score."""

    index: int
    relevance_score: float | None = None
    score: float | None = None


class WireResults(msgspec.Struct):
    results: list[WireResult]
    usage: WireUsage | None = None


models_decoder = msgspec.json.Decoder(WireModels)
_embeddings = msgspec.json.Decoder(WireEmbeddings)
_results = msgspec.json.Decoder(WireResults)


class OpenAi:
    """See `corectl_remote.wire.Wire`. `root` is the path of the protocol, such as `/v1`."""

    def __init__(self, api: Api, root: str, found: WireModels) -> None:
        self._api = api
        self._root = root
        self._owners: dict[str, str] = {}
        self._note(found)

    @property
    def name(self) -> str:
        known = {"vllm": " (vLLM)", "llamacpp": " (llama-server)"}
        return "OpenAI's protocol" + next(
            (known[owner] for owner in self._owners.values() if owner in known), ""
        )

    async def models(self) -> Sequence[RemoteEntry]:
        found = await self._api.get(f"{self._root}/models", models_decoder, seconds=LIST_SECONDS)
        self._note(found)
        return [_entry(model) for model in found.data or ()]

    async def describe(self, model: str) -> RemoteEntry:
        found = next((entry for entry in await self.models() if entry.id == model), None)
        if found is None:
            raise NotFound(f"remote server {self._api.server.label}: there is no model {model!r}")
        return found

    def complete(self, target: Target, request: Completion) -> Asked:
        asked = OpenAiRequest(self._api, target, request, owner=self._owners.get(target.model, ""))
        server = self._api.server
        return Asked(
            self._root + asked.path, asked.body, lambda emit: OpenAiReader(server, emit, asked.notices)
        )

    async def render(self, target: Target, request: Completion) -> Rendered:
        raise self._api.cannot("cannot show prompts")

    async def embed(self, target: Target, request: Embedding) -> Vectors:
        if request.template:
            raise self._api.cannot("puts no template around texts to embed; leave out TEMPLATE")
        self._refuse_options(target)
        body: dict[str, Any] = {"model": target.model, "input": request.inputs, "encoding_format": "float"}
        if request.dimensions:
            body["dimensions"] = request.dimensions
        found = await self._api.post(f"{self._root}/embeddings", body, _embeddings)
        rows = sorted(found.data, key=lambda item: item.index)
        # Many vectors take a while.
        return await asyncio.to_thread(
            vectors_of,
            self._api.server,
            [row.embedding for row in rows],
            len(request.inputs),
            prompt_tokens=_prompt_tokens(found.usage),
        )

    async def rerank(self, target: Target, request: Rerank) -> Scores:
        self._refuse_options(target)
        body = {"model": target.model, "query": request.query, "documents": request.documents}
        found = await self._api.post(f"{self._root}/rerank", body, _results)
        return scores_of(
            self._api.server,
            [(item.index, self._score(target, item)) for item in found.results],
            len(request.documents),
            prompt_tokens=_prompt_tokens(found.usage),
        )

    async def tokenize(self, target: Target, request: Tokenize) -> Tokens:
        raise self._api.cannot("does not show tokens")

    async def detokenize(self, target: Target, request: Detokenize) -> Text:
        raise self._api.cannot("does not show tokens")

    async def load(self, target: Target) -> None:
        """There is no word for it: such servers load their models when they start, or when they are needed."""

    async def unload(self, model: str) -> None:
        """Nor for that."""

    def _note(self, found: WireModels) -> None:
        self._owners = {model.id: model.owned_by or "" for model in found.data or ()}

    def _refuse_options(self, target: Target) -> None:
        """These replies have no place for a notice."""
        for option in given_load(target.options):
            raise self._api.cannot(f"does not take the option {option}; leave it out")

    def _score(self, target: Target, item: WireResult) -> float:
        """From 0 to 1; llama-server gives what the model has computed before that."""
        found = item.relevance_score if item.relevance_score is not None else item.score
        if found is None:
            raise self._api.cannot("does not say how relevant documents are")
        if self._owners.get(target.model) == "llamacpp":
            return 1 / (1 + math.exp(-max(min(found, 500.0), -500.0)))
        return found


def _prompt_tokens(usage: WireUsage | None) -> int:
    return count(usage.prompt_tokens) if usage is not None else 0


def _entry(model: WireModel) -> RemoteEntry:
    meta = model.meta or WireMeta()
    created = model.created or 0
    # Some servers give the time of the question.
    dated = 0 < created < time.time() - _DAY
    return RemoteEntry(
        id=model.id,
        context_length=count(model.max_model_len) or count(meta.n_ctx_train),
        embedding_length=count(meta.n_embd),
        capabilities=ASSUMED,
        modified_at=datetime.fromtimestamp(created, UTC) if dated else None,
    )

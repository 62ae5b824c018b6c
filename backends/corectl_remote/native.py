"""The native API: another corectl, or Ollama."""

from __future__ import annotations

import asyncio
import re
from collections.abc import Sequence
from datetime import datetime
from typing import Any

import msgspec

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
from corectl_remote.native_reply import NativeReader, Number, WireFit
from corectl_remote.native_request import NativeRequest, target_words
from corectl_remote.vectors import scores_of, vectors_of
from corectl_remote.wire import Api, Asked, Target, count

_HEX = re.compile(r"[0-9a-f]{64}")


class WireVersion(msgspec.Struct):
    """Servers that know no such path may answer it with a 200 and an error."""

    version: str
    corectl: str | None = None


class WireDetails(msgspec.Struct):
    format: str | None = None
    family: str | None = None
    parameter_size: str | None = None
    quantization_level: str | None = None
    context_length: Number = None
    embedding_length: Number = None


class WireTag(msgspec.Struct):
    """An entry of the list of models."""

    name: str
    modified_at: str | None = None
    digest: str | None = None
    details: WireDetails | None = None
    capabilities: list[str] | None = None


class WireTags(msgspec.Struct):
    models: list[WireTag] | None = None


class WireShow(msgspec.Struct):
    details: WireDetails | None = None
    model_info: dict[str, Any] | None = None
    capabilities: list[str] | None = None


class WireVectors(msgspec.Struct):
    embeddings: list[list[float]]
    prompt_eval_count: Number = None
    dropped_tokens: Number = None


class WireResult(msgspec.Struct):
    index: int
    relevance_score: float


class WireScores(msgspec.Struct):
    results: list[WireResult]
    prompt_eval_count: Number = None
    dropped_tokens: Number = None


class WireTokens(msgspec.Struct):
    tokens: list[int]


class WireText(msgspec.Struct):
    text: str


class WireRendered(msgspec.Struct):
    prompt: str
    prompt_eval_count: Number = None
    context_fit: WireFit | None = None
    image_count: Number = None


version_decoder = msgspec.json.Decoder(WireVersion)
_tags = msgspec.json.Decoder(WireTags)
_show = msgspec.json.Decoder(WireShow)
_vectors = msgspec.json.Decoder(WireVectors)
_scores = msgspec.json.Decoder(WireScores)
_tokens = msgspec.json.Decoder(WireTokens)
_text = msgspec.json.Decoder(WireText)
_rendered = msgspec.json.Decoder(WireRendered)
_anything = msgspec.json.Decoder(msgspec.Raw)

LIST_SECONDS = 4.0
DESCRIBE_SECONDS = 4.0


class Native:
    """See `corectl_remote.wire.Wire`. `found` says which server it is, and each list of models says it anew."""

    def __init__(self, api: Api, found: WireVersion) -> None:
        self._api = api
        self._found = found

    @property
    def name(self) -> str:
        found = self._found
        server = f"corectl {found.corectl}" if found.corectl else f"Ollama {found.version}"
        return f"the native API ({server})"

    @property
    def _corectl(self) -> bool:
        """An Ollama passes over what only a corectl knows, so it must never get that."""
        return bool(self._found.corectl)

    async def models(self) -> Sequence[RemoteEntry]:
        found = await self._api.get("/api/tags", _tags, seconds=LIST_SECONDS)
        self._found = await self._api.get("/api/version", version_decoder, seconds=LIST_SECONDS)
        return [_entry(tag) for tag in found.models or ()]

    async def describe(self, model: str) -> RemoteEntry:
        found = await self._api.post("/api/show", {"model": model}, _show, seconds=DESCRIBE_SECONDS)
        entry = _described(model, found.details or WireDetails(), found.capabilities)
        info = found.model_info or {}
        lengths = {
            key: count(value)
            for key in ("context_length", "embedding_length")
            if isinstance(value := info.get(f"{entry.family}.{key}"), int | float)
        }
        return msgspec.structs.replace(entry, **lengths)

    def complete(self, target: Target, request: Completion) -> Asked:
        asked = NativeRequest(self._api, target, request, corectl=self._corectl)
        server = self._api.server
        return Asked(
            asked.path, asked.body | {"stream": True}, lambda emit: NativeReader(server, emit, asked.notices)
        )

    async def render(self, target: Target, request: Completion) -> Rendered:
        self._only_corectl("cannot show prompts")
        asked = NativeRequest(self._api, target, request, corectl=True)
        found = await self._api.post("/api/render", asked.body, _rendered)
        return Rendered(
            text=found.prompt,
            prompt_tokens=count(found.prompt_eval_count),
            fit=(found.context_fit or WireFit()).fit(),
            images=count(found.image_count),
        )

    async def embed(self, target: Target, request: Embedding) -> Vectors:
        if request.template:
            raise self._api.cannot("puts no template around texts to embed; leave out TEMPLATE")
        body = target_words(target) | {"input": request.inputs, "truncate": request.truncate}
        if request.dimensions:
            body["dimensions"] = request.dimensions
        found = await self._api.post("/api/embed", body, _vectors)
        # Many vectors take a while.
        return await asyncio.to_thread(
            vectors_of,
            self._api.server,
            found.embeddings,
            len(request.inputs),
            prompt_tokens=count(found.prompt_eval_count),
            dropped_tokens=count(found.dropped_tokens),
        )

    async def rerank(self, target: Target, request: Rerank) -> Scores:
        self._only_corectl("has no reranking")
        body = target_words(target) | msgspec.structs.asdict(request)
        found = await self._api.post("/api/rerank", body, _scores)
        pairs = [(item.index, item.relevance_score) for item in found.results]
        return scores_of(
            self._api.server,
            pairs,
            len(request.documents),
            prompt_tokens=count(found.prompt_eval_count),
            dropped_tokens=count(found.dropped_tokens),
        )

    async def tokenize(self, target: Target, request: Tokenize) -> Tokens:
        self._only_corectl("does not show tokens")
        body = target_words(target) | msgspec.structs.asdict(request)
        found = await self._api.post("/api/tokenize", body, _tokens)
        return Tokens(tokens=tuple(found.tokens))

    async def detokenize(self, target: Target, request: Detokenize) -> Text:
        self._only_corectl("does not show tokens")
        body = target_words(target) | msgspec.structs.asdict(request)
        return Text(text=(await self._api.post("/api/detokenize", body, _text)).text)

    async def load(self, target: Target) -> None:
        await self._api.post("/api/generate", target_words(target) | {"stream": False}, _anything)

    async def unload(self, model: str) -> None:
        body = {"model": model, "keep_alive": 0, "stream": False}
        await self._api.post("/api/generate", body, _anything)

    def _only_corectl(self, what: str) -> None:
        if not self._corectl:
            raise self._api.cannot(what)


def _entry(tag: WireTag) -> RemoteEntry:
    entry = _described(tag.name, tag.details or WireDetails(), tag.capabilities)
    digest = tag.digest if tag.digest and _HEX.fullmatch(tag.digest) else ""
    return msgspec.structs.replace(entry, digest=digest, modified_at=_time(tag.modified_at))


def _described(model: str, details: WireDetails, capabilities: list[str] | None) -> RemoteEntry:
    return RemoteEntry(
        id=model,
        format=details.format or "",
        family=details.family or "",
        parameter_size=details.parameter_size or "",
        quantization=details.quantization_level or "",
        context_length=count(details.context_length),
        embedding_length=count(details.embedding_length),
        capabilities=None if capabilities is None else tuple(capabilities),
    )


def _time(text: str | None) -> datetime | None:
    try:
        found = msgspec.convert(text, datetime) if text else None
    except msgspec.ValidationError:
        return None
    # Times are compared with those of models here, and shown in other zones, which ends at the ends of the calendar.
    return found if found is not None and found.tzinfo is not None and 1970 <= found.year < 9000 else None

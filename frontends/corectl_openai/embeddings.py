"""POST /v1/embeddings, and POST /v1/tokenize, which is an addition of ours."""

from __future__ import annotations

import sys
from array import array
from base64 import b64encode
from typing import Any

import msgspec
from litestar import Response

from corectl.messages import Embedding, Tokenize, Tokens, Vectors
from corectl.output.vectors import json_rows
from corectl.server.apart import apart
from corectl.server.asking import asking
from corectl.server.body import AnyRequest
from corectl.server.context import Clock
from corectl.server.services import Services, require_name
from corectl.server.watch import while_connected
from corectl_openai.asked import load_options, read_keep_alive
from corectl_openai.completions import detokenized
from corectl_openai.errors import WrongField
from corectl_openai.inputs import Input, read_inputs
from corectl_openai.objects import EmbeddingObject, EmbeddingsReply, InputUsage, TokenizeReply
from corectl_openai.replies import reply
from corectl_openai.schema import EmbeddingsRequest, TokenizeRequest


class AskedEmbeddings(msgspec.Struct, frozen=True, kw_only=True):
    """A request as far as it is read without its model. `packed` says that base64 is wanted."""

    body: EmbeddingsRequest
    inputs: list[Input]
    packed: bool


def read_embeddings(body: EmbeddingsRequest) -> AskedEmbeddings:
    """Checks what needs no model. Raises `BadRequest`."""
    require_name(body.model)
    inputs = read_inputs(body.input, "input")
    if not inputs:
        raise WrongField("input", "invalid input")
    form = body.encoding_format.lower()
    if form not in ("float", "base64"):
        given = body.encoding_format[:64]
        raise WrongField(
            "encoding_format",
            f"Invalid value for 'encoding_format' = {given}. Supported values: ['float', 'base64'].",
        )
    return AskedEmbeddings(body=body, inputs=inputs, packed=form == "base64")


async def embeddings(request: AnyRequest, services: Services, asked: AskedEmbeddings) -> Response[Any]:
    vectors = await while_connected(request, _vectors(request, services, asked.body, asked.inputs))
    if asked.body.dimensions > vectors.size:
        raise WrongField("dimensions", f"dimensions: the vectors of this model have {vectors.size}")
    return await apart(len(vectors.data), lambda: reply(_object(vectors, asked)))


def _object(vectors: Vectors, asked: AskedEmbeddings) -> EmbeddingsReply:
    found: list[Any] = _base64(vectors) if asked.packed else json_rows(vectors)
    return EmbeddingsReply(
        data=[EmbeddingObject(embedding=vector, index=index) for index, vector in enumerate(found)],
        model=asked.body.model,
        usage=InputUsage(
            prompt_tokens=vectors.prompt_tokens,
            total_tokens=vectors.prompt_tokens,
            dropped_tokens=vectors.dropped_tokens,
        ),
    )


async def _vectors(
    request: AnyRequest, services: Services, body: EmbeddingsRequest, inputs: list[Input]
) -> Vectors:
    options, keep_alive = load_options(request, body), read_keep_alive(body)
    if not all(isinstance(item, str) for item in inputs):
        inputs = [*await detokenized(services, body.model, inputs, "input", options, keep_alive)]
    async with asking(services, Clock(), body.model, options=options, keep_alive=keep_alive) as found:
        record, runner = found
        return await runner.embed(
            Embedding(
                inputs=tuple(map(str, inputs)),
                template=services.embedding_template(record),
                truncate=not services.settings.strict_context,
                dimensions=body.dimensions,
            )
        )


def _base64(vectors: Vectors) -> list[str]:
    """Each vector as little-endian floats of 32 bits, in base64."""
    values = array("f", vectors.data)
    if sys.byteorder == "big":
        values.byteswap()
    data, size = values.tobytes(), 4 * vectors.size
    return [b64encode(data[at : at + size]).decode() for at in range(0, len(data), size or 1)]


async def tokenize(request: AnyRequest, services: Services, body: TokenizeRequest) -> Response[Any]:
    require_name(body.model)
    if body.prompt is None:
        raise WrongField("prompt", "prompt is required", "missing_required_parameter")
    work = Tokenize(text=body.prompt, add_special=body.add_special_tokens)
    options, keep_alive = load_options(request, body), read_keep_alive(body)

    async def ask() -> Tokens:
        async with asking(services, Clock(), body.model, options=options, keep_alive=keep_alive) as found:
            return await found[1].tokenize(work)

    tokens = (await while_connected(request, ask())).tokens
    return reply(TokenizeReply(model=body.model, tokens=tokens, count=len(tokens)))

"""What each route takes and gives; documents are made of it."""

from __future__ import annotations

from corectl.server.context import CONTEXT_HEADER, Count
from corectl.server.operation import FINDING, RUNNING, SSE, Operation, Stream
from corectl_openai import schema
from corectl_openai.errors import ErrorReply
from corectl_openai.objects import (
    ChatChunk,
    ChatCompletion,
    EmbeddingsReply,
    ModelObject,
    ModelsReply,
    TextChunk,
    TextCompletion,
    TokenizeReply,
)
from corectl_openai.rerank import RerankReply
from corectl_openai.response_objects import AnyResponseEvent, ResponseObject

HEADERS = {CONTEXT_HEADER: Count}

CHAT = Operation(
    summary="Answers in a conversation",
    body=schema.ChatRequest,
    reply=ChatCompletion,
    stream=Stream(SSE, (ChatChunk, ErrorReply)),
    fails=RUNNING,
    headers=HEADERS,
)
COMPLETIONS = Operation(
    summary="Continues prompts",
    body=schema.CompletionRequest,
    reply=TextCompletion,
    stream=Stream(SSE, (TextChunk, ErrorReply)),
    fails=RUNNING,
    headers=HEADERS,
)
RESPONSES = Operation(
    summary="Answers in a conversation that may go on by its id",
    body=schema.ResponsesRequest,
    reply=ResponseObject,
    stream=Stream(SSE, AnyResponseEvent),
    fails=RUNNING,
    headers=HEADERS,
)
EMBEDDINGS = Operation(
    summary="Vectors of texts",
    body=schema.EmbeddingsRequest,
    reply=EmbeddingsReply,
    fails=RUNNING,
    headers=HEADERS,
)
RERANK = Operation(
    summary="Orders documents by their relevance to a query",
    body=schema.RerankRequest,
    reply=RerankReply,
    fails=RUNNING,
    headers=HEADERS,
)
TOKENIZE = Operation(
    summary="The tokens of a text",
    body=schema.TokenizeRequest,
    reply=TokenizeReply,
    fails=RUNNING,
    headers=HEADERS,
)
MODELS = Operation(summary="All models, newest first", reply=ModelsReply)
MODEL = Operation(summary="One model", reply=ModelObject, fails=(400, *FINDING))

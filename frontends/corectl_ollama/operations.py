"""What each route takes and gives; documents are made of it."""

from __future__ import annotations

from corectl.server.failures import Failure
from corectl.server.operation import FINDING, NDJSON, RUNNING, Operation, Stream
from corectl_ollama import schema
from corectl_ollama.account import NotSignedIn, StatusReply
from corectl_ollama.chat import ChatChunk, ChatDebug, ChatFinal, ChatLogprobChunk, ChatRemoteChunk
from corectl_ollama.embed import EmbeddingsReply, EmbedReply
from corectl_ollama.generate import (
    GenerateChunk,
    GenerateDebug,
    GenerateFinal,
    GenerateFullChunk,
    GenerateRemoteChunk,
)
from corectl_ollama.models import PsReply, ShowReply, TagsReply
from corectl_ollama.plan import PlanReply
from corectl_ollama.render import RenderReply
from corectl_ollama.replies import VersionReply
from corectl_ollama.rerank import RerankReply
from corectl_ollama.steps import WireProgress
from corectl_ollama.tokens import DetokenizeReply, TokenizeReply
from corectl_ollama.verify import VerifyReply

_STORING = (503, 507)
"""How what writes to the store fails: it is in use elsewhere, or the disk is full."""

_PROGRESS = Stream(NDJSON, (WireProgress, Failure))

ROOT = Operation(summary="Says that a server is there", reply=str)
ALIVE = Operation(summary="Says that a server is there")
VERSION = Operation(summary="The versions of the API and of the program", reply=VersionReply)
TAGS = Operation(summary="All models, newest first", reply=TagsReply)
PS = Operation(summary="The models in memory", reply=PsReply)
STATUS = Operation(summary="Whether there is a cloud: there is none", reply=StatusReply)
ME = Operation(summary="Who is signed in: nobody", reply=NotSignedIn, statuses=(401,))
SIGNOUT = Operation(summary="Signs out: nobody is signed in", statuses=(), fails=(401,))

SHOW = Operation(summary="All about a model", body=schema.ShowRequest, reply=ShowReply, fails=RUNNING)
PLAN = Operation(
    summary="Whether a model fits, and where it would go",
    body=schema.PlanRequest,
    reply=PlanReply,
    fails=RUNNING,
)
COPY = Operation(summary="Gives a model a second name", body=schema.CopyRequest, fails=(*FINDING, *_STORING))
DELETE = Operation(summary="Deletes a model", body=schema.DeleteRequest, fails=(*FINDING, *_STORING))
CREATE = Operation(
    summary="Makes a model",
    body=schema.CreateRequest,
    reply=WireProgress,
    stream=_PROGRESS,
    fails=(*RUNNING, *_STORING),
)
PULL = Operation(
    summary="Downloads a model",
    body=schema.TransferRequest,
    reply=WireProgress,
    stream=_PROGRESS,
    fails=(*RUNNING, *_STORING),
)
PUSH = Operation(
    summary="Uploads a model",
    body=schema.TransferRequest,
    reply=WireProgress,
    stream=_PROGRESS,
    fails=(*RUNNING, *_STORING),
)
VERIFY = Operation(
    summary="Reads the blobs of the store again",
    body=schema.VerifyRequest,
    reply=VerifyReply,
    stream=Stream(NDJSON, (WireProgress, VerifyReply, Failure)),
    fails=(*FINDING, *_STORING),
)
HEAD_BLOB = Operation(summary="Whether a blob is there", fails=(400, 404))
POST_BLOB = Operation(summary="Uploads a blob", body=bytes, statuses=(200, 201), fails=_STORING)

GENERATE = Operation(
    summary="Continues a prompt",
    body=schema.GenerateRequest,
    reply=(GenerateFinal, GenerateDebug),
    stream=Stream(NDJSON, (GenerateChunk, GenerateFullChunk, GenerateRemoteChunk, GenerateFinal, Failure)),
    fails=RUNNING,
)
CHAT = Operation(
    summary="Answers in a conversation",
    body=schema.ChatRequest,
    reply=(ChatFinal, ChatDebug),
    stream=Stream(NDJSON, (ChatChunk, ChatLogprobChunk, ChatRemoteChunk, ChatFinal, Failure)),
    fails=RUNNING,
)
RENDER = Operation(
    summary="The prompt that a request to generate or chat comes to",
    body=(schema.ChatRequest, schema.GenerateRequest),
    reply=RenderReply,
    fails=RUNNING,
)
EMBED = Operation(summary="Vectors of texts", body=schema.EmbedRequest, reply=EmbedReply, fails=RUNNING)
EMBEDDINGS = Operation(
    summary="The vector of a text, the older form",
    body=schema.EmbeddingsRequest,
    reply=EmbeddingsReply,
    fails=RUNNING,
)
RERANK = Operation(
    summary="Orders documents by their relevance to a query",
    body=schema.RerankRequest,
    reply=RerankReply,
    fails=RUNNING,
)
TOKENIZE = Operation(
    summary="The tokens of a text", body=schema.TokenizeRequest, reply=TokenizeReply, fails=RUNNING
)
DETOKENIZE = Operation(
    summary="The text of tokens", body=schema.DetokenizeRequest, reply=DetokenizeReply, fails=RUNNING
)

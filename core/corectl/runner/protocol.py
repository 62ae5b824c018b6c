"""The wire protocol between the server and a runner: length-prefixed msgpack frames over a Unix socket.

A frame is a 4-byte big-endian length and a msgpack value, an array whose first item names its kind. The first frame
to a runner is `Load`; a runner answers `Progress` frames and then `Ready` or `Failed` (id 0). After that, requests
and replies carry the request's id, and one `Steps` frame carries the output of all sequences in an engine step or a
few.
"""

from __future__ import annotations

import socket
from pathlib import Path
from typing import Any

import msgspec

from corectl import messages
from corectl.errors import BadRequest
from corectl.messages import Completion, Delta, Finish, Question, Started
from corectl.runner.engine import EngineInfo, ModelSpec, Placement
from corectl.runner.state import LoopState

HEADER = 4
MAX_FRAME = 2**30
"""Longer frames are refused: a peer that sends one is broken."""


class Load(msgspec.Struct, frozen=True, array_like=True, tag="load"):
    """Server to runner, once: what to load. `plugins` are the entry points that offer `backend` and the dialects."""

    plugins: tuple[str, ...]
    backend: str
    model: ModelSpec
    placement: Placement


class Complete(msgspec.Struct, frozen=True, array_like=True, tag="complete"):
    id: int
    request: Completion


class Ask(msgspec.Struct, frozen=True, array_like=True, tag="ask"):
    id: int
    question: Question


class Cancel(msgspec.Struct, frozen=True, array_like=True, tag="cancel"):
    """Server to runner: nobody reads this stream any more; nothing is answered."""

    id: int


class Share(msgspec.Struct, frozen=True, array_like=True, tag="share"):
    """Server to runner: how many of the machine's cores are its own, now that so many runners are at work."""

    cores: int


class Ping(msgspec.Struct, frozen=True, array_like=True, tag="ping"):
    """Server to runner: are you well? Answered by `Pong` from a thread that does not compute."""


class Pong(msgspec.Struct, frozen=True, array_like=True, tag="pong"):
    """Runner to server: for how many seconds the current step has been going on (0.0: nothing is computed)."""

    step_seconds: float


class Progress(msgspec.Struct, frozen=True, array_like=True, tag="progress"):
    """Runner to server while it loads, 0.0 to 1.0."""

    fraction: float


class Ready(msgspec.Struct, frozen=True, array_like=True, tag="ready"):
    info: EngineInfo


class Computed(msgspec.Struct, frozen=True, array_like=True):
    """One engine step: how many sequences and tokens it computed.

    `gap` is the time in seconds since the step that gave output before it, if both did and a sequence went on from one
    to the other; else 0.0.
    """

    sequences: int
    tokens: int
    gap: float = 0.0


class Steps(msgspec.Struct, frozen=True, array_like=True, tag="steps"):
    """What the engine steps since the last such frame gave: the output by request id, and how the loop is now."""

    computed: list[Computed]
    deltas: list[tuple[int, list[Delta]]]
    finished: list[tuple[int, Finish]]
    state: LoopState = LoopState()


class Answer(msgspec.Struct, frozen=True, array_like=True, tag="answer"):
    """The whole reply to a request that is not streamed, or the `Started` of one that is."""

    id: int
    value: messages.Answer | Started


class Failed(msgspec.Struct, frozen=True, array_like=True, tag="failed"):
    """One request failed (or the load, id 0); `code` is that of `corectl.errors`."""

    id: int
    code: str
    message: str


ToRunner = Load | Complete | Ask | Cancel | Share | Ping
ToServer = Progress | Ready | Steps | Answer | Failed | Pong


def _from_text(kind: type, text: Any) -> Any:
    if kind is Path:
        return Path(text)
    raise NotImplementedError(f"no {kind} in the protocol")


# Paths are the only values that msgpack does not know; they travel as text.
_encoder = msgspec.msgpack.Encoder(enc_hook=str)
to_runner = msgspec.msgpack.Decoder(ToRunner, dec_hook=_from_text)
to_server = msgspec.msgpack.Decoder(ToServer, dec_hook=_from_text)


def frame(value: ToRunner | ToServer) -> bytes:
    """A value as it goes over the wire. Safe to call from any thread.

    Raises `BadRequest` for a number too large, and for what is nested too deeply.
    """
    buffer = bytearray(HEADER)
    try:
        _encoder.encode_into(value, buffer, HEADER)
    except (OverflowError, UnicodeEncodeError):
        buffer[HEADER:] = _encoder.encode(_encodable(value))
    except RecursionError:
        raise BadRequest("what is sent to the model is nested too deeply") from None
    buffer[:HEADER] = (len(buffer) - HEADER).to_bytes(HEADER, "big")
    return bytes(buffer)


def _encodable(value: ToRunner | ToServer) -> Any:
    """A value that msgpack has: larger whole numbers, which JSON allows in tools, become floating point.

    Halves of surrogate pairs, which templates and models can write, become U+FFFD.
    """
    plain = msgspec.to_builtins(value, builtin_types=(bytes,), enc_hook=str)
    level = [list(plain)]
    top = level[0]
    while level:
        inner: list[Any] = []
        for item in level:
            for key, child in list(item.items() if isinstance(item, dict) else enumerate(item)):
                if isinstance(child, dict | list | tuple):
                    item[key] = list(child) if isinstance(child, tuple) else child
                    inner.append(item[key])
                elif type(child) is int and not -(2**63) <= child < 2**64:
                    item[key] = _as_float(child)
                elif isinstance(child, str) and not _is_text(child):
                    item[key] = _whole_characters(child)
                if isinstance(key, str) and not _is_text(key):
                    item[_whole_characters(key)] = item.pop(key)
        level = inner
    return top


def _is_text(text: str) -> bool:
    try:
        text.encode()
    except UnicodeEncodeError:
        return False
    return True


def _whole_characters(text: str) -> str:
    return text.encode("utf-16-le", "surrogatepass").decode("utf-16-le", "replace")


def _as_float(number: int) -> float:
    try:
        return float(number)
    except OverflowError:
        raise BadRequest("a whole number in the messages or tools is too large for a float") from None


def receive(connection: socket.socket) -> ToRunner:
    """The next frame for a runner; blocks. Raises EOFError when the server is gone."""
    length = int.from_bytes(_exactly(connection, HEADER), "big")
    if length > MAX_FRAME:
        raise EOFError(f"frame of {length} bytes")
    value: ToRunner = to_runner.decode(_exactly(connection, length))
    return value


def _exactly(connection: socket.socket, count: int) -> bytearray:
    buffer = bytearray(count)
    view = memoryview(buffer)
    while view:
        received = connection.recv_into(view)
        if not received:
            raise EOFError("the server has gone")
        view = view[received:]
    return buffer

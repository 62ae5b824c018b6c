"""Reads request bodies: bounded, whatever their content type says, with errors that name the field."""

from __future__ import annotations

import asyncio
import json
import math
from collections.abc import AsyncIterator, Awaitable, Callable
from functools import cache
from typing import Any, TypeVar

import msgspec
from litestar import Request

from corectl.errors import BadRequest, Canceled, TooLarge, TooSlow
from corectl.server.apart import apart
from corectl.server.encodings import decompressed
from corectl.server.nesting import too_deep

T = TypeVar("T", bound=msgspec.Struct)
R = TypeVar("R")

DRAIN_FACTOR = 4
"""A body that is too large is read on and thrown away up to this many times the limit: a client that is still
sending does not read our answer."""

LENIENT = 2**20
"""Bytes. Only in smaller bodies is anything forgiven: the decoder that does is slow."""

MAX_COLONS = 200_000
MAX_COMMAS = 4_000_000
"""In a larger body. Each may stand for a member or an item, which would become an object: three million take seconds,
in which nothing else in this process runs, on whatever thread. Images have neither; no context holds such a text."""

STALL_SECONDS = 60.0
"""How long a client may send nothing in the middle of a body."""

AnyRequest = Request[Any, Any, Any]

_object = msgspec.json.Decoder(dict[str, msgspec.Raw] | None)


async def read_body(request: AnyRequest, limit: int) -> bytes:
    """The whole body, of at most `limit` bytes, also when it has been decompressed.

    Raises `TooLarge`, `BadRequest` for an encoding that is not taken, and `Canceled` if the client leaves meanwhile.
    """
    parts: list[bytes] = []
    size, more = 0, True
    while more:
        part, more = await _next_part(request.receive)
        size += len(part)
        if size <= limit:
            parts.append(part)
        elif size > limit * DRAIN_FACTOR:
            break
        else:
            parts.clear()
    if size > limit:
        raise TooLarge(f"request body is larger than {limit} bytes, which is this server's limit (max_body)")
    encoding = request.headers.get("content-encoding", "identity").strip().lower()
    if encoding in ("", "identity"):
        return b"".join(parts)
    return await asyncio.to_thread(decompressed, b"".join(parts), encoding, limit)


async def stream_body(receive: Callable[[], Awaitable[Any]]) -> AsyncIterator[bytes]:
    """The body in parts, as they arrive.

    Raises `Canceled` if the client leaves before its end, and `TooSlow` if nothing arrives for `STALL_SECONDS`.
    """
    more = True
    while more:
        part, more = await _next_part(receive)
        if part:
            yield part


async def _next_part(receive: Callable[[], Awaitable[Any]]) -> tuple[bytes, bool]:
    """What has come of the body, and whether there is more. Raises as `stream_body` does."""
    try:
        async with asyncio.timeout(STALL_SECONDS):
            message = await receive()
    except TimeoutError:
        raise TooSlow(f"nothing more of the request body came for {STALL_SECONDS:g} seconds") from None
    if message["type"] == "http.disconnect":
        raise Canceled("request canceled")
    return message.get("body", b""), message.get("more_body", False)


async def read_json(request: AnyRequest, limit: int, kind: type[T]) -> T:
    """The body as a struct; see `read_body` and `decode`. A large one is decoded on a worker thread."""
    return await read_request(request, limit, kind, lambda body: body)


async def read_request(request: AnyRequest, limit: int, kind: type[T], read: Callable[[T], R]) -> R:
    """What `read` makes of the body as a struct: checks, conversions, whatever goes through all of it.

    It must not need the event loop: where the body is large, it runs on a worker thread.
    """
    body = await read_body(request, limit)
    return await apart(len(body), lambda: read(decode(body, kind)))


def decode(body: bytes, kind: type[T]) -> T:
    """The JSON object of a body as a struct. Keys match without regard to case, null counts as not given.

    Unknown keys, and whatever follows the first JSON value, are left alone. Raises `BadRequest`, and `TooLarge` for
    one that would become too many objects.
    """
    if len(body) > LENIENT and (body.count(b":") > MAX_COLONS or body.count(b",") > MAX_COMMAS):
        raise TooLarge("the request body has too many members or items for this server to read")
    if not body.strip():
        raise BadRequest("missing request body")
    if too_deep(body):
        raise BadRequest("malformed JSON: nested too deeply")
    try:
        return msgspec.json.decode(_known_members(body, kind), type=kind)
    except msgspec.ValidationError as exc:
        raise BadRequest(str(exc)) from exc
    except RecursionError as exc:
        raise BadRequest("malformed JSON: nested too deeply") from exc
    except ValueError as exc:
        raise BadRequest(f"malformed JSON: {exc}") from exc


def _known_members(body: bytes, kind: type[T]) -> bytes:
    """The body with only those members that the struct knows, under the names that it knows them by.

    Values are passed on undecoded, so that members that nobody reads cost next to nothing.
    """
    names = _names(kind)
    members = {
        names[key.lower()]: value
        for key, value in _members(body).items()
        if key.lower() in names and bytes(value) != b"null"
    }
    return b"{%s}" % b",".join(msgspec.json.encode(name) + b":" + value for name, value in members.items())


@cache
def _names(kind: type) -> dict[str, str]:
    """A struct's members by their names in small letters. Asking msgspec takes a millisecond."""
    return {field.encode_name.lower(): field.encode_name for field in msgspec.structs.fields(kind)}


def _members(body: bytes) -> dict[str, msgspec.Raw]:
    try:
        return _object.decode(body) or {}
    except msgspec.ValidationError as exc:
        raise BadRequest("the request must be a JSON object") from exc
    except msgspec.DecodeError as first:
        if len(body) > LENIENT:
            raise
        # Rare: bytes after the value, or text that is not quite UTF-8.
        text = body.decode("utf-8", "replace").lstrip("\ufeff \t\r\n")
        try:
            value = _lenient.raw_decode(text)[0]
        except ValueError:
            raise ValueError(str(first)) from first
        return _object.decode(msgspec.json.encode(_whole(value))) or {}


def _no_number(name: str) -> Any:
    raise ValueError(f"{name} is no JSON number")


def _number(text: str) -> float:
    """A number that a float can hold: infinity would be written as null, as if nothing had been given."""
    value = float(text)
    if not math.isfinite(value):
        raise BadRequest(f"malformed JSON: the number {text[:64]} is out of range")
    return value


_lenient = json.JSONDecoder(parse_constant=_no_number, parse_float=_number)


def _whole(value: Any) -> Any:
    """The value with U+FFFD for half characters (`"\\ud800"`), which cannot be written anywhere."""
    if isinstance(value, str):
        return value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
    if isinstance(value, list):
        return [_whole(item) for item in value]
    if isinstance(value, dict):
        return {_whole(key): _whole(item) for key, item in value.items()}
    return value

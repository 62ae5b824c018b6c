"""What servers answer when they are asked for a blob: whether it is what was asked for."""

from __future__ import annotations

import re
from collections.abc import AsyncGenerator, Mapping
from contextlib import aclosing
from typing import Any, cast

import httpcore
import httpx

from corectl.errors import CorectlError, NotFound, RemoteError
from corectl.registry.remote import Location
from corectl.transfer.client import MAX_TEXT, READ_BYTES, refuse_encoded, shown
from corectl.transfer.following import same_origin
from corectl.transfer.parts import Part
from corectl.transfer.rules import Rules

_CONTENT_RANGE = re.compile(r"bytes (\d{1,18})-(\d{1,18})/(\d{1,18}|\*)")
_LENGTH = re.compile(r"\d{1,18}")


class Broken(Exception):
    """A try has failed; another one may not."""


class Expired(Broken):
    """The address is no longer good, or never was."""


class NoRanges(Exception):
    """The server gives the whole blob or nothing."""


class DigestMismatch(RemoteError):
    code = "digest_mismatch"

    def __init__(self, wanted: str, got: str) -> None:
        super().__init__(f"digest mismatch, file must be downloaded again: want {wanted}, got {got}")


def range_of(part: Part) -> Mapping[str, str]:
    """The header that asks for what is missing of a part."""
    return {"range": f"bytes={part.front}-{part.end - 1}"}


async def check(response: httpx.Response, size: int, part: Part | None, location: Location) -> None:
    """Whether a reply is what was asked for: what is missing of a part, or the whole blob.

    `size` is 0 where nobody knows it; `location` is where the registry said that the blob is. Raises `Broken`,
    `NoRanges`, `NotFound`, `RemoteError`.
    """
    status = response.status_code
    if part is not None and status in (200, 416):
        raise NoRanges
    if status != (200 if part is None else 206):
        raise await _refusal(response, location)
    refuse_encoded(response)
    if part is not None:
        _check_range(response.headers.get("content-range", ""), size, part)
    length = response.headers.get("content-length")
    if length is None:
        return
    if part is None and size and length.strip() != str(size):
        raise RemoteError(f"the registry has {length[:20]} bytes for a blob that has {size} in the manifest")
    if part is not None and length.strip() != str(part.end - part.front):
        raise Broken(f"a part of {length[:20]} bytes came where {part.end - part.front} were asked for")


def _check_range(text: str, size: int, part: Part) -> None:
    found = _CONTENT_RANGE.fullmatch(text.strip())
    if found is not None and found[3] not in ("*", str(size)):
        raise RemoteError(f"the registry has {found[3]} bytes for a blob that has {size} in the manifest")
    if found is None or (int(found[1]), int(found[2])) != (part.front, part.end - 1):
        raise Broken(f"another range came than was asked for ({text[:60] or 'none'})")


def length_of(response: httpx.Response) -> int:
    """How long the body says it is; 0 if it does not."""
    text = response.headers.get("content-length", "").strip()
    return int(text) if _LENGTH.fullmatch(text) else 0


def large_length(response: httpx.Response, rules: Rules) -> int:
    """The same for a body that is worth a connection of its own and lies there as it is; 0 for all others."""
    bare = response.http_version == "HTTP/1.1" and "transfer-encoding" not in response.headers
    return length if bare and (length := length_of(response)) > rules.large else 0


async def pieces(response: httpx.Response, rules: Rules) -> AsyncGenerator[bytes, None]:
    """The body as it comes; Raises `httpx.HTTPError`, also where it pauses for too long.

    The library does several times what a large body needs once. As it has handed on all that it had read of it with the
    first piece, the rest can be taken from the connection itself, where the length is known.
    """
    left = large_length(response, rules)
    stream = response.extensions.get("network_stream")
    beside = stream is not None and left > 0
    # While the library's own iterator lives it leaves the connection open.
    async with aclosing(cast(AsyncGenerator[bytes, None], response.aiter_raw())) as body:
        async for piece in body:
            left -= len(piece)
            yield piece
            if beside:
                break
        while beside and left > 0:
            piece = await _read(response, stream, min(left, READ_BYTES), rules.stall)
            left -= len(piece)
            yield piece


async def _read(response: httpx.Response, stream: Any, most: int, seconds: float) -> bytes:
    try:
        piece: bytes = await stream.read(most, seconds)
    except httpcore.ReadTimeout as exc:
        raise httpx.ReadTimeout(str(exc), request=response.request) from exc
    except httpcore.NetworkError as exc:
        raise httpx.ReadError(str(exc), request=response.request) from exc
    if not piece:
        raise httpx.RemoteProtocolError("the connection ended early", request=response.request)
    return piece


async def _refusal(response: httpx.Response, location: Location) -> CorectlError | Broken:
    """The error, in the words of the registry only: what else can be reached from here is not to be read through it."""
    status = response.status_code
    if status in (404, 410):
        return NotFound("file does not exist")
    url = response.request.url
    if same_origin(url, httpx.URL(location.url)):
        text = await _text(response)
        said = f"{status}: {text}" if text else f"status {status}"
    else:
        said = f'status {status} from "{shown(str(url))}"'
    if status in (401, 403):
        return Expired(said)
    if status in (408, 425, 429) or status >= 500:
        return Broken(said)
    return RemoteError(said)


async def _text(response: httpx.Response) -> str:
    """The first piece of what an error says."""
    async for piece in response.aiter_raw():
        text = piece[: 4 * MAX_TEXT].decode("utf-8", "replace")
        return " ".join("".join(char if char.isprintable() else " " for char in text).split())[:MAX_TEXT]
    return ""

"""Request bodies that come compressed: with zstd, which some clients use, and nothing else."""

from __future__ import annotations

from collections.abc import Iterator

import zstandard

from corectl.errors import BadRequest, TooLarge

MAX_WINDOW = 2**23
"""Bytes that a frame may refer back to, which have to be kept: what the format asks of everybody who reads it."""

MAX_FRAMES = 1024
"""In one body. Clients send one; the smallest has nine bytes, and takes as long to begin as any other."""

_PIECE = 2**10
"""Bytes that are read at once: they become 32 MiB at most, so that what is too large is seen early."""


def decompressed(body: bytes, encoding: str, limit: int) -> bytes:
    """A body without its `Content-Encoding`. Raises `BadRequest`, and `TooLarge` once it is above `limit` bytes."""
    if encoding != "zstd":
        raise BadRequest(f"content-encoding {encoding[:64]!r} is not taken; send zstd, or plain JSON")
    parts: list[bytes] = []
    size = 0
    try:
        for part in _parts(memoryview(body)):
            parts.append(part)
            size += len(part)
            if size > limit:
                raise TooLarge(
                    f"request body is larger than {limit} bytes, which is this server's limit (max_body)"
                )
    except zstandard.ZstdError as exc:
        raise BadRequest(f"the request body is no zstd: {exc}") from exc
    return b"".join(parts)


def _parts(body: memoryview) -> Iterator[bytes]:
    """What the frames of a body hold, one after another. Raises `BadRequest` where the last one does not end."""
    decompressor = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW)
    frame, frames = decompressor.decompressobj(), 1
    for at in range(0, len(body), _PIECE):
        piece = bytes(body[at : at + _PIECE])
        while piece:
            if frame.eof:
                if frames == MAX_FRAMES:
                    raise BadRequest(f"the request body has more than {MAX_FRAMES} zstd frames")
                frame, frames = decompressor.decompressobj(), frames + 1
            yield frame.decompress(piece)
            piece = frame.unused_data
    if not frame.eof:
        raise BadRequest("the request body is cut: it ends in the middle of a zstd frame")

"""Request bodies that come compressed: with zstd, which some clients use, and nothing else."""

from __future__ import annotations

import zstandard

from corectl.errors import BadRequest, TooLarge

MAX_WINDOW = 2**23
"""Bytes that a frame may refer back to, which have to be kept: what the format asks of everybody who reads it."""

_PIECE = 2**18


def decompressed(body: bytes, encoding: str, limit: int) -> bytes:
    """A body without its `Content-Encoding`. Raises `BadRequest`, and `TooLarge` once it is above `limit` bytes."""
    if encoding != "zstd":
        raise BadRequest(f"content-encoding {encoding[:64]!r} is not taken; send zstd, or plain JSON")
    parts: list[bytes] = []
    size = 0
    try:
        reader = zstandard.ZstdDecompressor(max_window_size=MAX_WINDOW).stream_reader(
            body, read_across_frames=True
        )
        while part := reader.read(_PIECE):
            parts.append(part)
            size += len(part)
            if size > limit:
                raise TooLarge(
                    f"request body is larger than {limit} bytes, which is this server's limit (max_body)"
                )
    except zstandard.ZstdError as exc:
        raise BadRequest(f"the request body is no zstd: {exc}") from exc
    return b"".join(parts)

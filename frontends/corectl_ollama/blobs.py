"""HEAD and POST /api/blobs/:digest: uploads of model files, streamed to disk."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from typing import Any

from litestar import Response

from corectl.errors import NotFound
from corectl.server.body import AnyRequest, stream_body
from corectl.server.services import Services
from corectl.store.blobs import BlobStore, BlobWriter

PIECE = 4 * 2**20
"""Bytes that are gathered before they are hashed and written on a worker thread."""


async def head_blob(services: Services, digest: str) -> Response[Any]:
    services.catalog.blobs.path_of(digest)
    if not await asyncio.to_thread(services.catalog.blobs.exists, digest):
        raise NotFound(f'blob "{digest}" not found')
    return Response(None, status_code=200)


@asynccontextmanager
async def _writer(blobs: BlobStore) -> AsyncIterator[BlobWriter]:
    """A writer that is also closed on a worker thread: of an upload that breaks off gigabytes are removed then."""
    writer = await asyncio.to_thread(blobs.writer)
    try:
        yield writer
    finally:
        await asyncio.to_thread(writer.close)


async def post_blob(request: AnyRequest, services: Services, digest: str) -> Response[bytes]:
    """201 for a new blob, 200 for one that is there. A client that leaves half-way leaves nothing behind."""
    blobs = services.catalog.blobs
    blobs.path_of(digest)
    if await asyncio.to_thread(blobs.exists, digest):
        async for _ in stream_body(request.receive):
            pass
        return Response(b"", status_code=200)
    async with _writer(blobs) as writer:
        piece = bytearray()
        async for part in stream_body(request.receive):
            piece += part
            if len(piece) >= PIECE:
                await asyncio.to_thread(writer.write, piece)
                piece = bytearray()
        await asyncio.to_thread(writer.write, piece)
        await asyncio.to_thread(writer.commit, digest.replace("-", ":", 1))
    return Response(b"", status_code=201)

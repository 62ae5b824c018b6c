"""A small blob of a registry that is read as a whole, wherever the registry keeps it."""

from __future__ import annotations

import asyncio
import hashlib

import httpx

from corectl.errors import NotFound, RemoteError
from corectl.registry.remote import Location
from corectl.transfer.body import Broken, DigestMismatch, check
from corectl.transfer.client import ANSWER_SECONDS, unreachable
from corectl.transfer.following import opened


async def read_blob(http: httpx.AsyncClient, location: Location, digest: str, size: int) -> bytes | None:
    """Its bytes, which have this digest; None if the registry does not have it.

    Raises `RemoteError`, also for a body that is longer than `size`.
    """
    try:
        async with asyncio.timeout(ANSWER_SECONDS):
            data = await _read(http, location, size)
    except NotFound:
        return None
    except TimeoutError:
        raise unreachable("GET", location.url, f"no answer within {ANSWER_SECONDS:.0f} seconds") from None
    except httpx.HTTPError as exc:
        raise unreachable("GET", location.url, exc) from exc
    except Broken as exc:
        raise RemoteError(str(exc)) from None
    found = f"sha256:{hashlib.sha256(data).hexdigest()}"
    if found != digest:
        raise DigestMismatch(digest, found)
    return data


async def _read(http: httpx.AsyncClient, location: Location, size: int) -> bytes:
    data = bytearray()
    async with opened(http, location, {}, read_seconds=ANSWER_SECONDS) as response:
        await check(response, size, None, location)
        async for piece in response.aiter_raw():
            data += piece
            if len(data) > size:
                raise RemoteError(f"the registry sends more than {size} bytes for a blob that has so many")
    return bytes(data)

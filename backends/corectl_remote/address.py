"""Where a server is, taken apart for a connection and for the head of a request."""

from __future__ import annotations

import asyncio
import socket
from itertools import zip_longest
from urllib.parse import quote, urlsplit

import msgspec


class Address(msgspec.Struct, frozen=True):
    """`netloc` is what the header Host has; `prefix` the path that all paths begin with, empty or `/...`."""

    host: str
    port: int
    tls: bool
    netloc: str
    prefix: str

    @classmethod
    def of(cls, url: str) -> Address:
        """Of a URL that `corectl.store.remote.remote_url` has completed."""
        parts = urlsplit(url)
        host = parts.hostname or ""
        port = parts.port or 0
        shown = f"[{host}]" if ":" in host else quote(host, safe="")
        # Nothing of an address may begin another line of a request's head.
        prefix = quote(parts.path, safe="/%:@!$&'()*+,;=~")
        return cls(host, port, parts.scheme == "https", f"{shown}:{port}", prefix)


async def addresses(host: str, port: int) -> list[str]:
    """A host's numeric addresses, the system's favourite first, and in turns of IPv6 and IPv4. Raises `OSError`."""
    found = await asyncio.get_running_loop().getaddrinfo(host, port, type=socket.SOCK_STREAM)
    families: dict[int, dict[str, None]] = {}
    for family, _, _, _, at in found:
        # An address of this link only says on which of the machine's links that is.
        zone = f"%{at[3]}" if len(at) == 4 and at[3] and "%" not in str(at[0]) else ""
        families.setdefault(family, {})[f"{at[0]}{zone}"] = None
    return [address for turn in zip_longest(*families.values()) for address in turn if address]

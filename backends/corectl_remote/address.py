"""Where a server is, taken apart for a connection and for the head of a request."""

from __future__ import annotations

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

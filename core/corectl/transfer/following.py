"""From one address to the next: what a redirect may do, and what it never gets."""

from __future__ import annotations

from collections.abc import AsyncIterator, Mapping
from contextlib import asynccontextmanager

import httpx

from corectl.errors import RemoteError
from corectl.registry.remote import Location
from corectl.transfer.client import shown, unreachable
from corectl.transfer.peers import Peers

MAX_HOPS = 10
REDIRECTS = (301, 302, 303, 307, 308)


def next_location(location: Location, target: str, *, allow_http: bool) -> Location:
    """Where a redirect leads. Headers, which may be credentials, stay with their origin.

    Raises `RemoteError` for an address that is none, and for one without encryption where the first had it.
    """
    try:
        base = httpx.URL(location.url)
        url = base.join(target)
    except (httpx.InvalidURL, ValueError):
        raise RemoteError(f'"{shown(location.url)}" redirects to what is no address') from None
    if url.scheme not in ("http", "https") or not url.host or url.userinfo:
        raise RemoteError(f'"{shown(location.url)}" redirects to what is no web address')
    if url.scheme == "http" and not allow_http:
        raise RemoteError(
            f'"{shown(location.url)}" redirects to "{shown(str(url))}", which is not encrypted; it is not followed'
        )
    headers = location.headers if same_origin(base, url) else {}
    return Location(url=str(url.copy_with(fragment=None)), headers=headers)


def same_origin(one: httpx.URL, other: httpx.URL) -> bool:
    return (one.scheme, one.host, _port(one)) == (other.scheme, other.host, _port(other))


def _port(url: httpx.URL) -> int:
    return url.port or (443 if url.scheme == "https" else 80)


@asynccontextmanager
async def opened(
    http: httpx.AsyncClient, location: Location, headers: Mapping[str, str], *, read_seconds: float
) -> AsyncIterator[httpx.Response]:
    """A reply to GET whose body has not been read, behind at most ten redirects.

    Raises `RemoteError` for redirects that are not followed (see `Peers` too), `RemoteUnreachable`; in the block,
    `httpx.HTTPError`.
    """
    allow_http = location.url.lower().startswith("http://")
    timeout = httpx.Timeout(http.timeout.connect, read=read_seconds, pool=None)
    peers = Peers(http)
    for _ in range(MAX_HOPS + 1):
        try:
            request = http.build_request(
                "GET",
                location.url,
                headers={**location.headers, **headers},
                timeout=timeout,
                extensions=peers.extensions(location.url),
            )
        except (httpx.InvalidURL, ValueError) as exc:
            raise unreachable("GET", location.url, exc) from None
        response = await http.send(request, stream=True)
        try:
            peers.check(response)
            if response.status_code not in REDIRECTS:
                yield response
                return
            location = next_location(location, response.headers.get("location", ""), allow_http=allow_http)
        finally:
            await response.aclose()
    raise RemoteError(f'"{shown(location.url)}" redirects more than {MAX_HOPS} times')

"""The HTTP client of all transfers, and whole replies that are read with it."""

from __future__ import annotations

import asyncio
import os
import platform
import socket
import ssl
from collections.abc import AsyncIterable, AsyncIterator, Mapping
from http.cookiejar import DefaultCookiePolicy
from typing import TYPE_CHECKING

import certifi
import httpcore
import httpx
import msgspec

from corectl import OLLAMA_LEVEL, __version__
from corectl.errors import RemoteError, RemoteUnreachable

if TYPE_CHECKING:
    from corectl.transfer.peers import Peers

CONNECT_SECONDS = 30.0
ANSWER_SECONDS = 60.0
MAX_ANSWER = 2**22
"""Bytes of a reply that is read as a whole."""

MAX_TEXT = 500
"""Characters of somebody else's text that are passed on."""

READ_BYTES = 2**20
"""What a connection may read at once. With the library's 64 kB its own work costs more than the bytes."""

_MACHINES = {"x86_64": "amd64", "aarch64": "arm64"}


class Answer(msgspec.Struct, frozen=True):
    """A reply that was read as a whole."""

    status: int
    headers: httpx.Headers
    body: bytes

    @property
    def text(self) -> str:
        """What it says, in one line, cut, and without what would disturb a terminal."""
        text = self.body[: 8 * MAX_TEXT].decode("utf-8", "replace")
        printable = "".join(char if char.isprintable() else " " for char in text)
        return " ".join(printable.split())[:MAX_TEXT]


def user_agent() -> str:
    """As registries know it: they give a model only to programs that are new enough for it."""
    machine = platform.machine().lower()
    where = f"{_MACHINES.get(machine, machine)} {platform.system().lower()}"
    return f"ollama/{OLLAMA_LEVEL} ({where}) Python/{platform.python_version()} corectl/{__version__}"


def make_client() -> httpx.AsyncClient:
    """A client that takes proxies and certificates from the environment, and follows nothing by itself."""
    httpcore.AsyncHTTP11Connection.READ_NUM_BYTES = READ_BYTES
    client = httpx.AsyncClient(
        verify=trusted(),
        headers={"user-agent": user_agent(), "accept-encoding": "identity"},
        timeout=httpx.Timeout(CONNECT_SECONDS, pool=None),
        limits=httpx.Limits(max_connections=None, max_keepalive_connections=32),
    )
    # A cookie is a credential as well, and no registry needs one.
    client.cookies.jar.set_policy(DefaultCookiePolicy(allowed_domains=[]))
    return client


def trusted() -> ssl.SSLContext:
    """The authorities that the environment names; else those of the system, and those that browsers trust."""
    context = ssl.create_default_context()
    if not (os.environ.get("SSL_CERT_FILE") or os.environ.get("SSL_CERT_DIR")):
        context.load_verify_locations(certifi.where())
    return context


async def ask(
    http: httpx.AsyncClient,
    method: str,
    url: str,
    *,
    headers: Mapping[str, str] | None = None,
    content: bytes | AsyncIterable[bytes] | None = None,
    limit: int = MAX_ANSWER,
    seconds: float = ANSWER_SECONDS,
    peers: Peers | None = None,
) -> Answer:
    """One request, and its reply of at most `limit` bytes, all of it so many seconds after the last piece of the body.

    What is sent may take as long as it moves, and the reply as long as is said, even where nothing comes meanwhile: a
    registry may have gigabytes to store. No redirect is followed.

    `peers` is for one that a redirect may have led to. Raises `RemoteUnreachable`, and `RemoteError` for a reply that
    is too long, or compressed.
    """
    try:
        extensions = peers.extensions(url) if peers is not None else {}
        timeout = httpx.Timeout(http.timeout.connect, read=seconds, write=http.timeout.write, pool=None)
        # Single bytes, one every few seconds, would never run into the client's own timeouts.
        async with asyncio.timeout(seconds) as deadline:
            if content is not None and not isinstance(content, bytes):
                content = _moving(content, deadline, seconds)
            request = http.build_request(
                method,
                url,
                headers=dict(headers or {}),
                content=content,
                extensions=extensions,
                timeout=timeout,
            )
            response = await http.send(request, stream=True)
            try:
                if peers is not None:
                    peers.check(response)
                return Answer(response.status_code, response.headers, await _whole(response, limit))
            finally:
                await response.aclose()
    except TimeoutError:
        raise unreachable(method, url, f"no answer within {seconds:.0f} seconds") from None
    except (httpx.HTTPError, httpx.InvalidURL) as exc:
        raise unreachable(method, url, exc) from exc


async def _moving(
    body: AsyncIterable[bytes], deadline: asyncio.Timeout, seconds: float
) -> AsyncIterator[bytes]:
    """The same pieces; each puts off the end."""
    loop = asyncio.get_running_loop()
    async for piece in body:
        deadline.reschedule(loop.time() + seconds)
        yield piece
    deadline.reschedule(loop.time() + seconds)


async def _whole(response: httpx.Response, limit: int) -> bytes:
    if response.request.method == "HEAD":
        return b""
    refuse_encoded(response)
    body = bytearray()
    async for piece in response.aiter_raw():
        body += piece
        if len(body) > limit:
            raise RemoteError(f'"{shown(str(response.url))}" sent more than {limit} bytes')
    return bytes(body)


def refuse_encoded(response: httpx.Response) -> None:
    """Raises `RemoteError` for a compressed body: nobody has asked for one, and it may have no end unpacked."""
    encoding = response.headers.get("content-encoding", "").strip().lower()
    if encoding not in ("", "identity"):
        raise RemoteError(f'"{shown(str(response.url))}" sent a compressed body ({encoding[:32]})')


def unreachable(method: str, url: str, reason: Exception | str) -> RemoteUnreachable:
    """The error for a request that got no reply."""
    text = reason if isinstance(reason, str) else _cause(reason)
    return RemoteUnreachable(f'{method.capitalize()} "{shown(url)}": {text}')


def shown(url: str) -> str:
    """An address for people: signed addresses are credentials, and their secrets stand after the question mark."""
    return url.partition("?")[0][:MAX_TEXT]


def _cause(exc: BaseException) -> str:
    """What the system says: libraries wrap it several times, and each attempt to connect on its own."""
    if isinstance(exc, httpx.TimeoutException):
        return "timeout"
    seen: BaseException = exc
    while True:
        if isinstance(seen, BaseExceptionGroup):
            seen = seen.exceptions[0]
        elif (under := seen.__cause__ or seen.__context__) is not None:
            seen = under
        else:
            break
    if isinstance(seen, ssl.SSLError | socket.gaierror):
        return f"{'tls: ' if isinstance(seen, ssl.SSLError) else ''}{seen.strerror or seen}".lower()
    if isinstance(seen, OSError) and seen.errno:
        return os.strerror(seen.errno).lower()
    return str(seen) or str(exc) or type(exc).__name__

"""Images that a request only names: fetched from the internet, and from nowhere else.

Whoever asks for one chooses where the server speaks to. So a name is resolved once, all its addresses are looked at,
and the connection is made to one of those, whatever the name means a moment later. What is said of a failure is in our
words; a name that leads inside and one that nobody knows are told alike.
"""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections import Counter
from collections.abc import Callable, Mapping, Sequence
from contextlib import suppress
from functools import cache
from typing import TypeVar

import httpx
import msgspec

from corectl import __version__, addresses
from corectl.errors import BadRequest
from corectl.messages import Message
from corectl.model.record import ModelRecord
from corectl.runner.images import MAX_BYTES
from corectl.server.body import AnyRequest
from corectl.server.inference import find_and_read, find_model, not_found
from corectl.server.services import Services
from corectl.server.watch import while_connected
from corectl.transfer.client import trusted

T = TypeVar("T")

SECONDS = 10.0
"""For all images of a request together."""

CONNECT_SECONDS = 4.0
MAX_IMAGES = 16
"""Named in one request."""

MAX_HOSTS = 4
"""Addresses of one name that are tried."""

_SCHEMES = ("http://", "https://")
_TYPES = ("", "application/octet-stream", "binary/octet-stream")
"""What servers say of an image besides `image/...`. What it is, is found where it is decoded."""

_HEADERS = {"user-agent": f"corectl/{__version__}", "accept": "image/*", "accept-encoding": "identity"}


def is_web_address(text: str) -> bool:
    """Whether an image is only named. No base64 text looks so."""
    return text[:8].lower().startswith(_SCHEMES)


async def fetch_images(
    request: AnyRequest, services: Services, record: ModelRecord, urls: Mapping[str, str]
) -> dict[str, str]:
    """The images in base64, by their addresses. `urls` has an address for each field of the request that names one.

    Ends when the client leaves. Raises `BadRequest` that begins with the field, and for a model that cannot see.
    """
    if not urls:
        return {}
    fields = list(urls)
    if not services.settings.image_urls:
        raise BadRequest(
            f"{fields[0]}: images are not fetched from the web here; send them as base64, or have the operator allow "
            "it with the setting image_urls (CORECTL_IMAGE_URLS)"
        )
    if len(fields) > MAX_IMAGES:
        raise BadRequest(
            f"{fields[MAX_IMAGES]}: {len(fields)} images are named by their addresses; at most {MAX_IMAGES} may be"
        )
    if not record.config.remote_host:
        can = await services.reading(record, lambda: services.capabilities(record))
        if "vision" not in can:
            raise BadRequest(f"{record.name.full} does not support vision")
    return await while_connected(request, _fetch_all(urls, services.settings.max_body // 4 * 3))


async def read_with_images(
    request: AnyRequest,
    services: Services,
    name: str,
    messages: Sequence[Message],
    urls: Mapping[str, str],
    read: Callable[[ModelRecord, list[Message]], T],
    *,
    missing: Callable[[str], str] = not_found,
) -> T:
    """What `read` makes of a model and of messages whose images are all there; it is called on a worker thread.

    Images that are only named, as `urls` says, are fetched. Raises as `find_model` and `fetch_images` do.
    """
    if not urls:
        return await find_and_read(
            services, name, lambda record: read(record, list(messages)), missing=missing
        )
    record = await find_model(services, name, missing=missing)
    found = await fetch_images(request, services, record, urls)
    whole = _with_images(messages, found)
    return await services.reading(record, lambda: read(record, whole))


def _with_images(messages: Sequence[Message], found: Mapping[str, str]) -> list[Message]:
    """Messages with the images that were found by their addresses."""
    return [
        msgspec.structs.replace(message, images=tuple(found.get(image, image) for image in message.images))
        for message in messages
    ]


async def _fetch_all(urls: Mapping[str, str], room: int) -> dict[str, str]:
    """`room` is how many bytes they may have together: as many as in the request itself."""
    budget, uses = _Budget(left=room), Counter(urls.values())
    first: dict[str, str] = {}
    for field, url in urls.items():
        first.setdefault(url, field)
    # Reading the authorities takes longer than others should wait.
    transport = httpx.AsyncHTTPTransport(verify=await asyncio.to_thread(_tls), trust_env=False)
    timeout = httpx.Timeout(None, connect=CONNECT_SECONDS)
    async with httpx.AsyncClient(
        transport=transport, trust_env=False, headers=_HEADERS, timeout=timeout
    ) as http:
        try:
            async with asyncio.TaskGroup() as group:
                tasks = {
                    url: group.create_task(_fetch(http, url, field, budget, uses[url]))
                    for url, field in first.items()
                }
        except BaseExceptionGroup as failed:
            raise failed.exceptions[0] from None
    return {url: task.result() for url, task in tasks.items()}


class _Budget(msgspec.Struct):
    """Bytes that the images of a request may still have."""

    left: int


async def _fetch(http: httpx.AsyncClient, url: str, field: str, budget: _Budget, uses: int) -> str:
    """One image, which stands in the request so many times."""
    try:
        async with asyncio.timeout(SECONDS):
            target = _parsed(url, field)
            response = await _opened(http, target, await _addresses(target, field), field)
            try:
                _check(response, field)
                data = await _body(response, field, budget, uses)
            finally:
                await response.aclose()
    except TimeoutError:
        raise BadRequest(f"{field}: the image did not come within {SECONDS:g} seconds") from None
    except httpx.HTTPError:
        raise BadRequest(f"{field}: the connection broke off before the image was complete") from None
    encoded = await asyncio.to_thread(base64.b64encode, data)
    return encoded.decode("ascii")


def _parsed(url: str, field: str) -> httpx.URL:
    try:
        target = httpx.URL(url)
    except (httpx.InvalidURL, ValueError):
        raise BadRequest(f"{field}: not a web address") from None
    if target.scheme not in ("http", "https") or not target.host:
        raise BadRequest(f"{field}: an image is fetched by http or https only")
    if target.userinfo:
        raise BadRequest(f"{field}: an address with a name or a password in it is not fetched")
    return target


async def _addresses(target: httpx.URL, field: str) -> list[str]:
    """Where the host is. Raises `BadRequest` if any of it is not on the internet."""
    found: list[str] = []
    with suppress(OSError, ValueError):
        infos = await asyncio.get_running_loop().getaddrinfo(
            target.raw_host.decode("ascii"), target.port or 0, type=socket.SOCK_STREAM
        )
        found = [str(info[4][0]) for info in infos]
    if not found or not all(map(addresses.is_public, found)):
        raise BadRequest(
            f"{field}: {target.host[:256]!r} is not a host on the internet; nothing else is asked"
        )
    return found[:MAX_HOSTS]


async def _opened(http: httpx.AsyncClient, target: httpx.URL, hosts: list[str], field: str) -> httpx.Response:
    """A reply whose body has not been read, from the first of the hosts that takes the connection."""
    for host in hosts:
        request = http.build_request(
            "GET",
            target.copy_with(host=host),
            headers={"host": target.netloc.decode("ascii")},
            # Certificates are for names.
            extensions={"sni_hostname": target.raw_host.decode("ascii")},
        )
        try:
            return await http.send(request, stream=True)
        except (httpx.ConnectError, httpx.ConnectTimeout, ValueError):
            # Also a name that no certificate can be for.
            continue
    raise BadRequest(f"{field}: {target.host[:256]!r} cannot be reached")


def _check(response: httpx.Response, field: str) -> None:
    """Raises `BadRequest` for what is not the image itself."""
    if response.is_redirect:
        raise BadRequest(f"{field}: the address redirects to another one; redirects are not followed")
    if response.status_code != httpx.codes.OK:
        raise BadRequest(f"{field}: there is no image at this address (status {response.status_code})")
    kind = response.headers.get("content-type", "").partition(";")[0].strip().lower()
    if not (kind.startswith("image/") or kind in _TYPES):
        raise BadRequest(f"{field}: what is at this address is not an image")
    if response.headers.get("content-encoding", "identity").strip().lower() not in ("", "identity"):
        raise BadRequest(f"{field}: the image came compressed, which was not asked for")


async def _body(response: httpx.Response, field: str, budget: _Budget, uses: int) -> bytearray:
    data = bytearray()
    async for piece in response.aiter_raw():
        data += piece
        budget.left -= len(piece) * uses
        if len(data) > MAX_BYTES:
            raise BadRequest(f"{field}: the image is larger than {MAX_BYTES >> 20} MiB")
        if budget.left < 0:
            raise BadRequest(f"{field}: the images are larger together than a request may be (max_body)")
    return data


@cache
def _tls() -> ssl.SSLContext:
    return trusted()

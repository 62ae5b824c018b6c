"""What a registry wants of somebody it does not know: the header WWW-Authenticate, taken apart."""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator

import httpx
import msgspec

from corectl.errors import RemoteError, Unauthorized

MAX_HEADER = 8192

_SCHEME = re.compile(r"\s*([A-Za-z][A-Za-z0-9._~+/-]*)(?:\s+|$|(?=,))")
_PARAMETER = re.compile(r'\s*,?\s*([A-Za-z0-9_-]+)\s*=\s*(?:"((?:[^"\\]|\\.)*)"|([^\s,"]+))')

DOCKER_HUB = ("registry-1.docker.io", "auth.docker.io")
"""The one registry that is known to have its tokens given by another host, which is its own as well."""


class Challenge(msgspec.Struct, frozen=True):
    """`scheme` is `bearer` or `basic`; `scopes` are those that a token must have."""

    scheme: str
    realm: str = ""
    service: str = ""
    scopes: tuple[str, ...] = ()


def read_challenge(headers: Iterable[str]) -> Challenge:
    """The challenge that can be met: a bearer token before a password. Raises `Unauthorized` if there is none."""
    found = [challenge for text in headers for challenge in _challenges(text[:MAX_HEADER])]
    for scheme in ("bearer", "basic"):
        for challenge in found:
            if challenge.scheme == scheme:
                return challenge
    raise Unauthorized("unauthorized: access denied")


def _challenges(text: str) -> Iterator[Challenge]:
    """Commas part both challenges and what they say, and may stand in quotes too."""
    position = 0
    while (scheme := _SCHEME.match(text, position)) is not None:
        position = scheme.end()
        said: dict[str, str] = {}
        while (pair := _PARAMETER.match(text, position)) is not None:
            quoted, plain = pair[2], pair[3]
            said[pair[1].lower()] = plain if quoted is None else re.sub(r"\\(.)", r"\1", quoted)
            position = pair.end()
        scopes = tuple(said.get("scope", "").split())
        yield Challenge(scheme[1].lower(), said.get("realm", ""), said.get("service", ""), scopes)
        following = re.compile(r"\s*,\s*").match(text, position)
        position = following.end() if following else position


def checked_realm(realm: str, registry: httpx.URL) -> httpx.URL:
    """Where tokens are given. Raises `RemoteError` for another host than the registry's: credentials go to that only.

    The same holds for a realm without encryption, where the registry has it.
    """
    try:
        url = httpx.URL(realm)
    except (httpx.InvalidURL, ValueError):
        raise RemoteError("the registry names a realm that is no address") from None
    if url.scheme not in ("http", "https") or not url.host or url.userinfo or url.fragment:
        raise RemoteError("the registry names a realm that is no address")
    if _host(url) != _host(registry) and (registry.host, url.host) != DOCKER_HUB:
        raise RemoteError(
            f'realm host "{url.netloc.decode()}" does not match original host "{registry.netloc.decode()}"'
        )
    if registry.scheme == "https" and url.scheme != "https":
        raise RemoteError(f'realm "{url.scheme}://{url.netloc.decode()}" is not encrypted')
    return url


def _host(url: httpx.URL) -> tuple[str, int]:
    return url.host, url.port or (443 if url.scheme == "https" else 80)

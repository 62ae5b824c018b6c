"""From what a server says of an error, to one of ours."""

from __future__ import annotations

from typing import Any, TypeVar

import msgspec

from corectl.errors import BadRequest, Busy, CorectlError, NotFound, NotSupported, RemoteError, TooLarge
from corectl.remote.backend import RemoteServer

T = TypeVar("T")

MAX_TEXT = 500
"""Characters of somebody else's text that are passed on."""

_KINDS: dict[int, type[CorectlError]] = {
    400: BadRequest,
    404: NotFound,
    413: TooLarge,
    501: NotSupported,
    503: Busy,
}
_KEY_REFUSED = (401, 403, 407)
_OWN = (408, 499)
"""Statuses that speak of the client's own connection; here that is ours."""


def refusal(server: RemoteServer, status: int, body: bytes) -> CorectlError:
    """The error for a reply with a status that is no success.

    What the request did wrong keeps its status; what the server, or our key, did wrong is a 502.
    """
    if 300 <= status < 400:
        return RemoteError(
            f"remote server {server.label} redirects to another address ({status}), and is not followed: "
            "give the address that it redirects to"
        )
    text = spoken(server, _decoded(body)) or f"status {status}"
    if status in _KEY_REFUSED:
        hint = "check its key in remote_keys" if server.key else "it may want a key, see remote_keys"
        return RemoteError(f"remote server {server.label} refuses to answer ({status}): {text}; {hint}")
    message = f"remote server {server.label}: {text}"
    if kind := _KINDS.get(status):
        return kind(message)
    client_error = 400 <= status < 500 and status not in _OWN
    return RemoteError(message, status if client_error else 502)


def broken(server: RemoteServer, error: Any) -> RemoteError:
    """The error for one that a server reports in the middle of a stream."""
    return RemoteError(f"remote server {server.label}: {spoken(server, {'error': error}) or 'it failed'}")


def spoken(server: RemoteServer, value: Any) -> str:
    """The text of an error, wherever a server puts it; one line, cut, and without our key."""
    for _ in range(4):
        if not isinstance(value, dict):
            break
        found = (value.get(name) for name in ("error", "message", "detail"))
        value = next((item for item in found if item), "")
    text = value if isinstance(value, str) else ""
    printable = "".join(char if char.isprintable() else " " for char in text)
    return server.key.removed_from(" ".join(printable.split()))[:MAX_TEXT]


def _decoded(body: bytes) -> Any:
    try:
        return msgspec.json.decode(body[: 2**16])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError):
        # Not cut to what is shown before our key is out of it: half a key would stay.
        text = body[: 2**16].decode("utf-8", "replace")
        # A page that some proxy has made for browsers says nothing.
        return "" if "<" in text else text


def decode(server: RemoteServer, decoder: msgspec.json.Decoder[T], data: bytes) -> T:
    """A reply, or a line of one. Raises `RemoteError` for one that is not what it should be."""
    try:
        return decoder.decode(data)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise RemoteError(f"remote server {server.label} sent what cannot be read: {exc}") from None

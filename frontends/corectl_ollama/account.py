"""GET /api/status, POST /api/me and /api/signout: what a server says that has no cloud behind it."""

from __future__ import annotations

import asyncio
import base64
import logging
import socket
from typing import NoReturn
from urllib.parse import quote

import msgspec
from litestar import Response

from corectl.errors import Unauthorized
from corectl_ollama.replies import JSON, encode, reply

log = logging.getLogger(__name__)

CONNECT = "https://ollama.com/connect"
"""Where somebody with an account there says that a key is theirs."""


class CloudStatus(msgspec.Struct):
    disabled: bool
    source: str


class StatusReply(msgspec.Struct):
    cloud: CloudStatus


class NotSignedIn(msgspec.Struct, omit_defaults=True):
    error: str
    signin_url: str = ""


def status() -> Response[bytes]:
    """Nothing is run on ollama.com, and no setting is to blame."""
    return reply(StatusReply(CloudStatus(disabled=True, source="none")))


async def me() -> Response[bytes]:
    """Nobody is signed in. The address is for those who want to push to ollama.com with this server's key."""
    body = NotSignedIn("unauthorized", await asyncio.to_thread(_signin_url))
    return Response(encode(body), status_code=401, media_type=JSON)


def _signin_url() -> str:
    """Where the key can be registered; empty if there is none and none can be made."""
    # It loads a library for cryptography, which a server without registries never needs.
    from corectl.registry.keys import SigningKey, key_path

    try:
        public = f"ssh-ed25519 {SigningKey.load(key_path()).public}"
    except (OSError, RuntimeError, Unauthorized) as exc:
        log.warning("there is no key to sign in with: %s", exc)
        return ""
    key = base64.urlsafe_b64encode(public.encode()).decode().rstrip("=")
    return f"{CONNECT}?name={quote(socket.gethostname(), safe='')}&key={key}"


def signout() -> NoReturn:
    """Nobody can be signed in."""
    raise Unauthorized("you are not currently signed in")

"""GET /api/status, POST /api/me and /api/signout: what a server says that has no cloud behind it."""

from __future__ import annotations

from typing import NoReturn

from litestar import Response

from corectl.errors import Unauthorized
from corectl_ollama.replies import reply


def status() -> Response[bytes]:
    """Nothing is run on ollama.com, and no setting is to blame."""
    return reply({"cloud": {"disabled": True, "source": "none"}})


def signout() -> NoReturn:
    """Nobody can be signed in."""
    raise Unauthorized("you are not currently signed in")

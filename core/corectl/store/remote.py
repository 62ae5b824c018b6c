"""Where a remote model runs: the address in a create request, completed."""

from __future__ import annotations

import posixpath
from collections.abc import Collection
from urllib.parse import urlsplit

from corectl.errors import BadRequest

CLOUD = "https://ollama.com:443"
_CLOUD_HOST = "ollama.com"
_PORT = 11434
_SCHEMES = ("http", "https")


def remote_url(text: str, schemes: Collection[str] = _SCHEMES) -> str:
    """The complete address: `http://example.com:11434` for `example.com`. Raises `BadRequest`."""
    if text.startswith("/"):
        text = f"localhost{text}"
    if "://" not in text:
        text = f"http://{text or 'localhost'}"
    try:
        parts = urlsplit(text)
        port, host = parts.port, parts.hostname
    except ValueError:
        raise BadRequest("bad remote") from None
    beyond_address = parts.username is not None or parts.query or parts.fragment
    if parts.scheme not in schemes or not host or beyond_address:
        raise BadRequest("bad remote")
    if host == _CLOUD_HOST and port is None:
        return CLOUD + _clean(parts.path)
    if port is None:
        port = 443 if parts.scheme == "https" else _PORT
    shown = f"[{host}]" if ":" in host else host
    return f"{parts.scheme}://{shown}:{port}{_clean(parts.path)}"


def _clean(path: str) -> str:
    return "" if path in ("", "/") else posixpath.normpath(path)

"""What a model on another server is called here: `lab/MODEL`, or `lab/NAMESPACE/MODEL`."""

from __future__ import annotations

import re

from corectl.errors import BadRequest
from corectl.model.name import DEFAULT_HOST, ModelName, parse_reference

_SERVER = re.compile(r"[A-Za-z0-9_][A-Za-z0-9_-]{0,79}")
_FOREIGN = re.compile(r"[^A-Za-z0-9_.-]+")
_LONGEST = 80


def is_server_name(name: str) -> bool:
    """Whether a server can be called so: its name is a part of the names of its models."""
    return _SERVER.fullmatch(name) is not None


def local_name(server: str, id: str) -> ModelName | None:
    """The name here of the model `id` of a server; None if nothing of the id can be a name.

    Of a longer path only the last two parts count, of the path of a file only its name, and characters that no name
    may have become dashes. A tag that says `cloud` or `local` is left out: the server's name says where the model runs.
    """
    path, _, last = id.strip("/").rpartition("/")
    model, colon, tag = last.partition(":")
    namespace = "" if id.startswith("/") else path.rpartition("/")[2]
    parts = [server, _clean(namespace).replace(".", "-"), _clean(model)]
    text = "/".join(part for part in parts if part) + (
        f":{clean}" if colon and (clean := _clean(tag)) else ""
    )
    try:
        return parse_reference(text).name if parts[-1] else None
    except BadRequest:
        return None


def server_of(name: ModelName) -> str:
    """The part of a model's name that would be its server's."""
    return name.namespace if name.host == DEFAULT_HOST else name.host


def _clean(part: str) -> str:
    return _FOREIGN.sub("-", part).strip(".-")[:_LONGEST]

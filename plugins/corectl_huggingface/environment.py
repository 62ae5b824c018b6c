"""What the variables of huggingface_hub say: where its cache is, which server is the hub, and the token for it."""

from __future__ import annotations

import os
import re
from pathlib import Path

from corectl.errors import BadRequest, CorectlError
from corectl.model.files import read_small

HUB = "https://huggingface.co"
HOSTS = ("hf.co", "huggingface.co")
"""The hosts in names that stand for the hub, whichever server that is."""

_ADDRESS = re.compile(
    r"https?://([A-Za-z0-9_][A-Za-z0-9_.-]*|\[[0-9A-Fa-f:.]+\])(:\d{1,5})?(/[A-Za-z0-9_.~-]+)*"
)
_TOKEN = re.compile(r"[!-~]{1,512}")


def cache_folder() -> Path:
    """Where huggingface_hub keeps what it has downloaded."""
    return _path("HF_HUB_CACHE", "HUGGINGFACE_HUB_CACHE") or _home() / "hub"


def endpoint() -> str:
    """The address of the hub, without a slash at its end: `HF_ENDPOINT`, or else the public one.

    Raises `BadRequest` if it is none.
    """
    found = (os.environ.get("HF_ENDPOINT") or HUB).rstrip("/")
    if not _ADDRESS.fullmatch(found):
        raise BadRequest("HF_ENDPOINT is no address of a server, such as https://huggingface.co")
    return found


def hosts() -> tuple[str, ...]:
    """The hosts in names that are the hub's."""
    try:
        own = endpoint().split("/")[2]
    except BadRequest:
        return HOSTS
    return tuple(dict.fromkeys((*HOSTS, own)))


def token() -> str:
    """What proves to the hub who is there, or an empty text. Raises `BadRequest` for one that cannot be sent."""
    found = ""
    for name in ("HF_TOKEN", "HUGGING_FACE_HUB_TOKEN"):
        found = found or os.environ.get(name, "").strip()
    if not found:
        try:
            found = read_small(_path("HF_TOKEN_PATH") or _home() / "token", 4096).decode("ascii").strip()
        except FileNotFoundError:
            return ""
        except (OSError, UnicodeDecodeError, CorectlError) as exc:
            raise BadRequest("the file with the Hugging Face token cannot be read") from exc
    if found and not _TOKEN.fullmatch(found):
        raise BadRequest("the Hugging Face token (HF_TOKEN) has characters that no token has")
    return found


def _home() -> Path:
    cache = os.environ.get("XDG_CACHE_HOME") or "~/.cache"
    return _path("HF_HOME") or Path(os.path.expandvars(cache), "huggingface").expanduser()


def _path(*names: str) -> Path | None:
    """The folder or file that the first of these variables names which is set."""
    for name in names:
        if place := os.environ.get(name):
            return Path(os.path.expandvars(place)).expanduser()
    return None

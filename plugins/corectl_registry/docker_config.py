"""The user names and passwords that `docker login` has left in its configuration, each for its own registry."""

from __future__ import annotations

import base64
import binascii
import os
from pathlib import Path
from urllib.parse import urlsplit

import msgspec

from corectl.errors import CorectlError
from corectl.model.files import read_small
from corectl.secret import Secret

MAX_CONFIG = 2**20
HUB = {"registry-1.docker.io": "index.docker.io"}
"""Registries whose passwords are kept under another name."""


class Login(msgspec.Struct):
    auth: str = ""
    username: str = ""
    password: str = ""


class DockerConfig(msgspec.Struct):
    """What of it is read. Helpers, which are programs, are not run."""

    auths: dict[str, Login] = {}


def credentials(host: str) -> Secret:
    """`user:password` for a registry, such as `registry.example:5000`; empty if there is none. It blocks."""
    folder = os.environ.get("DOCKER_CONFIG")
    path = Path(folder) if folder else Path.home() / ".docker"
    try:
        config = msgspec.json.decode(read_small(path / "config.json", MAX_CONFIG), type=DockerConfig)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError, CorectlError):
        return Secret()
    wanted = HUB.get(host, host)
    for key, login in config.auths.items():
        if _host(key) == wanted.lower():
            return _secret(login)
    return Secret()


def _host(key: str) -> str:
    return urlsplit(key if "://" in key else f"//{key}").netloc.lower()


def _secret(login: Login) -> Secret:
    try:
        text = base64.b64decode(login.auth, validate=True).decode() if login.auth else ""
    except (binascii.Error, UnicodeDecodeError):
        return Secret()
    if not text and login.username:
        text = f"{login.username}:{login.password}"
    return Secret(text if ":" in text else "")

"""The user names and passwords that `docker login` has left in its configuration, each for its own registry."""

from __future__ import annotations

import base64
import binascii
import ipaddress
import logging
import os
from pathlib import Path
from urllib.parse import urlsplit

import httpx
import msgspec

from corectl.errors import CorectlError
from corectl.model.files import read_small
from corectl.secret import Secret

log = logging.getLogger("corectl.registry")

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


def credentials(registry: httpx.URL) -> Secret:
    """`user:password` for a registry, such as `https://registry.example:5000`; empty if there is none. It blocks.

    One for a registry with encryption is not for the same host without.
    """
    folder = os.environ.get("DOCKER_CONFIG")
    path = Path(folder) if folder else Path.home() / ".docker"
    try:
        config = msgspec.json.decode(read_small(path / "config.json", MAX_CONFIG), type=DockerConfig)
    except (OSError, msgspec.DecodeError, UnicodeDecodeError, RecursionError, CorectlError):
        return Secret()
    host = registry.netloc.decode()
    wanted = HUB.get(host, host).lower()
    clear = registry.scheme == "http" and not _is_loopback(registry.host)
    for key, login in config.auths.items():
        scheme, found = _origin(key)
        if found != wanted:
            continue
        if clear and scheme != "http":
            log.warning(
                "the login for %s is not used: without encryption everybody on the way could read it", host
            )
            continue
        return _secret(login)
    return Secret()


def _origin(key: str) -> tuple[str, str]:
    """Scheme and host; Docker writes most hosts without one."""
    parts = urlsplit(key if "://" in key else f"//{key}")
    return parts.scheme.lower(), parts.netloc.lower()


def _is_loopback(host: str) -> bool:
    try:
        return ipaddress.ip_address(host).is_loopback
    except ValueError:
        return host.lower() == "localhost"


def _secret(login: Login) -> Secret:
    try:
        text = base64.b64decode(login.auth, validate=True).decode() if login.auth else ""
    except (binascii.Error, UnicodeDecodeError):
        return Secret()
    if not text and login.username:
        text = f"{login.username}:{login.password}"
    return Secret(text if ":" in text else "")

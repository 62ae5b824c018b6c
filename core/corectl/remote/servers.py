"""Which servers models may run on: those that the settings name, and hosts that stubs may point to."""

from __future__ import annotations

from collections.abc import Collection
from urllib.parse import urlsplit

from corectl.config import Settings
from corectl.errors import BadRequest
from corectl.remote.backend import NO_KEY, RemoteServer
from corectl.remote.names import is_server_name
from corectl.secret import Secret
from corectl.store.remote import remote_url

MAX_KEY = 4096


def named_servers(settings: Settings, schemes: Collection[str]) -> list[RemoteServer]:
    """The servers in the settings. Raises `BadRequest` that names what is wrong, but never shows a key.

    `schemes` are those of addresses that a backend here can speak to.
    """
    keys = {name.lower(): key for name, key in settings.remote_keys.items()}
    found: dict[str, RemoteServer] = {}
    for name, address in settings.remotes.items():
        where = f"setting remotes ({settings.source('remotes')}): {name!r}"
        if not is_server_name(name):
            raise BadRequest(f"{where} is no name for a server; letters, digits, '_' and '-' make one")
        if name.lower() in found:
            raise BadRequest(f"{where} is there twice")
        url = _address(where, address, schemes)
        if other := next((server.name for server in found.values() if server.url == url), ""):
            # A model's record has the address alone, and each key is for one server.
            raise BadRequest(f"{where} has the address of {other!r}")
        found[name.lower()] = RemoteServer(name=name, url=url, key=keys.pop(name.lower(), NO_KEY))
    _check_keys(settings, keys)
    return list(found.values())


def _address(where: str, address: str, schemes: Collection[str]) -> str:
    scheme = address.partition("://")[0].lower() if "://" in address else "http"
    if scheme not in schemes:
        known = ", ".join(sorted(schemes)) or "none"
        raise BadRequest(f"{where}: no plugin speaks to {scheme[:32]}:// addresses; known: {known}")
    try:
        return remote_url(address, schemes)
    except (BadRequest, ValueError):
        # It may hold a password.
        raise BadRequest(f"{where} has an address that is none; it is like http://host:port") from None


def _check_keys(settings: Settings, without_server: Collection[str]) -> None:
    where = f"setting remote_keys ({settings.source('remote_keys')})"
    if without_server:
        names = ", ".join(repr(name) for name in without_server)
        raise BadRequest(f"{where}: there is no server {names} in remotes")
    for name, key in settings.remote_keys.items():
        if not _can_be_sent(key):
            raise BadRequest(f"{where}: the key of {name!r} has characters that no key has, or too many")


def _can_be_sent(key: Secret) -> bool:
    """Whether a key fits into a header, and cannot add another one to it."""
    text = key.reveal()
    return 0 < len(text) <= MAX_KEY and text.isascii() and text.isprintable() and " " not in text


def unnamed_server(url: str, hosts: Collection[str]) -> RemoteServer:
    """The server of a stub that no setting names; it gets no key. Raises `BadRequest` unless `hosts` has its host."""
    try:
        parts = urlsplit(url)
        host, name = parts.hostname or "", parts.netloc
    except ValueError:
        host = name = ""
    if host.lower() not in {item.lower() for item in hosts}:
        raise BadRequest(
            "this server cannot run this remote model: neither is its address in the setting remotes, "
            f"nor its host {host[:100]!r} in remote_hosts (OLLAMA_REMOTES)"
        )
    return RemoteServer(name=name, url=remote_url(url))

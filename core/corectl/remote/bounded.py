"""A remote backend that cannot keep the server from starting, whatever its plugin does."""

from __future__ import annotations

import logging
import re

from corectl.deadline import Deadline, described
from corectl.errors import RemoteError
from corectl.remote.backend import RemoteBackend, RemoteHost, RemoteServer

log = logging.getLogger("corectl.remote")

_SCHEME = re.compile(r"[a-z][a-z0-9+.-]{0,31}")


class BoundedRemoteBackend:
    """Asks the remote backend of a plugin; see `corectl.remote.backend.RemoteBackend`.

    What its hosts do in the event loop cannot be bounded.
    """

    def __init__(self, backend: RemoteBackend) -> None:
        """Raises ValueError for schemes that are none."""
        self._backend = backend
        self._deadline = Deadline(f"remote backend {backend.name}")
        self._told = ""
        self.schemes = tuple(backend.schemes)
        if not self.schemes or not all(map(_SCHEME.fullmatch, self.schemes)):
            raise ValueError(f"remote backend {backend.name!r} has schemes that are none: {self.schemes!r}")

    @property
    def name(self) -> str:
        return self._backend.name

    def connect(self, server: RemoteServer) -> RemoteHost:
        """The way to a server. Not for an event loop: a plugin may take its time.

        Raises `RemoteError` where it fails to give one.
        """
        try:
            return self._deadline.call(self._backend.connect, server)
        except Exception as exc:
            why = f"backend {self.name} failed: {described(exc)}"
            # It may be asked again and again.
            if why != self._told:
                log.exception("remote backend %s gives no way to %s", self.name, server.label)
            self._told = why
            raise RemoteError(f"remote server {server.label} cannot be used: {why}") from exc

"""A remote backend that cannot keep the server from starting, whatever its plugin does."""

from __future__ import annotations

import logging
import re
from collections.abc import Sequence
from typing import NoReturn

from corectl.deadline import Deadline, described
from corectl.errors import RemoteError
from corectl.messages import LoadOptions
from corectl.remote.backend import RemoteBackend, RemoteEntry, RemoteHost, RemoteServer
from corectl.runner.model_runner import ModelRunner

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
        self.schemes = tuple(backend.schemes)
        if not self.schemes or not all(map(_SCHEME.fullmatch, self.schemes)):
            raise ValueError(f"remote backend {backend.name!r} has schemes that are none: {self.schemes!r}")

    @property
    def name(self) -> str:
        return self._backend.name

    def connect(self, server: RemoteServer) -> RemoteHost:
        """The way to a server; where the plugin fails to give one, a host that says so to everybody."""
        try:
            return self._deadline.call(self._backend.connect, server)
        except Exception as exc:
            log.exception("remote backend %s gives no way to %s", self.name, server.label)
            return _NoHost(
                f"remote server {server.label} cannot be used: backend {self.name} failed: {described(exc)}"
            )


class _NoHost:
    """Stands for a server that there is no way to."""

    protocol = ""

    def __init__(self, why: str) -> None:
        self._why = why

    def _fail(self) -> NoReturn:
        raise RemoteError(self._why)

    async def models(self) -> Sequence[RemoteEntry]:
        self._fail()

    async def describe(self, model: str) -> RemoteEntry:
        self._fail()

    def runner(self, model: str, options: LoadOptions, keep_alive: float | None) -> ModelRunner:
        self._fail()

    async def unload(self, model: str) -> None:
        self._fail()

    async def close(self) -> None:
        """There is nothing to close."""

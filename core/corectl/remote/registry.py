"""The models of the servers in the settings, listed and found by name like those of this machine."""

from __future__ import annotations

import time
from collections.abc import Iterable

from corectl.errors import from_code
from corectl.model.name import ModelName
from corectl.model.record import ModelRecord
from corectl.remote.names import server_of
from corectl.remote.remotes import WAIT_SECONDS, Remotes


class RemoteModels:
    """See `corectl.registry.base.LocalRegistry`. What is known of a server answers; few questions wait for it."""

    name = "remote"

    def __init__(self, remotes: Remotes) -> None:
        self._remotes = remotes

    def list(self) -> Iterable[ModelRecord]:
        """The models of all servers that answer. Only for their first answer it waits, and not for long."""
        until = time.monotonic() + WAIT_SECONDS
        for watched in self._remotes.named.values():
            watched.known.wait(max(until - time.monotonic(), 0.0))
            if watched.up:
                yield from watched.records.values()

    def find(self, name: ModelName) -> ModelRecord | None:
        """A model that the server has had, or has now. Raises what keeps the server from saying so."""
        watched = self._remotes.named.get(server_of(name).lower())
        if watched is None:
            return None
        if name.key not in watched.records:
            if watched.up or not watched.known.is_set():
                self._remotes.refresh(watched)
            else:
                # Whoever waited for a server that is gone would take a thread from the others.
                self._remotes.wake(watched)
        record = watched.records.get(name.key)
        if record is None and watched.problem is not None:
            raise from_code(watched.problem.code, watched.problem.message)
        return record

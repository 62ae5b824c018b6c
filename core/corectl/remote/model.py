"""A model that runs elsewhere, and the right to use it."""

from __future__ import annotations

import msgspec

from corectl.errors import RemoteUnreachable
from corectl.messages import LoadOptions
from corectl.model.record import ModelRecord
from corectl.remote.watch import WatchedServer
from corectl.runner.model_runner import ModelRunner


class RemoteModel(msgspec.Struct, frozen=True, kw_only=True):
    """A model's record, and the server that runs it."""

    record: ModelRecord
    server: WatchedServer

    @property
    def id(self) -> str:
        """What the server calls it."""
        return self.record.config.remote_model

    @property
    def reason(self) -> str:
        """Why its backend is in charge, for people."""
        spoken = self.server.host.protocol
        return f"it runs on {self.server.server.label}" + (f", which speaks {spoken}" if spoken else "")

    def runner(self, options: LoadOptions, keep_alive: float | None) -> ModelRunner:
        """What answers a request."""
        return self.server.host.runner(self.id, options, keep_alive)

    def reached(self, error: Exception | None) -> None:
        """How a request went: by it the server's state is known before the next check is due."""
        self.server.seen(reached=not isinstance(error, RemoteUnreachable))

"""What a remote backend is: it speaks whole requests to other servers, where an engine computes tokens.

Nothing of a remote model is loaded here, so it takes no memory, has no runner process, and waits in no queue.
"""

from __future__ import annotations

from collections.abc import Sequence
from datetime import datetime
from typing import Protocol

import msgspec

from corectl.messages import LoadOptions
from corectl.runner.model_runner import ModelRunner
from corectl.secret import Secret

NO_KEY = Secret()


class RemoteServer(msgspec.Struct, frozen=True, kw_only=True):
    """A server that models run on. `name` is what its user calls it, or its address where nobody has given it a name.

    `url` has a scheme, a host, a port, and no slash at its end. `key` goes to this address only, and into no text.
    """

    name: str
    url: str
    key: Secret = NO_KEY

    @property
    def label(self) -> str:
        """The server for people: `lab (http://10.0.0.2:8000/v1)`."""
        return self.url if self.name in self.url else f"{self.name} ({self.url})"


class RemoteEntry(msgspec.Struct, frozen=True, kw_only=True):
    """A model that a server offers; `id` is its name there. Texts and lengths (in tokens) are empty if not known.

    `capabilities` is None where the server does not say. `digest` is 64 hexadecimal digits, or empty.
    """

    id: str
    format: str = ""
    family: str = ""
    parameter_size: str = ""
    quantization: str = ""
    context_length: int = 0
    embedding_length: int = 0
    capabilities: tuple[str, ...] | None = None
    modified_at: datetime | None = None
    digest: str = ""


class RemoteHost(Protocol):
    """The way to one server. It is made on any thread; its methods belong to the server's event loop.

    Errors are `corectl.errors`: `RemoteUnreachable` for a server that is not there, `RemoteError` for one that fails or
    cannot be understood, with the server's label in the text. One that is no longer needed is dropped without a word:
    connections that are not in use should end by themselves.
    """

    @property
    def protocol(self) -> str:
        """What is spoken, for people; empty while it is not known."""
        ...

    async def models(self) -> Sequence[RemoteEntry]:
        """All that the server offers. Also the check of its health: called every half minute, bounded in time."""
        ...

    async def describe(self, model: str) -> RemoteEntry:
        """All that is known of one model. Raises `NotFound`."""
        ...

    def runner(self, model: str, options: LoadOptions, keep_alive: float | None) -> ModelRunner:
        """Answers one request, or some, for a model. Must return at once.

        `options` are those that request or model have given, `keep_alive` is in seconds; None leaves it to the server.
        """
        ...

    async def unload(self, model: str) -> None:
        """Asks the server to give up the model's memory, if there is a way to."""
        ...

    async def close(self) -> None:
        """Ends all connections, with an error on the streams that still run."""
        ...


class RemoteBackend(Protocol):
    """A kind of server that a plugin can speak to; see `corectl.hookspecs.corectl_remote_backends`."""

    @property
    def name(self) -> str: ...

    @property
    def schemes(self) -> tuple[str, ...]:
        """The schemes of the addresses that are its own, such as `https`."""
        ...

    def connect(self, server: RemoteServer) -> RemoteHost:
        """The way to a server. Nothing is sent yet, and nothing waited for. Called on a worker thread.

        Where it raises or hangs, it is called again when the server's health is checked next, or with the next request.
        """
        ...

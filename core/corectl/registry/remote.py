"""What a remote registry is: a server that models are pulled from, and pushed to.

A plugin speaks the protocol of its registry: it says what lies behind a name, and where. The core does the rest: it
fetches in parts and goes on after breaks, checks digests, shares downloads, and writes the store (`corectl.transfer`).
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from corectl.model.manifest import Layer
from corectl.model.name import ModelName

if TYPE_CHECKING:
    # Plugins are loaded in every runner too, and there it would be 70 ms for nothing.
    import httpx


class Origin(msgspec.Struct, frozen=True):
    """What somebody asked for: a complete name, and whether its registry may be spoken to without encryption."""

    name: ModelName
    insecure: bool = False

    @property
    def url(self) -> str:
        """The address of the registry, such as `https://registry.example`."""
        return f"{'http' if self.insecure else 'https'}://{self.name.host}"


class Offer(msgspec.Struct, frozen=True, kw_only=True):
    """What a registry has under a name.

    `manifest` is stored byte for byte; its digest is that of the model. `here` has the blobs that need no download, by
    digest: their bytes, or a file on this machine that is linked or copied. Such a file may turn out to be another one
    when it is read: then the blob is fetched, so `locate` knows it as well.
    """

    manifest: bytes
    here: Mapping[str, bytes | Path] = {}


class Location(msgspec.Struct, frozen=True, kw_only=True):
    """Where a blob can be fetched.

    `headers` may hold credentials: they go to the origin of `url`, and not beyond it.
    """

    url: str
    headers: Mapping[str, str] = {}


class RegistrySession(Protocol):
    """One pull or push of one name. Its coroutines run in the event loop of the transfers, not in the server's.

    They raise `corectl.errors`: `NotFound` for what the registry does not have, `Unauthorized`, `RemoteError`.
    """

    async def offer(self) -> Offer:
        """What there is. Whatever the registry has said is checked already: sizes, digests, media types."""
        ...

    async def locate(self, layer: Layer) -> Location:
        """Where a blob is fetched now. Asked again after a try that has failed, so it must not be cached for long.

        `RemoteError` counts as such a try; any other error ends the pull.
        """
        ...


@runtime_checkable
class PushSession(RegistrySession, Protocol):
    """A session of a registry that takes models as well."""

    async def has(self, layer: Layer) -> bool:
        """Whether the registry has a blob already."""
        ...

    async def upload(self, layer: Layer, path: Path, sent: Callable[[int], None]) -> None:
        """Sends a blob from a file; `sent` is told how many of its bytes have arrived, and never goes backwards."""
        ...

    async def publish(self, manifest: bytes) -> None:
        """Makes the model visible. All of its blobs are there."""
        ...


class RemoteRegistry(Protocol):
    """A kind of registry; see `corectl.hookspecs.corectl_remote_registries` for when it is called."""

    @property
    def name(self) -> str: ...

    @property
    def hosts(self) -> tuple[str, ...]:
        """The hosts in names that are its own, such as `hf.co`; empty for one that speaks to all others."""
        ...

    def session(self, origin: Origin, http: httpx.AsyncClient) -> RegistrySession:
        """The way to one model. `http` knows proxies and certificates, follows no redirects, and belongs to the core.

        It must not block. Raises `corectl.errors`.
        """
        ...

"""The registry behind any host that no other plugin claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corectl.registry.remote import Origin, RegistrySession

if TYPE_CHECKING:
    import httpx


class OciRegistry:
    """See `corectl.registry.remote.RemoteRegistry`."""

    name = "registry"
    hosts: tuple[str, ...] = ()

    def session(self, origin: Origin, http: httpx.AsyncClient) -> RegistrySession:
        from corectl_registry.session import Session

        return Session(origin, http)

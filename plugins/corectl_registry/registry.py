"""The registry behind any host that no other plugin claims."""

from __future__ import annotations

import httpx

from corectl.registry.remote import Origin, RegistrySession


class OciRegistry:
    """See `corectl.registry.remote.RemoteRegistry`."""

    name = "registry"
    hosts: tuple[str, ...] = ()

    def session(self, origin: Origin, http: httpx.AsyncClient) -> RegistrySession:
        from corectl_registry.session import Session

        return Session(origin, http)

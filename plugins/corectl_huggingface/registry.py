"""The remote registry: which names are the hub's, and where the hub is."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corectl.registry.remote import Origin, RegistrySession
from corectl_huggingface import environment

if TYPE_CHECKING:
    import httpx


class HuggingFace:
    """See `corectl.registry.remote.RemoteRegistry`. Names are `hf.co/<owner>/<name>[:<quantization>]`."""

    name = "huggingface"

    @property
    def hosts(self) -> tuple[str, ...]:
        return environment.hosts()

    def session(self, origin: Origin, http: httpx.AsyncClient) -> RegistrySession:
        """One pull. Which server is the hub, and whether it is spoken to with encryption, `HF_ENDPOINT` says alone."""
        # Pulls are rare, and what they need takes a while to load.
        from corectl_huggingface.api import Hub
        from corectl_huggingface.cached import CachedFiles
        from corectl_huggingface.hub import HubSession

        name = origin.name
        repository = f"{name.namespace}/{name.model}"
        hub = Hub(http, environment.endpoint(), environment.token(), repository)
        return HubSession(hub, CachedFiles(name.namespace, name.model), name.tag)

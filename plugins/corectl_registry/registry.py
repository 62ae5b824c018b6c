"""The registry behind any host that no other plugin claims."""

from __future__ import annotations

from typing import TYPE_CHECKING

from corectl.registry.remote import Origin, RegistrySession
from corectl.transfer.rules import Rules

if TYPE_CHECKING:
    import httpx


class OciRegistry:
    """See `corectl.registry.remote.RemoteRegistry`."""

    name = "registry"
    hosts: tuple[str, ...] = ()

    def __init__(self, rules: Rules = Rules()) -> None:  # noqa: B008 - it never changes
        """`rules` say how uploads are parted, and how often they are tried."""
        self._rules = rules

    def session(self, origin: Origin, http: httpx.AsyncClient) -> RegistrySession:
        from corectl_registry.session import Session

        return Session(origin, http, self._rules)

"""What the thread of the transfers has for its work: one HTTP client, and the downloads that run."""

from __future__ import annotations

from corectl.errors import NotSupported
from corectl.progress import Report
from corectl.registry.remote import Origin, PushSession, RemoteRegistry
from corectl.store.catalog import Catalog
from corectl.store.manifests import StoredManifest
from corectl.transfer.client import make_client
from corectl.transfer.pull import Pull
from corectl.transfer.push import Push
from corectl.transfer.rules import Rules
from corectl.transfer.sharing import Downloads


class Work:
    """For the loop of the transfers only."""

    def __init__(self, catalog: Catalog, rules: Rules) -> None:
        self._catalog = catalog
        self._rules = rules
        self._http = make_client()
        self._downloads = Downloads(catalog.blobs, self._http, rules)

    async def pull(self, registry: RemoteRegistry, origin: Origin, report: Report) -> None:
        """See `Pull.run`."""
        session = registry.session(origin, self._http)
        await Pull(origin.name, session, self._catalog, self._downloads, report).run()

    async def push(
        self, registry: RemoteRegistry, origin: Origin, model: StoredManifest, report: Report
    ) -> None:
        """See `Push.run`. Raises `NotSupported` for a registry that models are only pulled from."""
        session = registry.session(origin, self._http)
        if not isinstance(session, PushSession):
            raise NotSupported(
                f"models cannot be pushed to {origin.name.host}: they are only pulled from there"
            )
        await Push(model, session, self._catalog, self._rules, report).run()

    async def close(self) -> None:
        """When nothing runs any more."""
        self._downloads.close()
        await self._http.aclose()

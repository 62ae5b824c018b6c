"""One model of a registry that speaks the `/v2` protocol."""

from __future__ import annotations

import httpx

from corectl.errors import NotFound, RemoteError
from corectl.model.manifest import MANIFEST_TYPE, Layer
from corectl.registry.remote import Location, Offer, Origin
from corectl.transfer.client import ask


class Session:
    """See `corectl.registry.remote.PushSession`."""

    def __init__(self, origin: Origin, http: httpx.AsyncClient) -> None:
        name = origin.name
        self._http = http
        self._url = f"{origin.url}/v2/{name.namespace}/{name.model}"
        self._tag = name.tag

    async def offer(self) -> Offer:
        answer = await ask(
            self._http, "GET", f"{self._url}/manifests/{self._tag}", headers={"accept": MANIFEST_TYPE}
        )
        if answer.status == 404:
            raise NotFound("file does not exist")
        if answer.status != 200:
            raise RemoteError(f"{answer.status}: {answer.text}")
        return Offer(manifest=answer.body)

    async def locate(self, layer: Layer) -> Location:
        return Location(url=f"{self._url}/blobs/{layer.digest}")

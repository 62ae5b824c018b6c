"""One model of a registry that speaks the `/v2` protocol."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path

import httpx
import msgspec

from corectl.errors import CorectlError, Forbidden, NotFound, RemoteError
from corectl.model.manifest import MANIFEST_TYPE, Layer
from corectl.registry.remote import Location, Offer, Origin
from corectl.transfer.client import Answer
from corectl.transfer.rules import Rules
from corectl_registry.artifacts import CONFIG_LIMIT, Artifact, is_artifact, model_of, read_artifact
from corectl_registry.auth import AuthorizedHttp
from corectl_registry.small import read_blob
from corectl_registry.upload import Upload

OCI_MANIFEST_TYPE = "application/vnd.oci.image.manifest.v1+json"
ACCEPT = f"{MANIFEST_TYPE}, {OCI_MANIFEST_TYPE}"
HUB = {"docker.io": "registry-1.docker.io", "index.docker.io": "registry-1.docker.io"}
"""Hosts in names that are not where the registry is."""


class Session:
    """See `corectl.registry.remote.PushSession`."""

    def __init__(self, origin: Origin, http: httpx.AsyncClient, rules: Rules) -> None:
        self._rules = rules
        name = origin.name
        host = HUB.get(name.host.lower(), name.host)
        registry = f"{'http' if origin.insecure else 'https'}://{host}"
        self._client = http
        self._http = AuthorizedHttp(registry, http)
        self._name = name
        self._url = f"{registry}/v2/{name.namespace}/{name.model}"
        self._asked: set[str] = set()

    async def offer(self) -> Offer:
        url = f"{self._url}/manifests/{self._name.tag}"
        answer = await self._http.ask("GET", url, headers={"accept": ACCEPT})
        if answer.status != 200:
            raise refusal(answer)
        if not is_artifact(answer.body):
            return Offer(manifest=answer.body)
        artifact = read_artifact(answer.body)
        return model_of(artifact, await self._config(artifact))

    async def _config(self, artifact: Artifact) -> bytes:
        """What an artifact says of itself, in a few bytes; nothing where that is no JSON of a size worth reading."""
        if not 0 < artifact.config.size <= CONFIG_LIMIT or not artifact.config.media_type.endswith("json"):
            return b""
        location = Location(url=self._blob(artifact.config.digest), headers=self._http.headers())
        return await read_blob(self._client, location, artifact.config.digest, artifact.config.size) or b""

    async def locate(self, layer: Layer) -> Location:
        """The registry's own address of it. When it is asked again, what proved who asks may have expired."""
        url = self._blob(layer.digest)
        if layer.digest in self._asked:
            answer = await self._http.ask("HEAD", url)
            if answer.status >= 400:
                raise refusal(answer)
        self._asked.add(layer.digest)
        return Location(url=url, headers=self._http.headers())

    async def has(self, layer: Layer) -> bool:
        answer = await self._http.ask("HEAD", self._blob(layer.digest))
        if answer.status == 404:
            return False
        # A registry may say as well where it is.
        if answer.status not in (200, 302, 307):
            raise refusal(answer)
        return True

    async def upload(self, layer: Layer, path: Path, sent: Callable[[int], None]) -> None:
        await Upload(self._http, self._url, self._name, layer, path, sent, self._rules).run()

    async def publish(self, manifest: bytes) -> None:
        url = f"{self._url}/manifests/{self._name.tag}"
        headers = {"content-type": _media_type(manifest)}
        answer = await self._http.ask("PUT", url, headers=headers, content=manifest)
        if not 200 <= answer.status < 300:
            raise refusal(answer)

    def _blob(self, digest: str) -> str:
        return f"{self._url}/blobs/{digest}"


class WireMediaType(msgspec.Struct, rename="camel"):
    media_type: str = ""


def _media_type(manifest: bytes) -> str:
    return msgspec.json.decode(manifest, type=WireMediaType).media_type or MANIFEST_TYPE


def refusal(answer: Answer) -> CorectlError:
    """The error for a reply that is no success, with what the registry says."""
    if answer.status == 404:
        return NotFound("file does not exist")
    said = f"{answer.status}: {answer.text}".rstrip(": ")
    if answer.status == 403:
        return Forbidden(f"access denied: {said}")
    return RemoteError(said)

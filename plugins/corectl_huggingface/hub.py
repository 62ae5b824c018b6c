"""One pull from the hub: a model in GGUF or as safetensors, made of the files of a repository."""

from __future__ import annotations

import asyncio

from corectl.errors import NotFound, NotSupported, RemoteUnreachable
from corectl.model.hf import MAX_CONFIG
from corectl.model.manifest import Layer, ModelConfig
from corectl.model.name import DEFAULT_TAG
from corectl.registry.remote import Location, Offer
from corectl_huggingface import parts, quants
from corectl_huggingface.api import MAX_FILE, Hub
from corectl_huggingface.cached import CachedFiles
from corectl_huggingface.documents import (
    encoded,
    folder_config,
    gguf_config,
    json_object,
    modules_of,
    shards_of,
)
from corectl_huggingface.listing import Listing, RepoFile
from corectl_huggingface.reading import Reading

MAX_LAYERS = 1000
OFFER_SECONDS = 900.0


class HubSession:
    """See `corectl.registry.remote.RegistrySession`."""

    def __init__(self, hub: Hub, cached: CachedFiles, tag: str) -> None:
        self._hub, self._cached, self._tag = hub, cached, tag
        self._fetched: dict[str, tuple[str, RepoFile]] = {}
        """Commit and file by digest, of those that are fetched in parts."""

    async def offer(self) -> Offer:
        try:
            # A hub that sends a byte now and then would keep many small files apart for hours.
            async with asyncio.timeout(OFFER_SECONDS):
                return await self._offer()
        except TimeoutError:
            raise RemoteUnreachable(
                f"Hugging Face has not sent the small files in {OFFER_SECONDS:.0f} seconds"
            ) from None

    async def _offer(self) -> Offer:
        listing = await self._hub.listing()
        reading = Reading(self._hub, listing, self._cached)
        variants = quants.variants(listing.files)
        if variants:
            chosen = quants.choose(variants, self._tag)
            found = parts.gguf_parts(listing.files, chosen)
            config = _gguf_config(listing, chosen)
        else:
            found, config = await self._folder(listing, reading)
        if len(found) > MAX_LAYERS:
            raise NotSupported(f"the model has more than {MAX_LAYERS} files")
        if listing.gated:
            await self._hub.check_access(listing.commit, listing.files[found[0].path])
        layers = [await reading.layer(part) for part in found]
        manifest, bound, data = encoded(config, layers)
        self._fetched = {digest: (listing.commit, file) for digest, file in reading.elsewhere.items()}
        return Offer(manifest=manifest, here={**reading.here, bound.digest: data})

    async def locate(self, layer: Layer) -> Location:
        if layer.digest not in self._fetched:
            raise NotFound(f"the repository has no file with the digest {layer.digest}")
        commit, file = self._fetched[layer.digest]
        return Location(url=self._hub.address(commit, file.path), headers=self._hub.headers)

    async def _folder(self, listing: Listing, reading: Reading) -> tuple[tuple[parts.Part, ...], ModelConfig]:
        if self._tag.casefold() != DEFAULT_TAG:
            raise NotFound(f'the repository has no GGUF files, and so no quantization "{self._tag}"')
        index, modules = listing.files.get(parts.INDEX), listing.files.get(parts.MODULES)
        shards = shards_of(await reading.read(index, MAX_FILE)) if index else None
        folders = modules_of(await reading.read(modules, MAX_CONFIG)) if modules else ()
        found = parts.folder_parts(listing.files, shards, folders)
        if not found:
            raise NotSupported(
                "the repository has no model that can be pulled: GGUF files, or config.json with all of its "
                "safetensors files"
            )
        config = json_object(await reading.read(listing.files[parts.CONFIG], MAX_CONFIG), parts.CONFIG)
        return found, folder_config(config, listing.parameters)


def _gguf_config(listing: Listing, chosen: quants.Variant) -> ModelConfig:
    return gguf_config(
        listing.architecture, listing.parameters, chosen.quant, context_length=listing.context_length
    )

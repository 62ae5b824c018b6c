"""Offers the models in the cache of huggingface_hub, where they lie: a registry as well."""

from __future__ import annotations

from corectl import hookimpl
from corectl.registry.base import LocalRegistry
from corectl_hfcache.registry import HuggingFaceCache

corectl_api = 1


@hookimpl
def corectl_registries() -> list[LocalRegistry]:
    return [HuggingFaceCache()]

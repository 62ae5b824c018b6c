"""Hugging Face as a registry: models of the hub are pulled, and those in its cache are used where they lie."""

from __future__ import annotations

from corectl import hookimpl
from corectl.registry.base import LocalRegistry
from corectl.registry.remote import RemoteRegistry
from corectl_huggingface.cache import HuggingFaceCache
from corectl_huggingface.registry import HuggingFace

corectl_api = 1


@hookimpl
def corectl_registries() -> list[LocalRegistry]:
    return [HuggingFaceCache()]


@hookimpl
def corectl_remote_registries() -> list[RemoteRegistry]:
    return [HuggingFace()]

"""Pulls from and pushes to registries that speak the `/v2` protocol: Ollama's, mirrors, private ones, any of OCI's."""

from __future__ import annotations

from corectl import hookimpl
from corectl.registry.remote import RemoteRegistry
from corectl_registry.registry import OciRegistry

corectl_api = 1


@hookimpl
def corectl_remote_registries() -> list[RemoteRegistry]:
    return [OciRegistry()]

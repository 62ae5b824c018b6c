"""What handlers do on worker threads, so that the event loop goes on."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from types import SimpleNamespace
from typing import Any, cast

import pytest

from corectl.config import Settings
from corectl.errors import BadRequest
from corectl.plugins import PluginHost
from corectl.scheduler.machine import Machine
from corectl.server.body import AnyRequest
from corectl.server.services import Services
from corectl.server.workshop import Workshop
from corectl.store.blobs import BlobWriter
from corectl.store.catalog import Catalog
from corectl.store.create import CreateSpec
from corectl.store.imports import Imports
from corectl_ollama.blobs import post_blob
from corectl_ollama.create import _steps
from tests.frontends.conftest import ABSENT, digest_of

Threads = list[threading.Thread]


@pytest.fixture
def services(tmp_path: Path) -> Services:
    """As far as these handlers need them."""
    settings, plugins = Settings(), PluginHost()
    workshop = Workshop(settings, plugins, Machine(settings, plugins))
    return cast(Services, SimpleNamespace(settings=settings, catalog=Catalog(tmp_path), workshop=workshop))


def noted(monkeypatch: pytest.MonkeyPatch, owner: type[Any], method: str) -> Threads:
    """The threads on which a method is called from now on."""
    threads: Threads = []
    real = getattr(owner, method)

    def call(*args: Any, **kwargs: Any) -> Any:
        threads.append(threading.current_thread())
        return real(*args, **kwargs)

    monkeypatch.setattr(owner, method, call)
    return threads


def sent(data: bytes) -> AnyRequest:
    async def receive() -> dict[str, Any]:
        return {"type": "http.request", "body": data, "more_body": False}

    return cast(AnyRequest, SimpleNamespace(receive=receive))


@pytest.mark.parametrize("digest", [digest_of(b"hello"), ABSENT])
def test_uploads_are_ended_on_a_worker_thread(
    services: Services, monkeypatch: pytest.MonkeyPatch, digest: str
) -> None:
    closing = noted(monkeypatch, BlobWriter, "close")
    if digest == ABSENT:
        with pytest.raises(BadRequest, match="digest mismatch"):
            asyncio.run(post_blob(sent(b"hello"), services, digest))
    else:
        assert asyncio.run(post_blob(sent(b"hello"), services, digest)).status_code == 201
    assert closing and threading.main_thread() not in closing
    assert len(list(services.catalog.blobs.folder.iterdir())) == (digest != ABSENT)


def test_allowed_folders_are_resolved_on_a_worker_thread(
    services: Services, monkeypatch: pytest.MonkeyPatch
) -> None:
    """They may lie on a network file system that does not answer."""
    making = noted(monkeypatch, Imports, "__init__")

    async def statuses() -> list[str]:
        spec = CreateSpec(model="stub", from_="m", remote_host="http://192.0.2.1")
        return [step.status async for step in _steps(services, spec, in_place=False)]

    assert asyncio.run(statuses())[-1] == "success"
    assert making and threading.main_thread() not in making

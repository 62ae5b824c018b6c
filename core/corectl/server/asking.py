"""What requests with a single answer share: the way to a runner that has the model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from corectl.model.record import ModelRecord
from corectl.runner.model_runner import ModelRunner
from corectl.server.context import Clock
from corectl.server.inference import find_model, not_found
from corectl.server.services import Services


@asynccontextmanager
async def asking(
    services: Services,
    clock: Clock,
    name: str,
    *,
    options: dict[str, Any],
    keep_alive: float | None,
    missing: Callable[[str], str] = not_found,
) -> AsyncIterator[tuple[ModelRecord, ModelRunner]]:
    """The model of that name, loaded. Raises what finding and loading it raise."""
    record = await find_model(services, name, missing=missing)
    model = await services.model(record)
    load, _ = services.options(record, options)
    async with services.scheduler.lease(model, load, keep_alive) as lease:
        clock.load = lease.load_ns
        yield record, lease.runner

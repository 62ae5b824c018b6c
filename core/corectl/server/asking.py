"""What requests with a single answer share: the way to a runner that has the model."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from typing import Any

from corectl.messages import LoadOptions
from corectl.model.record import ModelRecord
from corectl.runner.model_runner import ModelRunner
from corectl.scheduler.state import AnyModel
from corectl.server.context import Clock
from corectl.server.inference import find_and_read, not_found
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

    def read(record: ModelRecord) -> tuple[AnyModel, LoadOptions]:
        return services.read_model(record), services.options(record, options)[0]

    model, load = await find_and_read(services, name, read, missing=missing)
    async with services.scheduler.lease(model, load, keep_alive) as lease:
        clock.load = lease.load_ns
        yield model.record, lease.runner

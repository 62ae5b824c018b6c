"""What requests with a single answer share: the way to a runner that has the model."""

from __future__ import annotations

import time
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager

import msgspec

from corectl.model.record import ModelRecord
from corectl.runner.model_runner import ModelRunner
from corectl.server.services import Services
from corectl_ollama.inference import find_model, try_pulling
from corectl_ollama.replies import Clock
from corectl_ollama.schema import QuestionRequest, keep_alive_seconds


class Durations(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Nanoseconds: from the request's arrival to its end, and until the model was ready."""

    total_duration: int = 0
    load_duration: int = 0


@asynccontextmanager
async def asking(
    services: Services, clock: Clock, body: QuestionRequest
) -> AsyncIterator[tuple[ModelRecord, ModelRunner]]:
    """The model that a request names, loaded. Raises what finding and loading it raise."""
    record = await find_model(services, body.model, missing=try_pulling)
    model = await services.model(record)
    load, _ = services.options(record, body.options)
    async with services.scheduler.lease(model, load, keep_alive_seconds(body.keep_alive)) as lease:
        clock.load = lease.load_ns
        yield record, lease.runner


def durations(clock: Clock) -> dict[str, int]:
    """The figures, as values for a struct that is derived from `Durations`."""
    return {"total_duration": time.monotonic_ns() - clock.started, "load_duration": clock.load}

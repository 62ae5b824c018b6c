"""What requests with a single answer share: the way to a runner that has the model, and the figures."""

from __future__ import annotations

import time
from contextlib import AbstractAsyncContextManager

import msgspec

from corectl.model.record import ModelRecord
from corectl.runner.model_runner import ModelRunner
from corectl.server.asking import asking as asking_model
from corectl.server.context import Clock
from corectl.server.fields import keep_alive_seconds
from corectl.server.services import Services
from corectl_ollama.schema import QuestionRequest


class Durations(msgspec.Struct, kw_only=True, omit_defaults=True):
    """Nanoseconds: from the request's arrival to its end, and until the model was ready."""

    total_duration: int = 0
    load_duration: int = 0


def asking(
    services: Services, clock: Clock, body: QuestionRequest
) -> AbstractAsyncContextManager[tuple[ModelRecord, ModelRunner]]:
    """The model that a request names, loaded. Raises what finding and loading it raise."""
    return asking_model(
        services,
        clock,
        body.model,
        options=body.options,
        keep_alive=keep_alive_seconds(body.keep_alive),
        missing=_try_pulling,
    )


def durations(clock: Clock) -> dict[str, int]:
    """The figures, as values for a struct that is derived from `Durations`."""
    return {"total_duration": time.monotonic_ns() - clock.started, "load_duration": clock.load}


def _try_pulling(name: str) -> str:
    return f'model "{name}" not found, try pulling it first'

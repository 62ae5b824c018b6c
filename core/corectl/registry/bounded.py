"""A registry that can do no harm: it answers in time, or it offers nothing."""

from __future__ import annotations

import logging
from collections.abc import Callable, Sequence
from typing import TypeVar

from corectl.deadline import Deadline, Overdue
from corectl.errors import CorectlError
from corectl.model.name import ModelName
from corectl.model.record import ModelRecord
from corectl.registry.base import LocalRegistry

log = logging.getLogger(__name__)

T = TypeVar("T")
Records = Sequence[ModelRecord]

LINGER = 60.0
"""Seconds. Each request for a model that is not in the store asks the registries."""


class BoundedRegistry:
    """Asks the registry of a plugin, as one does: see `corectl.registry.base.LocalRegistry`. For worker threads.

    One that fails offers nothing. Only what it says to a client about one model is passed on.
    """

    def __init__(self, registry: LocalRegistry) -> None:
        self._registry = registry
        self._deadline = Deadline(f"registry {registry.name}", linger=LINGER)

    @property
    def name(self) -> str:
        return self._registry.name

    def list(self) -> Records:
        """All models on offer."""
        try:
            # What it returns may be made while it is read.
            return self._ask(lambda: tuple(self._registry.list()), ())
        except CorectlError as exc:
            log.error("registry %s failed: %s", self.name, exc.message)
            return ()

    def find(self, name: ModelName) -> ModelRecord | None:
        """The model of that name. Raises `CorectlError`."""
        return self._ask(lambda: self._registry.find(name), None)

    def _ask(self, question: Callable[[], T], nothing: T) -> T:
        try:
            return self._deadline.call(question)
        except CorectlError:
            raise
        except Overdue as exc:
            if not exc.again:
                log.error("%s; until it does, it offers no models", exc)
        except Exception:
            log.exception("registry %s failed", self.name)
        return nothing

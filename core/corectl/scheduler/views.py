"""What is in memory, as the rest of the server and plugins see it. Pure, but for the time of day."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import UTC, datetime, timedelta

from corectl.runner.supervisor import Runner
from corectl.scheduler.events import Entry
from corectl.scheduler.loader import Slot
from corectl.scheduler.state import LoadedModel

_CENTURY = 100 * 365 * 86400


def loaded(entries: Mapping[str, Entry], slots: Mapping[str, Slot], now: float) -> list[LoadedModel]:
    """The models that take requests or are about to end, latest expiry first. `now` is on the events' clock."""
    found = []
    for key, entry in entries.items():
        slot = slots.get(key)
        if entry.phase != "ready" or slot is None or slot.runner is None:
            continue
        found.append(view(slot, slot.runner, entry.active, _expiry(entry, now)))
    return sorted(found, key=lambda model: model.expires_at or datetime.max.replace(tzinfo=UTC), reverse=True)


def _expiry(entry: Entry, now: float) -> datetime | None:
    if entry.draining:
        return datetime.now(UTC) - timedelta(seconds=1)
    left = entry.keep_alive if entry.expires is None else entry.expires - now
    # Beyond a century is for ever; larger values do not fit a date.
    return None if left > _CENTURY else datetime.now(UTC) + timedelta(seconds=left)


def view(slot: Slot, runner: Runner, active: int, expires_at: datetime | None) -> LoadedModel:
    """One model. `active` requests use it."""
    assert slot.placement is not None and slot.choice is not None
    return LoadedModel(
        record=slot.model.record,
        backend=slot.choice.backend.name,
        variant=slot.choice.variant,
        backend_reason=slot.choice.reason,
        placement=slot.placement,
        info=runner.info,
        stats=runner.stats,
        pid=runner.pid,
        active=active,
        expires_at=expires_at,
        notices=slot.notices,
        load_seconds=slot.load_seconds,
    )

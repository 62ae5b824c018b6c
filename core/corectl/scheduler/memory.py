"""Memory that runners hold: what it leaves of each device, and how long it takes to come back."""

from __future__ import annotations

from collections.abc import Awaitable, Callable, Iterable, Mapping, Sequence

import msgspec

from corectl.hardware.device import Device
from corectl.runner.engine import MemoryUse
from corectl.scheduler.fit import HOST

FREED = 0.75
"""The part of the expected memory that must have come back before the next load."""
POLL_SECONDS = 0.25
POLLS = 20


class Holding(msgspec.Struct, frozen=True, kw_only=True):
    """What one runner takes of each device, and how much of that the system counts as taken in its own memory."""

    use: tuple[MemoryUse, ...]
    resident: int = 0


def free_beside(devices: Sequence[Device], holdings: Iterable[Holding]) -> tuple[Device, ...]:
    """Devices with the memory that is free while these runners stay.

    Memory that a runner has not touched yet counts as free for the system, and so do weights that are mapped from a
    file; here they do not.
    """
    held = list(holdings)
    untouched = sum(max(0, _held(holding, HOST) - holding.resident) for holding in held)
    return tuple(
        _with_free(device, device.memory_free - untouched)
        if device.kind == "cpu"
        else _with_free(
            device,
            min(
                device.memory_free,
                device.memory_total - sum(_held(holding, device.id) for holding in held),
            ),
        )
        for device in devices
    )


def free_without(devices: Sequence[Device], holdings: Iterable[Holding]) -> tuple[Device, ...]:
    """Devices with the memory that is free when these runners have gone."""
    held = list(holdings)
    return tuple(
        _with_free(
            device,
            device.memory_free
            + sum(
                holding.resident if device.kind == "cpu" else _held(holding, device.id) for holding in held
            ),
        )
        for device in devices
    )


def less_than(devices: Sequence[Device], failed: Sequence[MemoryUse], part: float) -> tuple[Device, ...]:
    """Devices as they must be seen after a load has run out of memory: with less than it would have taken.

    Each has at most `part` of the bytes in `failed`, where there are any.
    """
    took = {use.device: use.total for use in failed if use.total}
    return tuple(
        device
        if (bytes_ := took.get(HOST if device.kind == "cpu" else device.id)) is None
        else _with_free(device, min(device.memory_free, int(bytes_ * part)))
        for device in devices
    )


async def until_freed(
    probe: Callable[[], Awaitable[Sequence[Device]]],
    before: Sequence[Device],
    use: Sequence[MemoryUse],
    sleep: Callable[[float], Awaitable[None]],
) -> bool:
    """Waits until the accelerators report most of what a runner had taken as free again; False if they do not.

    `before` is what they reported while it still ran. A device that has vanished is not waited for.
    """
    free: Mapping[str, int] = {device.id: device.memory_free for device in before}
    expected = {
        item.device: free[item.device] + int(item.total * FREED)
        for item in use
        if item.device in free and item.device != HOST
    }
    for turn in range(POLLS):
        now = {device.id: device.memory_free for device in await probe()}
        if all(now.get(id, least) >= least for id, least in expected.items()):
            return True
        if turn < POLLS - 1:
            await sleep(POLL_SECONDS)
    return False


def _held(holding: Holding, device: str) -> int:
    return sum(use.total for use in holding.use if use.device == device)


def _with_free(device: Device, free: int) -> Device:
    return msgspec.structs.replace(device, memory_free=min(max(0, free), device.memory_total))

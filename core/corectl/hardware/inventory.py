"""What the hardware probes report, put together, and what was last known of it."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Mapping

import msgspec

from corectl.deadline import Deadline, Overdue
from corectl.hardware.device import Device, HardwareProbe
from corectl.hardware.eligible import eligible

log = logging.getLogger(__name__)


class Inventory:
    """Asks the probes on a worker thread. `library` is the kind of device that the operator has chosen, if any."""

    def __init__(self, probes: Mapping[str, HardwareProbe], library: str = "") -> None:
        self._probes = probes
        self._deadlines = {name: Deadline(f"hardware probe {name}") for name in probes}
        self._library = library
        self._first: asyncio.Task[tuple[Device, ...]] | None = None
        # Of the devices as last reported, by what `accelerators` is asked for: each request asks.
        self._accelerators: dict[str, tuple[Device, ...]] = {}
        self.devices: tuple[Device, ...] | None = None
        """As last reported; None before the first time."""
        self.failures: dict[str, str] = {}
        """Why probes reported nothing, by their names, when they were last asked."""
        self.unsure: tuple[Device, ...] = ()
        """What probes that have not answered in time, when they were last asked, had reported before."""
        self._answers: dict[str, tuple[Device, ...]] = {}

    def probe(self) -> tuple[Device, ...]:
        """What is there now. For worker threads: a driver may take its time.

        A probe that raises reports nothing, and neither does one that has not answered for too long; what such a one
        has reported before is in `unsure`.
        """
        found: list[Device] = []
        unsure: list[Device] = []
        failures: dict[str, str] = {}
        for name, probe in sorted(self._probes.items()):
            try:
                reported = self._deadlines[name].call(probe.devices)
                answer = tuple(msgspec.structs.replace(device, found_by=name) for device in reported)
                self._answers[name] = answer
                found += answer
            except Overdue as exc:
                failures[name] = str(exc)
                unsure += self._answers.get(name, ())
                if not exc.again:
                    log.error("%s; until it does, its devices are not used for new loads", exc)
            except Exception as exc:
                failures[name] = f"{type(exc).__name__}: {exc}"
                log.exception("hardware probe %s failed", name)
        if self.devices is None:
            for device in found:
                log.info(
                    "inference compute id=%s library=%s name=%s total=%d available=%d%s",
                    *(device.id, device.kind, device.name, device.memory_total, device.memory_free),
                    f" unusable: {device.unusable}; {device.remedy}" if device.unusable else "",
                )
        self.devices, self.unsure, self.failures = tuple(found), tuple(unsure), failures
        self._accelerators = {}
        return self.devices

    async def refresh(self) -> tuple[Device, ...]:
        """What is there now."""
        return await asyncio.to_thread(self.probe)

    async def known(self) -> tuple[Device, ...]:
        """What is there, or was when it was last asked for. Callers that come first share one question."""
        if self.devices is not None:
            return self.devices
        if self._first is None:
            self._first = asyncio.get_running_loop().create_task(self.refresh())
        return await asyncio.shield(self._first)

    def accelerators(self, variant: str = "") -> tuple[Device, ...]:
        """The accelerators, as last known, that a backend of this variant can use."""
        # This very dictionary: a worker thread may put another one in its place.
        known = self._accelerators
        if variant not in known:
            known[variant] = eligible(self.devices or (), variant=variant, library=self._library).accelerators
        return known[variant]

    @property
    def cores(self) -> int:
        """Cores of the machine that may be used, at least 1."""
        return max([1, *(device.cores for device in self.devices or () if device.kind == "cpu")])

"""A plugin with a machine that tests put together: its devices, and a backend whose models take memory on them."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from corectl import hookimpl
from corectl.hardware.device import Device, HardwareProbe
from corectl.runner.engine import (
    Availability,
    Backend,
    CacheShape,
    Engine,
    LayerMemory,
    MemoryEstimate,
    ModelSpec,
    Placement,
)
from tests.core.stories import HandRunner, Held, Stage

corectl_api = 1

MIB = 2**20
GIB = 2**30


class Machine:
    """A probe whose devices a test changes. What runners have taken of them is not free."""

    name = "machine"

    def __init__(self) -> None:
        self.there: dict[str, Device] = {}

    def devices(self) -> list[Device]:
        return list(self.there.values())

    def take(self, placement: Placement, sign: int = 1) -> None:
        """What a runner with this placement takes of the accelerators that are there, or gives back.

        The machine's own memory is only promised: nothing has touched it.
        """
        for use in placement.estimated[1:]:
            if (device := self.there.get(use.device)) is not None:
                free = device.memory_free - sign * use.total
                self.there[use.device] = msgspec.structs.replace(device, memory_free=free)


class SimulatedBackend:
    """Computes on CUDA. A model has ten layers of 100 MiB with its head, and 9 MiB of cache for each 256 tokens."""

    name = "simulated"
    formats = ("fake",)

    def availability(self) -> Availability:
        return Availability(variant="cuda")

    def estimate(self, model: ModelSpec, shape: CacheShape) -> MemoryEstimate:
        layer = LayerMemory(weights=100 * MIB, cell=MIB / 256)
        return MemoryEstimate(layers=(layer,) * 9, head=100 * MIB, host=MIB, compute=50 * MIB)

    def load(self, model: ModelSpec, placement: Placement, progress: Callable[[float], None]) -> Engine:
        raise NotImplementedError("runners are in the test's hands")


MACHINE = Machine()


class DeviceStage(Stage):
    """A stage whose scheduler decides with the default policy, on the devices that the test gives it."""

    plugins = {"simulated": "tests.core.simulated", "policies": "corectl_policies"}

    def __init__(self, folder: Path, *devices: Device, **settings: Any) -> None:
        self.machine = MACHINE
        MACHINE.there = {device.id: device for device in devices}
        super().__init__(folder, **settings)

    async def loaded(self, number: int) -> HandRunner:
        """Loads, and takes the memory until the runner ends."""
        runner = await self.runner(number)
        placement = runner.load.placement
        self.machine.take(placement)
        runner.ended.add_done_callback(lambda _: self.machine.take(placement, -1))
        runner.loaded.set_result(None)
        return runner


MakeDevices = Callable[..., DeviceStage]


async def served(it: DeviceStage, number: int, model: Any = None, **how: Any) -> tuple[HandRunner, Held]:
    """A model with a request that holds it, and its runner."""
    held = it.hold(model, **how)
    runner = await it.loaded(number)
    await held.granted
    return runner, held


def where(runner: HandRunner) -> dict[str, int]:
    placement = runner.load.placement
    return dict(zip(placement.devices[1:], placement.layers, strict=True))


def cpu(free: int = 16 * GIB) -> Device:
    return Device(id="cpu", kind="cpu", name="CPU", memory_total=16 * GIB, memory_free=free, cores=8)


def gpu(id: str, size: int) -> Device:
    return Device(id=id, kind="cuda", name=f"GPU {id}", memory_total=size, memory_free=size)


@hookimpl
def corectl_hardware_probes() -> list[HardwareProbe]:
    return [MACHINE]


@hookimpl
def corectl_backends() -> list[Backend]:
    return [SimulatedBackend()]

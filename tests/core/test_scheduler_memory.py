"""What runners leave of each device, and the wait for what they leave behind."""

from __future__ import annotations

import asyncio
from collections.abc import Sequence

from corectl.hardware.device import Device
from corectl.runner.engine import MemoryUse
from corectl.scheduler.memory import POLLS, Holding, free_beside, free_without, less_than, until_freed

CPU = Device(id="cpu", kind="cpu", name="cpu", memory_total=1000, memory_free=600)
GPU = Device(id="g", kind="cuda", name="g", memory_total=500, memory_free=300)


def free(devices: Sequence[Device]) -> list[int]:
    return [device.memory_free for device in devices]


def holding(host: int = 0, gpu: int = 0, resident: int = 0) -> Holding:
    use = (MemoryUse(device="cpu", cache=host), MemoryUse(device="g", weights=gpu))
    return Holding(use=use, resident=resident)


def test_memory_that_a_runner_has_not_touched_yet_is_not_free() -> None:
    assert free(free_beside([CPU, GPU], [])) == [600, 300]
    assert free(free_beside([CPU, GPU], [holding(host=200, resident=50)])) == [450, 300]
    assert free(free_beside([CPU, GPU], [holding(host=200, resident=250)])) == [600, 300]
    several = [holding(host=200, resident=50), holding(host=300), holding(host=900)]
    assert free(free_beside([CPU, GPU], several)) == [0, 300]


def test_memory_of_an_accelerator_that_is_promised_is_not_free() -> None:
    assert free(free_beside([CPU, GPU], [holding(gpu=100)])) == [600, 300]
    assert free(free_beside([CPU, GPU], [holding(gpu=100), holding(gpu=250)])) == [600, 150]


def test_what_would_be_free_if_runners_went() -> None:
    assert free(free_without([CPU, GPU], [holding(host=200, gpu=100, resident=50)])) == [650, 400]
    assert free(free_without([CPU, GPU], [holding(gpu=999, resident=999)])) == [1000, 500]


def test_a_load_that_failed_for_memory_says_how_much_there_is_not() -> None:
    failed = [MemoryUse(device="cpu", weights=100, compute=100), MemoryUse(device="g", cache=500)]
    assert free(less_than([CPU, GPU], failed, 0.8)) == [160, 300]
    assert free(less_than([CPU, GPU], failed[:1], 0.8)) == [160, 300]
    assert free(less_than([CPU, GPU], failed[1:], 0.5)) == [600, 250]


class Driver:
    """Gives memory back bit by bit: the free bytes of `g` as they are seen turn by turn."""

    def __init__(self, *seen: int | None) -> None:
        self.seen = list(seen)
        self.naps: list[float] = []

    async def probe(self) -> list[Device]:
        now = self.seen.pop(0) if len(self.seen) > 1 else self.seen[0]
        device = Device(id="g", kind="cuda", name="g", memory_total=500, memory_free=now or 0)
        return [CPU] if now is None else [CPU, device]

    async def sleep(self, seconds: float) -> None:
        self.naps.append(seconds)

    def freed(self) -> bool:
        use = [MemoryUse(device="cpu", weights=10_000), MemoryUse(device="g", weights=100)]
        return asyncio.run(until_freed(self.probe, [CPU, GPU], use, self.sleep))


def test_the_wait_ends_when_three_quarters_are_back() -> None:
    driver = Driver(300, 374, 375)
    assert driver.freed() and len(driver.naps) == 2


def test_the_wait_ends_after_five_seconds() -> None:
    driver = Driver(300)
    assert not driver.freed()
    assert len(driver.naps) == POLLS - 1 and 4 < sum(driver.naps) <= 5


def test_a_device_that_has_vanished_is_not_waited_for() -> None:
    driver = Driver(300, None)
    assert driver.freed() and len(driver.naps) == 1

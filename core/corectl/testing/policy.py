"""The conformance suite for scheduler policies."""

from __future__ import annotations

import random
from collections.abc import Iterator
from typing import Any

import msgspec

from corectl.hardware.device import Device
from corectl.messages import LoadOptions
from corectl.runner.engine import CacheShape, LayerMemory, MemoryEstimate, Placement
from corectl.scheduler.policy import PlacementQuestion, Resident, SchedulerPolicy, WaitingRequest
from corectl.testing.suite import Suite

QUESTIONS = 300
GIB = 2**30


class PolicySuite(Suite):
    """Everything that a scheduler policy promises, for many random situations. A subclass gives `policy`."""

    kind = "scheduler policy"

    def policy(self) -> SchedulerPolicy:
        raise NotImplementedError

    def subject(self) -> str:
        return self.policy().name

    def test_next_request(self) -> None:
        """The next request is one of those that wait, and the same situation gives the same answer."""
        choose = random.Random(1)
        for _ in range(QUESTIONS):
            waiting = [
                WaitingRequest(id=id, model=choose.choice("abc"), waited=choose.random() * 100)
                for id in choose.sample(range(1000), choose.randint(1, 8))
            ]
            found = self.policy().next_request(tuple(waiting))
            assert found in {request.id for request in waiting}
            assert self.policy().next_request(list(waiting)) == found

    def test_eviction(self) -> None:
        """The model that makes room is one of those in memory, and the same situation gives the same answer."""
        choose = random.Random(1)
        for _ in range(QUESTIONS):
            resident = [_resident(choose, model) for model in choose.sample("abcdefgh", choose.randint(1, 6))]
            found = self.policy().evict(tuple(resident))
            assert found in {item.model for item in resident}
            assert self.policy().evict(list(resident)) == found

    def test_placement(self) -> None:
        """A placement answers the question: sizes that were settled, devices that are there, and the same twice."""
        placed = 0
        for question in _questions():
            found = self.policy().place(question)
            assert self.policy().place(question) == found, question
            if found is not None:
                placed += 1
                self._answers(question, found)
        assert placed > QUESTIONS / 4, f"of {QUESTIONS} questions {placed} had an answer"

    def _answers(self, question: PlacementQuestion, found: Placement) -> None:
        usable = {device.id: device for device in question.devices if not device.unusable}
        assert found.num_ctx == question.options.num_ctx, "the context is settled already"
        assert (
            found.cells >= found.num_ctx and min(found.num_batch, found.max_sequences, found.num_thread) >= 1
        )
        assert (found.cache_type, found.flash_attention) == (
            question.shape.cache_type,
            question.shape.flash_attention,
        ), "the estimate holds for another shape"
        assert set(found.devices) <= set(usable) and len(set(found.devices)) == len(found.devices), (
            found.devices
        )
        accelerators = [id for id in found.devices if usable[id].kind != "cpu"]
        assert len(accelerators) == len(found.layers) and all(count > 0 for count in found.layers)
        assert sum(found.layers) <= len(question.estimate.layers) + 1, "more layers than there are"
        if question.options.num_gpu is not None:
            assert sum(found.layers) <= question.options.num_gpu, (
                "more layers on accelerators than were asked for"
            )
        if question.options.num_thread is not None:
            assert found.num_thread <= question.options.num_thread and found.fixed_threads
        assert question.options.use_mmap in (None, found.use_mmap)
        assert found.estimated and found.snapshots <= question.snapshots

    def test_room(self) -> None:
        """Beside other models a placement fits into what is free, on every device."""
        for question in _questions():
            found = None if question.alone else self.policy().place(question)
            if found is None:
                continue
            free = {device.id: device.memory_free for device in question.devices}
            for use in found.estimated:
                room = free.get(use.device, 0)
                if use.device != question.devices[0].id:
                    room -= question.overhead
                assert use.total <= max(room, 0), (
                    f"{use.total} bytes on {use.device} ({room} free): {question}"
                )

    def test_best_try(self) -> None:
        """With no other model in memory, one that fits into the machine's memory is placed in any case."""
        placed = 0
        for question in _questions():
            if question.devices[0].memory_total >= 64 * GIB and question.options.num_gpu is None:
                alone = msgspec.structs.replace(question, alone=True)
                assert self.policy().place(alone) is not None, f"{alone} has no answer"
                placed += 1
        assert placed


def _resident(choose: random.Random, model: str) -> Resident:
    active = choose.choice((0, 0, 1, 3))
    return Resident(
        model=model,
        active=active,
        keep_alive=choose.choice((0.0, 5.0, 300.0, float("inf"))),
        idle=0.0 if active else choose.random() * 100,
        memory=choose.randrange(8 * GIB),
    )


def _questions() -> Iterator[PlacementQuestion]:
    """Random machines and models, the same each time. The first device is the machine's CPU."""
    choose = random.Random(1)
    for _ in range(QUESTIONS):
        num_ctx = choose.choice((512, 4096, 32768))
        options: dict[str, Any] = {"num_ctx": num_ctx}
        if choose.random() < 0.3:
            options["num_gpu"] = choose.choice((0, 1, 10, 999))
        if choose.random() < 0.3:
            options["num_thread"] = choose.choice((1, 4))
        if choose.random() < 0.3:
            options["use_mmap"] = choose.choice((True, False))
        yield PlacementQuestion(
            options=LoadOptions(**options),
            estimate=_estimate(choose),
            shape=CacheShape(
                num_batch=choose.choice((64, 512)),
                max_sequences=choose.choice((1, 16)),
                cache_type=choose.choice(("f16", "q8_0")),
                flash_attention=choose.choice((None, True)),
            ),
            devices=tuple(_devices(choose)),
            num_parallel=choose.choice((0, 0, 1, 4)),
            embedding=choose.random() < 0.2,
            alone=choose.random() < 0.3,
            overhead=choose.choice((0, GIB)),
            spread=choose.random() < 0.2,
            snapshots=choose.choice((0, GIB)),
        )


def _estimate(choose: random.Random) -> MemoryEstimate:
    layer = LayerMemory(
        weights=choose.randrange(1, GIB // 4), cell=choose.choice((0.0, 1000.0)), sequence=4096
    )
    return MemoryEstimate(
        layers=(layer,) * choose.choice((2, 10, 40)),
        head=choose.randrange(GIB // 4),
        host=choose.randrange(GIB // 4),
        compute=choose.randrange(GIB // 4),
        compute_cell=choose.choice((0.0, 100.0)),
        least_compute=choose.choice((0, 1 << 20)),
    )


def _devices(choose: random.Random) -> Iterator[Device]:
    total = choose.choice((8, 64)) * GIB
    yield Device(
        id="cpu",
        kind="cpu",
        name="CPU",
        memory_total=total,
        memory_free=int(total * choose.choice((0.1, 0.5, 0.9))),
        cores=choose.choice((0, 1, 8)),
    )
    for number in range(choose.choice((0, 0, 1, 2, 4))):
        total = choose.choice((2, 8, 24)) * GIB
        unusable = "too old" if choose.random() < 0.1 else ""
        yield Device(
            id=f"gpu{number}",
            kind=choose.choice(("cuda", "cuda", "vulkan")),
            name=f"GPU {number}",
            memory_total=total,
            memory_free=int(total * choose.choice((0.05, 0.5, 1.0))),
            unusable=unusable,
            remedy="another one" if unusable else "",
        )

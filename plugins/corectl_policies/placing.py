"""Where a model goes: on one accelerator if it fits there, else on several, else as many of its layers as fit. Pure."""

from __future__ import annotations

from collections.abc import Iterator, Sequence

from corectl.hardware.device import Device
from corectl.runner.engine import Placement
from corectl.scheduler.fit import memory_use
from corectl.scheduler.policy import PlacementQuestion
from corectl_policies.layers import deal, most_layers, shares

AUTO_CONTEXTS = 2
USABLE_MEMORY = 0.9
"""The part of the free memory that a load may plan with."""
MOST_THREADS_PER_CORE = 4


class Placing:
    """One question and its answer."""

    def __init__(self, question: PlacementQuestion) -> None:
        self._question = question
        self._num_ctx = question.options.num_ctx or 1
        usable = [device for device in question.devices if not device.unusable]
        self._host = next((device for device in usable if device.kind == "cpu"), None)
        self._accelerators = [device for device in usable if device.kind != "cpu"]
        every = len(question.estimate.layers) + 1
        asked = question.options.num_gpu
        self._wanted = every if asked is None else min(asked, every)

    def answer(self) -> Placement | None:
        """See `SchedulerPolicy.place`."""
        if not self._accelerators or not self._wanted:
            return self._on_host()
        for group in self._groups():
            for contexts in self._contexts():
                found = self._whole(group, contexts)
                if found is not None:
                    return found
        return self._partly() if self._question.alone else None

    def _contexts(self) -> tuple[int, ...]:
        """How many contexts the pool may hold, best first."""
        if self._question.embedding:
            return (1,)
        fixed = self._question.num_parallel
        return (fixed,) if fixed else tuple(range(AUTO_CONTEXTS, 0, -1))

    def _groups(self) -> Iterator[list[Device]]:
        """Accelerators to try together: each alone, the one with the most room first, and then all of a kind."""
        if not self._question.spread:
            for device in sorted(self._accelerators, key=self._room, reverse=True):
                yield [device]
        yield self._largest_kind()

    def _largest_kind(self) -> list[Device]:
        """All accelerators of the kind that has the most room: only such compute together, and not all of them."""
        kinds = sorted({device.kind for device in self._accelerators})
        groups = [
            [device for device in self._accelerators if device.kind == kind and not device.alone]
            for kind in kinds
        ]
        groups += [[device] for device in self._accelerators if device.alone]
        return max(filter(None, groups), key=lambda group: sum(map(self._room, group)))

    def _room(self, device: Device) -> int:
        return max(0, int((device.memory_free - self._question.overhead) * USABLE_MEMORY))

    def _costs(self, contexts: int) -> tuple[list[int], int]:
        """Bytes of each layer that is to lie on an accelerator, and those of computing, for each accelerator.

        The projector goes with the first of these layers, and is not among them.
        """
        estimate = self._question.estimate
        every = len(estimate.layers) + 1
        one_each = memory_use(
            estimate,
            self._question.shape,
            cells=self._num_ctx * contexts,
            accelerators=[""] * every,
            layers=[1] * every,
        )[1:]
        costs = [use.weights + use.cache for use in one_each]
        costs[0] -= estimate.vision
        return costs[every - self._wanted :], one_each[0].compute

    def _seeing(self, costs: list[int]) -> list[int]:
        """The costs with the projector's, which the first layer brings along."""
        return [costs[0] + self._question.estimate.vision, *costs[1:]] if costs else []

    def _whole(self, group: Sequence[Device], contexts: int) -> Placement | None:
        """With all layers that are wanted there, and the rest in the machine's memory; None if there is no room."""
        costs, compute = self._costs(contexts)
        layers = deal(self._seeing(costs), [self._room(device) - compute for device in group])
        if layers is None:
            return None
        placement = self._placement(contexts, group, layers)
        return placement if self._host_has_room(placement) else None

    def _partly(self) -> Placement | None:
        """The best try, with nothing left to make room: fewer layers, unless their number was asked for."""
        group = self._largest_kind()
        contexts = self._contexts()[-1]
        costs, compute = self._costs(contexts)
        rooms = [self._room(device) - compute for device in group]
        if self._question.options.num_gpu is not None:
            layers = shares(self._seeing(costs), rooms)
        else:
            layers = most_layers(costs, rooms, beside_first=self._question.estimate.vision)
        placement = self._placement(contexts, group, layers)
        return placement if self._machine_has_room(placement) else None

    def _on_host(self) -> Placement | None:
        for contexts in self._contexts():
            placement = self._placement(contexts, (), ())
            if self._host_has_room(placement):
                return placement
        return placement if self._question.alone and self._machine_has_room(placement) else None

    def _host_has_room(self, placement: Placement) -> bool:
        """Whether the part in the machine's memory fits there beside what others use."""
        free = self._host.memory_free if self._host else 0
        return self._in_machine(placement) <= free * USABLE_MEMORY

    def _machine_has_room(self, placement: Placement) -> bool:
        """Whether it could fit there at all. Others may give up memory, and weights need not all be in it at once."""
        if self._host is None:
            return True
        return self._in_machine(placement) <= self._host.memory_total + self._host.swap

    def _in_machine(self, placement: Placement) -> int:
        """Bytes in the machine's memory, with those on accelerators that have no other."""
        sharing = {device.id for device in self._accelerators if device.integrated}
        host, *others = placement.estimated
        return host.total + sum(use.total for use in others if use.device in sharing)

    def _placement(self, contexts: int, group: Sequence[Device], layers: Sequence[int]) -> Placement:
        question = self._question
        options, shape = question.options, question.shape
        used = [(device.id, count) for device, count in zip(group, layers, strict=True) if count]
        cores = max([1, *(device.cores for device in question.devices if device.kind == "cpu")])
        return Placement(
            num_ctx=self._num_ctx,
            cells=self._num_ctx * contexts,
            num_batch=shape.num_batch,
            max_sequences=shape.max_sequences,
            # More threads than cores only wait for one another; far more than that ends an engine.
            num_thread=min(options.num_thread or cores, cores * MOST_THREADS_PER_CORE),
            fixed_threads=options.num_thread is not None,
            layers=tuple(count for _, count in used),
            use_mmap=options.use_mmap is not False,
            devices=(*([self._host.id] if self._host else []), *(id for id, _ in used)),
            cache_type=shape.cache_type,
            flash_attention=shape.flash_attention,
            snapshots=question.snapshots,
            estimated=memory_use(
                question.estimate,
                shape,
                cells=self._num_ctx * contexts,
                accelerators=[id for id, _ in used],
                layers=[count for _, count in used],
            ),
        )

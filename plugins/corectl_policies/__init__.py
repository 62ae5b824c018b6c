"""The default scheduling policy: first come, first served; idle models go first; a pool of two contexts."""

from __future__ import annotations

from collections.abc import Sequence

from corectl import hookimpl
from corectl.runner.engine import Placement
from corectl.scheduler.fit import memory_use
from corectl.scheduler.policy import PlacementQuestion, Resident, SchedulerPolicy, WaitingRequest

corectl_api = 1

AUTO_CONTEXTS = 2
MOST_THREADS_PER_CORE = 4
USABLE_MEMORY = 0.9
"""The part of the free memory that a load may plan with."""


class DefaultPolicy:
    """See `corectl.scheduler.policy.SchedulerPolicy`."""

    name = "default"

    def next_request(self, waiting: Sequence[WaitingRequest]) -> int:
        return waiting[0].id

    def evict(self, resident: Sequence[Resident]) -> str:
        """The idle model with the shortest keep-alive; if all are busy, the busy one with the shortest."""
        idle_first = sorted(resident, key=lambda item: (item.active > 0, item.keep_alive, item.model))
        return idle_first[0].model

    def place(self, question: PlacementQuestion) -> Placement | None:
        num_ctx = question.options.num_ctx or 1
        free = sum(device.memory_free for device in question.devices if not device.unusable) * USABLE_MEMORY
        contexts = 1 if question.embedding else question.num_parallel or AUTO_CONTEXTS
        if not question.num_parallel and _total(question, num_ctx * contexts) > free:
            contexts = 1
        if _total(question, num_ctx * contexts) > free and not question.alone:
            return None
        return self._placement(question, num_ctx, contexts)

    def _placement(self, question: PlacementQuestion, num_ctx: int, contexts: int) -> Placement:
        options, shape = question.options, question.shape
        cores = max([1, *(device.cores for device in question.devices if device.kind == "cpu")])
        return Placement(
            num_ctx=num_ctx,
            cells=num_ctx * contexts,
            num_batch=shape.num_batch,
            max_sequences=shape.max_sequences,
            # More threads than cores only wait for one another; far more than that ends an engine.
            num_thread=min(options.num_thread or cores, cores * MOST_THREADS_PER_CORE),
            fixed_threads=options.num_thread is not None,
            use_mmap=options.use_mmap is not False,
            devices=tuple(device.id for device in question.devices if not device.unusable),
            cache_type=shape.cache_type,
            flash_attention=shape.flash_attention,
            snapshots=question.snapshots,
            estimated=memory_use(question.estimate, shape, cells=num_ctx * contexts),
        )


def _total(question: PlacementQuestion, cells: int) -> int:
    return sum(use.total for use in memory_use(question.estimate, question.shape, cells=cells))


@hookimpl
def corectl_scheduler_policies() -> list[SchedulerPolicy]:
    return [DefaultPolicy()]

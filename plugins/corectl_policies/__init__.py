"""The default scheduling policy: first come, first served; idle models go first; accelerators are filled first."""

from __future__ import annotations

from collections.abc import Sequence

from corectl import hookimpl
from corectl.runner.engine import Placement
from corectl.scheduler.policy import PlacementQuestion, Resident, SchedulerPolicy, WaitingRequest
from corectl_policies.placing import Placing

corectl_api = 1


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
        return Placing(question).answer()


@hookimpl
def corectl_scheduler_policies() -> list[SchedulerPolicy]:
    return [DefaultPolicy()]

"""What the tests of the scheduler's state machine begin with: a policy, requests, and a model that is in memory."""

from __future__ import annotations

from collections.abc import Sequence

from corectl.messages import LoadOptions
from corectl.runner.engine import Placement
from corectl.scheduler.core import SchedulerCore
from corectl.scheduler.events import Grant, Request, Start
from corectl.scheduler.policy import PlacementQuestion, Resident, WaitingRequest


class Policy:
    """First come, first served; the idle one with the shortest keep-alive goes. Keeps what it was asked."""

    name = "test"

    def __init__(self) -> None:
        self.asked: list[Sequence[Resident]] = []

    def next_request(self, waiting: Sequence[WaitingRequest]) -> int:
        return waiting[0].id

    def evict(self, resident: Sequence[Resident]) -> str:
        self.asked.append(resident)
        return min(resident, key=lambda item: (item.active > 0, item.keep_alive, item.model)).model

    def place(self, question: PlacementQuestion) -> Placement | None:
        raise NotImplementedError


def core(max_loaded: int = 2, max_queue: int = 100, policy: Policy | None = None) -> SchedulerCore:
    return SchedulerCore(policy or Policy(), max_loaded=max_loaded, max_queue=max_queue)


def request(
    id: int,
    model: str = "a",
    *,
    ctx: int = 4096,
    keep: float = 300.0,
    now: float = 0.0,
    threads: int = 0,
    automatic: bool = False,
) -> Request:
    options = LoadOptions(num_ctx=ctx, num_thread=threads or None)
    return Request(id=id, model=model, options=options, keep_alive=keep, arrived=now, automatic=automatic)


def ready(
    scheduler: SchedulerCore, id: int, model: str = "a", *, keep: float = 300.0, now: float = 0.0
) -> None:
    """Loads a model for a request, which then ends."""
    assert scheduler.arrive(request(id, model, keep=keep, now=now)) == [Start(model, id)]
    assert scheduler.loaded(model, 100, now) == [Grant(id, model)]
    scheduler.release(id, now)

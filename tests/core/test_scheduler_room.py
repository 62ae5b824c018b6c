"""The scheduler's state machine, event by event: what goes when there is no room, and policies that fail."""

from __future__ import annotations

from collections.abc import Sequence

import pytest

from corectl.errors import LoadFailed
from corectl.scheduler.events import Action, Grant, Reject, Start, Stop
from corectl.scheduler.policy import Resident, WaitingRequest
from tests.core.scheduling import Policy, core, ready, request


def test_a_model_stays_if_the_one_for_whom_it_made_room_has_left() -> None:
    scheduler = core(max_loaded=1)
    scheduler.arrive(request(1, "a"))
    scheduler.loaded("a", 100, 0.0)
    assert scheduler.arrive(request(2, "b")) == [] == scheduler.arrive(request(3, "a"))
    assert scheduler.cancel(2, 1.0) == [Grant(3, "a")]


def test_an_idle_model_goes_while_a_busy_one_drains() -> None:
    scheduler = core(max_loaded=2)
    for id, model in ((1, "a"), (2, "b")):
        scheduler.arrive(request(id, model, keep=id))
        scheduler.loaded(model, 100, 0.0)
    assert scheduler.arrive(request(3, "c")) == [], "both are busy: a drains"
    assert scheduler.release(2, 1.0) == [Stop("b", "evicted")]
    assert scheduler.gone("b", 2.0) == [Start("c", 3)]
    assert scheduler.arrive(request(4, "a", now=2.0)) == [Grant(4, "a")], "it need not go any more"


def test_a_load_that_ran_out_of_memory_waits_until_it_is_alone() -> None:
    scheduler = core(max_loaded=5)
    ready(scheduler, 1, "a")
    scheduler.arrive(request(2, "b"))
    scheduler.loaded("b", 100, 0.0)
    assert scheduler.arrive(request(3, "c")) == [Start("c", 3)]
    assert scheduler.no_room("c", 1.0, alone=True) == [Stop("a", "evicted")]
    assert scheduler.gone("a", 2.0) == [], "b is busy"
    assert scheduler.arrive(request(4, "b", now=2.0)) == []
    assert scheduler.release(2, 3.0) == [Stop("b", "evicted")]
    assert scheduler.gone("b", 4.0) == [Start("c", 3, last_try=True)]
    assert scheduler.loaded("c", 100, 5.0) == [Grant(3, "c"), Start("b", 4)]


def test_a_load_that_ran_out_of_memory_beside_models_that_have_gone_since_is_tried_once_more() -> None:
    scheduler = core(max_loaded=5)
    ready(scheduler, 1, "a")
    assert scheduler.arrive(request(2, "b")) == [Start("b", 2)]
    scheduler.dying("a")
    assert scheduler.gone("a", 1.0) == []
    assert scheduler.no_room("b", 2.0, alone=True) == [Start("b", 2, last_try=True)]
    assert scheduler.load_failed("b", LoadFailed("too large"), 3.0) != []
    assert scheduler.arrive(request(3, "b", now=4.0)) == [Start("b", 3)], "it may find others to evict again"


def test_no_room_is_not_remembered_when_nobody_waits_any_more() -> None:
    scheduler = core(max_loaded=5)
    scheduler.arrive(request(1, "a"))
    scheduler.loaded("a", 100, 0.0)
    scheduler.arrive(request(2, "b"))
    assert scheduler.no_room("b", 1.0, alone=True) == []
    assert scheduler.cancel(2, 2.0) == []
    assert scheduler.arrive(request(3, "b", now=3.0)) == [Start("b", 3)]


def test_a_given_up_load_without_room_evicts_nobody() -> None:
    scheduler = core()
    ready(scheduler, 1, "b")
    scheduler.arrive(request(2, "a"))
    scheduler.cancel(2, 1.0)
    assert scheduler.no_room("a", 2.0) == []
    assert scheduler.entries["b"].phase == "ready"


def test_too_many_models_evict_the_idle_one_with_the_shortest_keep_alive() -> None:
    policy = Policy()
    scheduler = core(policy=policy)
    ready(scheduler, 1, "a", keep=10)
    scheduler.arrive(request(2, "b", keep=5))
    scheduler.loaded("b", 100, 7.0)
    assert scheduler.arrive(request(3, "c", now=9.0)) == [Stop("a", "evicted")]
    assert policy.asked == [
        [
            Resident(model="a", active=0, keep_alive=10, idle=9.0, memory=100),
            Resident(model="b", active=1, keep_alive=5, idle=0.0, memory=100),
        ]
    ]
    assert scheduler.gone("a", 10.0) == [Start("c", 3)]


def test_a_busy_model_is_evicted_when_its_requests_have_ended() -> None:
    scheduler = core(max_loaded=1)
    scheduler.arrive(request(1, "a"))
    scheduler.loaded("a", 100, 0.0)
    assert scheduler.arrive(request(2, "b")) == []
    assert scheduler.arrive(request(3, "a")) == []
    assert scheduler.release(1, 1.0) == [Stop("a", "evicted")]
    assert scheduler.gone("a", 2.0) == [Start("b", 2)]


def test_no_more_than_one_is_evicted_at_a_time() -> None:
    scheduler = core()
    ready(scheduler, 1, "a")
    ready(scheduler, 2, "b")
    assert scheduler.arrive(request(3, "c")) == [Stop("a", "evicted")]
    assert scheduler.arrive(request(4, "d")) == []


def test_no_room_evicts_and_tries_again() -> None:
    scheduler = core()
    ready(scheduler, 1, "a")
    assert scheduler.arrive(request(2, "b")) == [Start("b", 2)]
    assert scheduler.no_room("b", 1.0) == [Stop("a", "evicted")]
    assert scheduler.gone("a", 2.0) == [Start("b", 2)]


def test_no_room_tries_again_alone_if_the_others_have_gone_meanwhile() -> None:
    scheduler = core()
    ready(scheduler, 1, "a")
    assert scheduler.arrive(request(2, "b")) == [Start("b", 2)]
    assert scheduler.expire("a") == [Stop("a", "stopped")]
    assert scheduler.gone("a", 1.0) == []
    assert scheduler.no_room("b", 2.0) == [Start("b", 2)]


def test_no_room_beside_one_that_has_gone_meanwhile_evicts_nobody() -> None:
    scheduler = core(max_loaded=5)
    ready(scheduler, 1, "a")
    ready(scheduler, 2, "b")
    assert scheduler.expire("a") == [Stop("a", "stopped")]
    assert scheduler.arrive(request(3, "c")) == [Start("c", 3)]
    assert scheduler.gone("a", 1.0) == []
    assert scheduler.no_room("c", 2.0, stale=True) == [Start("c", 3)]
    assert scheduler.no_room("c", 3.0) == [Stop("b", "evicted")]


class Unreliable(Policy):
    """Raises, or chooses what is not there."""

    def __init__(self, chosen: int | str | None) -> None:
        super().__init__()
        self.chosen = chosen

    def next_request(self, waiting: Sequence[WaitingRequest]) -> int:
        if not isinstance(self.chosen, int):
            return super().next_request(waiting)
        if self.chosen < 0:
            raise ZeroDivisionError("oops")
        return self.chosen

    def evict(self, resident: Sequence[Resident]) -> str:
        if isinstance(self.chosen, int) or not self.chosen:
            raise ZeroDivisionError("oops")
        return self.chosen


def failures(actions: list[Action]) -> list[tuple[int, str]]:
    return [(action.id, action.error.message) for action in actions if isinstance(action, Reject)]


@pytest.mark.parametrize(("chosen", "why"), [(-1, "ZeroDivisionError: oops"), (77, "chose 77")])
def test_a_policy_that_cannot_order_fails_the_request_that_was_decided_on(chosen: int, why: str) -> None:
    scheduler = core(policy=Unreliable(chosen))
    ((id, message),) = failures(scheduler.arrive(request(1)))
    assert id == 1 and "scheduler policy 'test' failed" in message and why in message
    assert not scheduler.entries and scheduler.waiting == 0


def test_a_policy_that_chooses_a_request_of_a_loaded_model_does_not_replace_it() -> None:
    scheduler = core(policy=Unreliable(None))
    scheduler.arrive(request(1, "a"))
    scheduler.loaded("a", 100, 0.0)
    scheduler.arrive(request(2, "a", ctx=8192))
    scheduler._policy = Unreliable(2)
    assert [id for id, _ in failures(scheduler.arrive(request(3, "b")))] == [3]
    assert scheduler.entries["a"].active == 1


@pytest.mark.parametrize("chosen", ["", "nobody"])
def test_a_policy_that_cannot_evict_fails_the_request_that_was_decided_on(chosen: str) -> None:
    scheduler = core(max_loaded=1, policy=Unreliable(chosen))
    scheduler.arrive(request(1, "a"))
    scheduler.loaded("a", 100, 0.0)
    assert [id for id, _ in failures(scheduler.arrive(request(2, "b")))] == [2]
    assert scheduler.arrive(request(3, "a")) == [Grant(3, "a")]
    assert scheduler.release(1, 1.0) == [] and scheduler.entries["a"].active == 1


def test_a_policy_that_cannot_evict_when_there_is_no_room() -> None:
    scheduler = core(policy=Unreliable(""))
    scheduler.arrive(request(1, "a"))
    scheduler.loaded("a", 100, 0.0)
    scheduler.arrive(request(2, "b"))
    assert [id for id, _ in failures(scheduler.no_room("b", 1.0))] == [2]
    assert set(scheduler.entries) == {"a"}

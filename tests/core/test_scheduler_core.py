"""The scheduler's state machine, event by event: who waits, who is served, and when a model is loaded anew."""

from __future__ import annotations

import msgspec

from corectl.errors import BadModelFile, Busy, CorectlError, DoesNotFit, LoadFailed
from corectl.scheduler.events import Action, Grant, Reject, Start, Stop
from tests.core.scheduling import core, ready, request

BROKEN = LoadFailed("broken")


def test_the_first_request_loads_and_the_second_shares() -> None:
    scheduler = core()
    assert scheduler.arrive(request(1)) == [Start("a", 1)]
    assert scheduler.arrive(request(2)) == []
    assert scheduler.loaded("a", 100, 1.0) == [Grant(1, "a"), Grant(2, "a")]
    assert scheduler.arrive(request(3)) == [Grant(3, "a")]
    assert scheduler.entries["a"].active == 3 and scheduler.waiting == 0


def test_one_load_at_a_time_in_order_of_arrival() -> None:
    scheduler = core()
    assert scheduler.arrive(request(1, "a")) == [Start("a", 1)]
    assert scheduler.arrive(request(2, "b")) == []
    assert scheduler.loaded("a", 100, 1.0) == [Grant(1, "a"), Start("b", 2)]


def test_a_loaded_model_answers_while_another_loads() -> None:
    scheduler = core()
    ready(scheduler, 1, "a")
    scheduler.arrive(request(2, "b"))
    assert scheduler.arrive(request(3, "a")) == [Grant(3, "a")]


def refused(actions: list[Action]) -> bool:
    return any(isinstance(action, Reject) and isinstance(action.error, Busy) for action in actions)


def test_a_full_queue_refuses_only_what_would_wait() -> None:
    """The one that is being loaded for does not count."""
    scheduler = core(max_queue=1)
    ready(scheduler, 1, "a")
    assert scheduler.arrive(request(2, "b")) == [Start("b", 2)]
    assert scheduler.arrive(request(3, "b")) == []
    assert refused(scheduler.arrive(request(4, "b"))) and refused(scheduler.arrive(request(5, "c")))
    assert scheduler.refused == 2
    assert scheduler.arrive(request(6, "a")) == [Grant(6, "a")]
    assert scheduler.cancel(4, 0.0) == [] and scheduler.release(4, 0.0) == []
    assert scheduler.loaded("b", 100, 1.0) == [Grant(2, "b"), Grant(3, "b")]


def test_without_a_queue_models_are_loaded_all_the_same() -> None:
    scheduler = core(max_loaded=1, max_queue=0)
    assert scheduler.arrive(request(1, "a")) == [Start("a", 1)]
    assert refused(scheduler.arrive(request(2, "a")))
    scheduler.loaded("a", 100, 0.0)
    assert scheduler.arrive(request(3, "a")) == [Grant(3, "a")]
    assert scheduler.arrive(request(4, "b")) == [], "its turn is next"
    assert refused(scheduler.arrive(request(5, "b")))
    scheduler.release(1, 1.0)
    assert scheduler.release(3, 1.0) == [Stop("a", "evicted")]
    assert scheduler.gone("a", 2.0) == [Start("b", 4)]


def test_a_load_that_can_begin_is_not_refused_because_another_model_drains() -> None:
    scheduler = core(max_loaded=3, max_queue=0)
    scheduler.arrive(request(1, "a"))
    scheduler.loaded("a", 100, 0.0)
    assert scheduler.arrive(request(2, "a", ctx=8192)) == []
    assert scheduler.arrive(request(3, "b")) == [Start("b", 3)]
    assert refused(scheduler.arrive(request(4, "c")))


def test_keep_alive_counts_from_the_end_of_the_last_request() -> None:
    scheduler = core()
    scheduler.arrive(request(1, keep=10))
    scheduler.arrive(request(2, keep=20))
    scheduler.loaded("a", 100, 0.0)
    scheduler.release(2, 100.0)
    assert scheduler.next_expiry() is None
    assert scheduler.tick(1000.0) == []
    scheduler.release(1, 1000.0)
    assert scheduler.next_expiry() == 1020.0
    assert scheduler.tick(1019.9) == []
    assert scheduler.tick(1020.0) == [Stop("a", "idle")]
    assert scheduler.next_expiry() is None and scheduler.tick(2000.0) == []
    assert scheduler.gone("a", 1020.0) == [] and not scheduler.entries


def test_a_new_request_stops_the_clock() -> None:
    scheduler = core()
    ready(scheduler, 1, keep=10)
    scheduler.arrive(request(2, keep=10, now=5.0))
    assert scheduler.next_expiry() is None and scheduler.tick(50.0) == []


def test_keep_alive_0_ends_the_model_after_the_last_of_several_requests() -> None:
    scheduler = core()
    for id in (1, 2, 3):
        scheduler.arrive(request(id, keep=0))
    scheduler.loaded("a", 100, 0.0)
    assert scheduler.release(2, 1.0) == [] == scheduler.release(1, 1.0)
    assert scheduler.release(3, 2.0) == [Stop("a", "idle")]
    assert scheduler.arrive(request(4)) == []
    assert scheduler.gone("a", 3.0) == [Start("a", 4)]


def test_the_latest_request_decides_the_keep_alive() -> None:
    scheduler = core()
    scheduler.arrive(request(1, keep=300))
    scheduler.loaded("a", 100, 0.0)
    scheduler.arrive(request(2, keep=0))
    scheduler.release(2, 1.0)
    assert scheduler.release(1, 2.0) == [Stop("a", "idle")]


def test_for_ever_is_for_ever() -> None:
    scheduler = core()
    ready(scheduler, 1, keep=float("inf"))
    assert scheduler.next_expiry() == float("inf") and scheduler.tick(1e12) == []


def test_other_options_mean_a_reload_when_the_running_ones_have_ended() -> None:
    scheduler = core()
    scheduler.arrive(request(1))
    scheduler.loaded("a", 100, 0.0)
    assert scheduler.arrive(request(2, ctx=8192)) == []
    assert scheduler.arrive(request(3)) == [], "those behind wait too, or the reload would never come"
    assert scheduler.release(1, 1.0) == [Stop("a", "reload")]
    assert scheduler.gone("a", 2.0) == [Start("a", 2)]
    assert scheduler.loaded("a", 100, 3.0) == [Grant(2, "a"), Grant(3, "a")], (
        "the longer context does for both"
    )
    assert scheduler.arrive(request(4, threads=2)) == []
    scheduler.release(2, 4.0)
    assert scheduler.release(3, 4.0) == [Stop("a", "reload")]
    assert scheduler.gone("a", 5.0) == [Start("a", 4)]


def test_a_context_that_is_longer_than_what_was_asked_for_does() -> None:
    scheduler = core()
    scheduler.arrive(request(1, ctx=8192))
    scheduler.loaded("a", 100, 0.0)
    assert scheduler.arrive(request(2, ctx=512)) == [Grant(2, "a")]
    assert scheduler.arrive(request(3, ctx=4096, automatic=True)) == [Grant(3, "a")]
    assert scheduler.arrive(request(4, ctx=8193)) == []


def test_a_longer_context_does_not_do_for_one_who_needs_it_exactly() -> None:
    scheduler = core()
    asked = ((1, 512), (2, 256), (3, 512))
    exactly = [msgspec.structs.replace(request(id, ctx=ctx), exact=True) for id, ctx in asked]
    scheduler.arrive(exactly[0])
    scheduler.loaded("a", 100, 0.0)
    assert scheduler.arrive(exactly[1]) == [] == scheduler.cancel(2, 0.0)
    assert scheduler.arrive(exactly[2]) == [Grant(3, "a")]


def test_requests_that_suit_pass_one_that_does_not_for_as_long_as_a_load_takes() -> None:
    scheduler = core()
    scheduler.arrive(request(1))
    scheduler.loaded("a", 100, 10.0)
    assert scheduler.arrive(request(2, ctx=8192, now=12.0)) == []
    assert scheduler.next_expiry() == 22.0
    assert scheduler.arrive(request(3, now=21.0)) == [Grant(3, "a")]
    assert scheduler.tick(21.9) == []
    assert scheduler.tick(22.0) == [] and scheduler.next_expiry() is None
    assert scheduler.arrive(request(4, now=22.1)) == [], "now it is the other's turn"
    assert scheduler.release(1, 23.0) == []
    assert scheduler.release(3, 24.0) == [Stop("a", "reload")]
    assert scheduler.gone("a", 25.0) == [Start("a", 2)]


def test_a_request_that_does_not_suit_never_waits_for_an_idle_model() -> None:
    scheduler = core()
    scheduler.arrive(request(1))
    scheduler.loaded("a", 100, 60.0)
    scheduler.release(1, 61.0)
    assert scheduler.arrive(request(2, ctx=8192, now=62.0)) == [Stop("a", "reload")]


def test_a_stream_of_requests_that_suit_starves_nobody() -> None:
    scheduler = core()
    scheduler.arrive(request(0))
    scheduler.loaded("a", 100, 5.0)
    scheduler.arrive(request(1000, ctx=8192, now=6.0))
    now, id = 6.0, 0
    while scheduler.arrive(request(id + 1, now=now)) == [Grant(id + 1, "a")]:
        assert scheduler.release(id, now) == []
        now, id = now + 1.0, id + 1
        assert now < 20
    # One that comes right when it is time still gets in, and no other.
    assert now == 12.0
    assert scheduler.release(id, now) == [Stop("a", "reload")]
    assert scheduler.gone("a", now) == [Start("a", 1000)]


def test_waiting_requests_with_the_same_options_share_a_load() -> None:
    """Four that alternate need two loads, not four."""
    scheduler = core()
    scheduler.arrive(request(1))
    for id in (2, 3, 4):
        scheduler.arrive(request(id, ctx=8192 if id % 2 == 0 else 4096))
    assert scheduler.loaded("a", 100, 5.0) == [Grant(1, "a"), Grant(3, "a")]
    assert scheduler.release(1, 6.0) == []
    assert scheduler.release(3, 6.0) == [Stop("a", "reload")]
    assert scheduler.gone("a", 7.0) == [Start("a", 2)]
    assert scheduler.loaded("a", 100, 8.0) == [Grant(2, "a"), Grant(4, "a")]


def test_a_model_stays_if_the_one_who_wanted_it_otherwise_has_left() -> None:
    scheduler = core()
    scheduler.arrive(request(1))
    scheduler.loaded("a", 100, 0.0)
    assert scheduler.arrive(request(2, ctx=8192)) == [] == scheduler.arrive(request(3))
    assert scheduler.cancel(2, 1.0) == [Grant(3, "a")]
    assert scheduler.next_expiry() is None


def test_a_context_that_was_lowered_suits_those_who_did_not_ask_for_it() -> None:
    scheduler = core()
    scheduler.arrive(request(1, ctx=32768, automatic=True))
    scheduler.arrive(request(2, ctx=32768))
    assert scheduler.loaded("a", 100, 1.0, num_ctx=4096) == [Grant(1, "a")]
    assert scheduler.arrive(request(3, ctx=32768, automatic=True, now=1.0)) == [Grant(3, "a")]
    assert scheduler.arrive(request(4, ctx=4096, now=1.0)) == [Grant(4, "a")]
    assert scheduler.next_expiry() == 2.0
    for id in (1, 3):
        assert scheduler.release(id, 1.5) == []
    assert scheduler.release(4, 1.5) == [Stop("a", "reload")]
    assert scheduler.gone("a", 2.0) == [Start("a", 2)]


def test_a_context_that_was_lowered_is_not_loaded_again_for_an_input_that_is_to_fit_it() -> None:
    scheduler = core()
    exactly = msgspec.structs.replace(request(1, ctx=32768, automatic=True), exact=True)
    scheduler.arrive(exactly)
    assert scheduler.loaded("a", 100, 1.0, num_ctx=4096) == [Grant(1, "a")]
    assert scheduler.release(1, 1.0) == []
    asked = msgspec.structs.replace(request(2, ctx=8192, now=2.0), exact=True)
    assert scheduler.arrive(asked) == [Stop("a", "reload")]


def test_options_that_are_left_open_suit_what_is_loaded() -> None:
    scheduler = core()
    scheduler.arrive(request(1, threads=2))
    scheduler.loaded("a", 100, 0.0)
    assert scheduler.arrive(request(2)) == [Grant(2, "a")]
    assert scheduler.arrive(request(3, threads=4)) == []


def test_cancel_of_the_only_waiting_request_gives_up_the_load() -> None:
    scheduler = core()
    scheduler.arrive(request(1))
    scheduler.arrive(request(2, "b"))
    assert scheduler.cancel(1, 1.0) == [Stop("a", "cancelled")]
    assert scheduler.gone("a", 2.0) == [Start("b", 2)]


def test_a_load_that_somebody_waits_for_goes_on() -> None:
    scheduler = core()
    scheduler.arrive(request(1))
    scheduler.arrive(request(2))
    assert scheduler.cancel(1, 1.0) == []
    assert scheduler.loaded("a", 100, 2.0) == [Grant(2, "a")]


def test_a_load_that_only_suits_the_one_that_left_is_given_up() -> None:
    scheduler = core()
    scheduler.arrive(request(1))
    scheduler.arrive(request(2, ctx=8192))
    assert scheduler.cancel(1, 1.0) == [Stop("a", "cancelled")]
    assert scheduler.gone("a", 2.0) == [Start("a", 2)]


def test_a_request_during_a_given_up_load_gets_a_fresh_one() -> None:
    scheduler = core()
    scheduler.arrive(request(1))
    scheduler.cancel(1, 1.0)
    assert scheduler.arrive(request(2)) == []
    assert scheduler.gone("a", 2.0) == [Start("a", 2)]


def test_a_given_up_load_that_succeeds_all_the_same_serves_nobody() -> None:
    scheduler = core()
    scheduler.arrive(request(1))
    scheduler.cancel(1, 1.0)
    scheduler.arrive(request(2))
    assert scheduler.loaded("a", 100, 2.0) == []
    assert scheduler.gone("a", 3.0) == [Start("a", 2)]


def test_a_failed_load_fails_those_that_would_have_used_it() -> None:
    scheduler = core()
    scheduler.arrive(request(1))
    scheduler.arrive(request(2, ctx=8192))
    scheduler.arrive(request(3))
    scheduler.arrive(request(4, "b"))
    assert scheduler.load_failed("a", BROKEN, 1.0) == [Reject(1, BROKEN), Reject(3, BROKEN), Start("a", 2)]


def test_a_failed_load_does_not_fail_those_that_would_do_with_less() -> None:
    scheduler = core()
    scheduler.arrive(request(1, ctx=8192))
    scheduler.arrive(request(2, ctx=4096))
    scheduler.arrive(request(3, ctx=8192))
    large = DoesNotFit("too large")
    assert scheduler.load_failed("a", large, 1.0) == [Reject(1, large), Reject(3, large), Start("a", 2)]
    assert scheduler.load_failed("a", large, 2.0) == [Reject(2, large)]


def test_a_load_that_fails_for_another_reason_is_not_tried_again_for_those_who_need_less() -> None:
    for error in (BROKEN, BadModelFile("damaged")):
        scheduler = core()
        scheduler.arrive(request(1, ctx=8192))
        scheduler.arrive(request(2, ctx=4096))
        assert scheduler.load_failed("a", error, 1.0) == [Reject(1, error), Reject(2, error)]


def test_a_runner_that_dies_is_replaced_and_late_releases_do_not_count() -> None:
    scheduler = core()
    scheduler.arrive(request(1))
    scheduler.loaded("a", 100, 0.0)
    assert scheduler.gone("a", 1.0) == []
    assert scheduler.arrive(request(2)) == [Start("a", 2)]
    scheduler.loaded("a", 100, 2.0)
    assert scheduler.release(1, 3.0) == []
    assert scheduler.entries["a"].active == 1
    scheduler.release(2, 4.0)
    assert scheduler.release(2, 5.0) == [] and scheduler.entries["a"].active == 0


def test_a_dying_runner_takes_no_new_requests() -> None:
    scheduler = core()
    scheduler.arrive(request(1))
    scheduler.loaded("a", 100, 0.0)
    assert scheduler.dying("a") == []
    assert scheduler.arrive(request(2)) == []
    assert scheduler.release(1, 1.0) == []
    assert scheduler.gone("a", 2.0) == [Start("a", 2)]
    assert scheduler.dying("a") == [] and scheduler.entries["a"].phase == "loading"


def test_unload_of_an_idle_and_of_a_busy_model() -> None:
    scheduler = core()
    ready(scheduler, 1)
    assert scheduler.expire("a") == [Stop("a", "stopped")]
    assert scheduler.expire("a") == []
    scheduler.gone("a", 1.0)
    scheduler.arrive(request(2, now=1.0))
    scheduler.loaded("a", 100, 2.0)
    assert scheduler.expire("a", "device lost") == [] and scheduler.expire("nobody") == []
    assert scheduler.arrive(request(3, now=3.0)) == []
    assert scheduler.release(2, 4.0) == [Stop("a", "device lost")]
    assert scheduler.gone("a", 5.0) == [Start("a", 3)]


def test_unload_while_it_loads_waits_for_those_who_asked_for_it() -> None:
    scheduler = core()
    scheduler.arrive(request(1))
    assert scheduler.expire("a") == []
    assert scheduler.loaded("a", 100, 1.0) == [Grant(1, "a")]
    assert scheduler.release(1, 2.0) == [Stop("a", "stopped")]


def test_errors_are_passed_on_as_they_are() -> None:
    scheduler = core()
    scheduler.arrive(request(1))
    error = CorectlError("strange")
    assert scheduler.load_failed("a", error, 0.0) == [Reject(1, error)]

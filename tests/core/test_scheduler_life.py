"""The scheduler's state machine in a life of random events: nobody is lost, nothing is granted twice."""

from __future__ import annotations

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, initialize, invariant, precondition, rule

from corectl.errors import LoadFailed
from corectl.scheduler.events import Action, Grant, Reject, Start, Stop
from tests.core.scheduling import core, request

BROKEN = LoadFailed("broken")
MODELS = st.sampled_from("abcd")


class Life(RuleBasedStateMachine):
    """Clients, runners and a clock, in any order; what the scheduler says is always carried out, some day."""

    def __init__(self) -> None:
        super().__init__()
        self.now = 0.0
        self.next_id = 1
        self.waiting: set[int] = set()
        self.granted: dict[int, str] = {}
        self.orphans: set[int] = set()
        self.runners: set[str] = set()
        self.loading: str | None = None
        self.aborted: set[str] = set()
        self.stopping: set[str] = set()

    @initialize(max_loaded=st.integers(1, 3), max_queue=st.integers(0, 6))
    def begin(self, max_loaded: int, max_queue: int) -> None:
        self.max_loaded, self.max_queue = max_loaded, max_queue
        self.core = core(max_loaded, max_queue)

    def carry_out(self, actions: list[Action]) -> None:
        for action in actions:
            match action:
                case Grant(id=id, model=model):
                    self.waiting.remove(id)
                    assert model in self.runners and model not in self.stopping
                    self.granted[id] = model
                case Reject(id=id):
                    self.waiting.remove(id)
                case Start(model=model, id=id):
                    assert id in self.waiting, "a load for a request that is not there"
                    assert self.loading is None and model not in self.runners | self.aborted
                    self.loading = model
                case Stop(model=model):
                    if model == self.loading:
                        self.loading = None
                        self.aborted.add(model)
                    else:
                        assert model in self.runners and model not in self.stopping
                        assert model not in self.granted.values(), "stopped while in use"
                        self.stopping.add(model)

    @rule(
        model=MODELS,
        ctx=st.sampled_from((1, 2)),
        keep=st.sampled_from((0.0, 5.0, float("inf"))),
        automatic=st.booleans(),
    )
    def arrive(self, model: str, ctx: int, keep: float, automatic: bool) -> None:
        id, self.next_id = self.next_id, self.next_id + 1
        self.waiting.add(id)
        wanted = request(id, model, ctx=ctx, keep=keep, now=self.now, automatic=automatic)
        self.carry_out(self.core.arrive(wanted))

    @rule(data=st.data())
    @precondition(lambda self: self.waiting)
    def cancel(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.waiting)))
        self.waiting.remove(id)
        self.carry_out(self.core.cancel(id, self.now))

    @rule(data=st.data())
    @precondition(lambda self: self.granted or self.orphans)
    def release(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted({*self.granted, *self.orphans})))
        self.granted.pop(id, None)
        self.orphans.discard(id)
        self.carry_out(self.core.release(id, self.now))

    @rule(how=st.sampled_from(("loaded", "lowered", "failed", "no room", "out of memory")))
    @precondition(lambda self: self.loading)
    def load_ends(self, how: str) -> None:
        model, self.loading = str(self.loading), None
        if how in ("loaded", "lowered"):
            self.runners.add(model)
        self.carry_out(self.answer(model, how))

    @rule(data=st.data(), how=st.sampled_from(("gone", "loaded", "failed", "no room")))
    @precondition(lambda self: self.aborted)
    def aborted_load_ends(self, data: st.DataObject, how: str) -> None:
        """As it was asked to, or because it was faster."""
        model = data.draw(st.sampled_from(sorted(self.aborted)))
        self.aborted.remove(model)
        if how == "loaded":
            self.runners.add(model)
            self.stopping.add(model)
        self.carry_out(self.answer(model, how))

    def answer(self, model: str, how: str) -> list[Action]:
        match how:
            case "loaded":
                return self.core.loaded(model, 100, self.now)
            case "lowered":
                return self.core.loaded(model, 100, self.now, num_ctx=1)
            case "out of memory":
                return self.core.no_room(model, self.now, alone=True)
            case "failed":
                return self.core.load_failed(model, BROKEN, self.now)
            case "no room":
                return self.core.no_room(model, self.now)
        return self.core.gone(model, self.now)

    @rule(data=st.data(), breaks_off=st.booleans())
    @precondition(lambda self: self.runners)
    def runner_ends(self, data: st.DataObject, breaks_off: bool) -> None:
        """One that was asked to, or a crash."""
        model = data.draw(st.sampled_from(sorted(self.stopping or self.runners)))
        if breaks_off:
            self.carry_out(self.core.dying(model))
        self.runners.remove(model)
        self.stopping.discard(model)
        lost = {id for id, key in self.granted.items() if key == model}
        self.orphans |= lost
        self.granted = {id: key for id, key in self.granted.items() if key != model}
        self.carry_out(self.core.gone(model, self.now))

    @rule(model=MODELS)
    def unload(self, model: str) -> None:
        self.carry_out(self.core.expire(model))

    @invariant()
    def nobody_waits_for_what_would_serve_him(self) -> None:
        if hasattr(self, "core"):
            for entry in self.core.entries.values():
                assert not entry.serves or not self.core._waiting_for(entry)

    @rule(seconds=st.floats(0.1, 10))
    def time_passes(self, seconds: float) -> None:
        self.now += seconds
        self.carry_out(self.core.tick(self.now))

    @invariant()
    def what_it_knows_is_what_there_is(self) -> None:
        if not hasattr(self, "core"):
            return
        there = self.runners | self.aborted | ({self.loading} if self.loading else set())
        assert set(self.core.entries) == there
        assert len(there) <= self.max_loaded
        # Besides the queue, there may be one whose turn it is, and one that is loaded for.
        assert self.core.waiting == len(self.waiting) <= self.max_queue + 2
        for model, entry in self.core.entries.items():
            assert entry.active == sum(1 for key in self.granted.values() if key == model)
            assert (entry.expires is None) == (entry.active > 0 or entry.phase != "ready")
            assert entry.active or not entry.draining or entry.phase != "ready", "idle, and on no way out"

    @invariant()
    def somebody_is_at_work_for_those_who_wait(self) -> None:
        """No lost wake-up: a load, a stop, or a request that runs will bring the next event."""
        if self.waiting:
            assert self.loading or self.aborted or self.stopping or self.granted

    def teardown(self) -> None:
        """When clients only finish and runners only obey, everybody is served."""
        if not hasattr(self, "core"):
            return
        for _ in range(1000):
            if self.loading:
                model, self.loading = self.loading, None
                self.runners.add(model)
                self.carry_out(self.core.loaded(model, 100, self.now))
            elif self.aborted:
                self.carry_out(self.core.gone(self.aborted.pop(), self.now))
            elif self.stopping:
                model = min(self.stopping)
                self.stopping.remove(model)
                self.runners.remove(model)
                self.carry_out(self.core.gone(model, self.now))
            elif self.granted:
                id = min(self.granted)
                del self.granted[id]
                self.carry_out(self.core.release(id, self.now))
            else:
                break
            self.what_it_knows_is_what_there_is()
        assert not self.waiting, "requests that nobody will ever serve"


Life.TestCase.settings = settings(max_examples=150, stateful_step_count=40, deadline=None)
TestLife = Life.TestCase

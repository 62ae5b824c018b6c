"""The scheduler as a state machine: events in, actions out. No processes, no clock of its own, no waiting.

A model is known by its key (where its weights lie), and is `loading`, `ready` or `stopping`. One model loads at a
time; requests for models that are ready pass those that wait for a load. A model that is to go (idle for too long,
evicted, asked to stop, or loaded with other options than the next request wants) is *draining*: it takes no new
requests and stops when its last one has ended. If those for whom it was to go leave first, it stays.

A busy model is not loaded anew as soon as somebody wants it with other options: for as long as loading took, it goes
on to serve those whom it suits. So requests that alternate share loads, and none waits longer than for one load more.
"""

from __future__ import annotations

from corectl.errors import BadModelFile, BadRequest, Busy, CorectlError, DoesNotFit, LoadFailed, OutOfMemory
from corectl.scheduler.events import Action, Entry, Grant, Reject, Request, Start, Stop
from corectl.scheduler.policy import Resident, SchedulerPolicy, WaitingRequest

BUSY = "server busy, please try again.  maximum pending requests exceeded"


class SchedulerCore:
    """See the module. Every event method returns the actions to carry out, in order.

    Of those who wait, the one whose turn it is does not count for `max_queue`; so with 0 there is no queue, but models
    are loaded all the same.
    """

    def __init__(self, policy: SchedulerPolicy, *, max_loaded: int, max_queue: int) -> None:
        self._policy = policy
        self._max_queue = max_queue
        self.max_loaded = max_loaded
        self.refused = 0
        self.entries: dict[str, Entry] = {}
        self._waiting: dict[int, Request] = {}
        self._granted: dict[int, str] = {}
        # Models that found no room since something has last gone. Those with True wait until all others have.
        self._crowded: dict[str, bool] = {}

    @property
    def waiting(self) -> int:
        return len(self._waiting)

    def next_expiry(self) -> float | None:
        """When `tick` is to be called next."""
        times = [time for entry in self.entries.values() for time in (entry.expires, entry.reload_at)]
        return min((time for time in times if time is not None), default=None)

    def arrive(self, request: Request) -> list[Action]:
        """A request wants its model."""
        entry = self.entries.get(request.model)
        at_once = self._may_load() if entry is None else entry.serves and entry.suits(request)
        if not at_once and len(self._waiting) > self._max_queue:
            self.refused += 1
            return [Reject(request.id, Busy(BUSY))]
        self._waiting[request.id] = request
        return self._pump(request.arrived)

    def cancel(self, id: int, now: float) -> list[Action]:
        """A waiting request has gone away. A load that nobody waits for any more is given up."""
        request = self._waiting.pop(id, None)
        if request is None:
            return []
        if all(other.model != request.model for other in self._waiting.values()):
            self._crowded.pop(request.model, None)
        entry = self.entries.get(request.model)
        if entry is not None and entry.phase == "loading" and not self._waiting_for(entry):
            return self._stop(entry, "cancelled")
        return self._pump(now)

    def release(self, id: int, now: float) -> list[Action]:
        """A granted request has ended."""
        entry = self.entries.get(self._granted.pop(id, ""))
        if entry is None or entry.phase != "ready":
            return []
        entry.active -= 1
        if entry.active == 0:
            entry.since = now
            entry.expires = now + entry.keep_alive
            if entry.keep_alive <= 0 and not entry.draining:
                entry.draining = "idle"
        return self._settle(entry) + self._pump(now)

    def loaded(self, model: str, memory: int, now: float, num_ctx: int | None = None) -> list[Action]:
        """A load has succeeded; `memory` is in bytes, `num_ctx` the context that it came to, if not what was asked."""
        entry = self.entries[model]
        if entry.phase != "loading":
            return self._pump(now)
        entry.phase = "ready"
        entry.memory = memory
        entry.num_ctx = num_ctx or entry.num_ctx
        entry.load_seconds = now - entry.since
        entry.since = entry.ready_at = now
        entry.expires = now + entry.keep_alive
        leaves, entry.draining = entry.draining, ""
        actions = self._pump(now)
        if leaves and entry.phase == "ready":
            entry.draining = entry.draining or leaves
            actions += self._settle(entry)
        return actions

    def load_failed(self, model: str, error: CorectlError, now: float) -> list[Action]:
        """A load has failed: so have the requests that would have used it, but for those that may need less."""
        entry = self.entries.pop(model)
        failed = self._waiting_for(entry)
        damaged = isinstance(error, BadModelFile)
        if isinstance(error, BadRequest | DoesNotFit | OutOfMemory) and not damaged:
            failed = [request for request in failed if entry.asked_by(request)]
        for request in failed:
            del self._waiting[request.id]
        return [Reject(request.id, error) for request in failed] + self._pump(now)

    def no_room(self, model: str, now: float, *, alone: bool = False, stale: bool = False) -> list[Action]:
        """A load does not fit beside what is in memory: something must go first, or everything if it is `alone`.

        It is `stale` if something has gone since it was looked at: that may have been enough.
        """
        entry = self.entries[model]
        if entry.phase == "stopping":
            return self.gone(model, now)
        del self.entries[model]
        if stale:
            return self._pump(now)
        self._crowded[model] = alone
        if not self.entries:
            # The others have gone in the meantime.
            return self._pump(now)
        try:
            return self._make_room(model, now)
        except Exception as exc:
            self.entries[model] = entry
            return self.load_failed(model, self._policy_error(exc), now)

    def dying(self, model: str) -> list[Action]:
        """A runner has broken off. `gone` follows when its process has ended; new requests wait for the next one."""
        entry = self.entries.get(model)
        if entry is not None and entry.phase == "ready":
            self._leave(entry)
        return []

    def gone(self, model: str, now: float) -> list[Action]:
        """A runner has ended, asked to or not, and its memory is free."""
        self.entries.pop(model, None)
        self._crowded = {key: alone for key, alone in self._crowded.items() if alone}
        # Requests that it served are over too; when they are released, that must not count for its successor.
        self._granted = {id: key for id, key in self._granted.items() if key != model}
        return self._pump(now)

    def expire(self, model: str, reason: str = "stopped") -> list[Action]:
        """The model must leave memory, as soon as its requests have ended."""
        entry = self.entries.get(model)
        if entry is None or entry.phase == "stopping":
            return []
        entry.draining = reason
        return self._settle(entry)

    def tick(self, now: float) -> list[Action]:
        """Time has passed: models that have been idle for long enough go, and those that others wait for."""
        actions: list[Action] = []
        for entry in list(self.entries.values()):
            if entry.phase == "ready" and entry.expires is not None and entry.expires <= now:
                entry.draining = entry.draining or "idle"
                actions += self._settle(entry)
        return actions + self._pump(now)

    def _pump(self, now: float) -> list[Action]:
        """Serves every waiting request that can be served, and starts at most one load."""
        self._reprieve()
        actions: list[Action] = []
        unserved: dict[str, Request] = {}
        for request in list(self._waiting.values()):
            entry = self.entries.get(request.model)
            if entry is not None and entry.serves and entry.suits(request):
                actions.append(self._grant(entry, request))
            else:
                unserved.setdefault(request.model, request)
        for model, entry in self.entries.items():
            entry.reload_at = None
            if entry.serves and model in unserved:
                entry.reload_at = max(unserved[model].arrived, entry.ready_at) + entry.load_seconds
                if not entry.active or now >= entry.reload_at:
                    entry.reload_at = None
                    entry.draining = "reload"
                    actions += self._settle(entry)
        return actions + self._load_next(now)

    def _may_load(self) -> bool:
        """Whether a request for a model that is not there starts a load as soon as it comes."""
        return (
            len(self.entries) < self.max_loaded
            and all(entry.phase != "loading" for entry in self.entries.values())
            and all(request.model in self.entries for request in self._waiting.values())
        )

    def _reprieve(self) -> None:
        """Models that drain for others stay after all if nobody waits for that any more."""
        draining = [entry for entry in self.entries.values() if entry.phase == "ready" and entry.draining]
        if not draining:
            return
        homeless = any(request.model not in self.entries for request in self._waiting.values())
        for entry in draining:
            wanted = entry.draining == "evicted" and homeless
            if entry.draining == "reload":
                wanted = len(self._waiting_for(entry)) < sum(
                    request.model == entry.model for request in self._waiting.values()
                )
            if entry.draining in ("evicted", "reload") and not wanted:
                entry.draining = ""

    def _load_next(self, now: float) -> list[Action]:
        if any(entry.phase == "loading" for entry in self.entries.values()):
            return []
        actions: list[Action] = []
        while homeless := [
            WaitingRequest(id=req.id, model=req.model, waited=now - req.arrived)
            for req in self._waiting.values()
            if req.model not in self.entries
        ]:
            try:
                return actions + self._load_one(homeless, now)
            except Exception as exc:
                # A policy is a plugin: it fails the request that was decided on, and nothing else.
                failed = self._waiting.pop(homeless[0].id)
                actions.append(Reject(failed.id, self._policy_error(exc)))
        return actions

    def _load_one(self, homeless: list[WaitingRequest], now: float) -> list[Action]:
        chosen = self._policy.next_request(homeless)
        if chosen not in [waiting.id for waiting in homeless]:
            raise ValueError(f"next_request chose {chosen!r}, which does not wait")
        request = self._waiting[chosen]
        if self.entries and (len(self.entries) >= self.max_loaded or request.model in self._crowded):
            return self._make_room(request.model, now)
        last_try = self._crowded.pop(request.model, False)
        self.entries[request.model] = Entry(
            model=request.model,
            options=request.options,
            num_ctx=request.options.num_ctx,
            backend=request.backend,
            automatic=request.automatic,
            keep_alive=request.keep_alive,
            since=now,
        )
        return [Start(request.model, request.id, last_try)]

    def _make_room(self, model: str, now: float) -> list[Action]:
        """Lets something go, or everything for a model that must be alone."""
        if not self._crowded.get(model):
            return self._evict(now)
        actions: list[Action] = []
        for entry in list(self.entries.values()):
            if entry.serves:
                entry.draining = "evicted"
                actions += self._settle(entry)
        return actions

    def _evict(self, now: float) -> list[Action]:
        """Chooses what makes room, unless something is on its way out already.

        A busy model that drains is not waited for while there are idle ones.
        """
        if any(entry.phase == "stopping" for entry in self.entries.values()):
            return []
        draining = any(entry.phase == "ready" and entry.draining for entry in self.entries.values())
        resident = [
            Resident(
                model=entry.model,
                active=entry.active,
                keep_alive=entry.keep_alive,
                idle=0.0 if entry.active else now - entry.since,
                memory=entry.memory,
            )
            for entry in self.entries.values()
            if entry.serves and not (draining and entry.active)
        ]
        if not resident:
            return []
        chosen = self._policy.evict(resident)
        if chosen not in [model.model for model in resident]:
            raise ValueError(f"evict chose {chosen!r}, which is not in memory")
        entry = self.entries[chosen]
        entry.draining = "evicted"
        return self._settle(entry)

    def _policy_error(self, exc: Exception) -> CorectlError:
        error = LoadFailed(f"scheduler policy {self._policy.name!r} failed: {type(exc).__name__}: {exc}")
        error.__cause__ = exc
        return error

    def _waiting_for(self, entry: Entry) -> list[Request]:
        """Those that will use the model as it is being loaded."""
        return [req for req in self._waiting.values() if req.model == entry.model and entry.suits(req)]

    def _grant(self, entry: Entry, request: Request) -> Grant:
        del self._waiting[request.id]
        self._granted[request.id] = entry.model
        entry.active += 1
        entry.keep_alive = request.keep_alive
        entry.expires = None
        return Grant(request.id, entry.model)

    def _settle(self, entry: Entry) -> list[Action]:
        """Stops a draining model when its last request has ended."""
        if entry.draining and entry.phase == "ready" and not entry.active:
            return self._stop(entry, entry.draining)
        return []

    def _stop(self, entry: Entry, reason: str) -> list[Action]:
        self._leave(entry)
        return [Stop(entry.model, reason)]

    def _leave(self, entry: Entry) -> None:
        entry.phase = "stopping"
        entry.expires = entry.reload_at = None

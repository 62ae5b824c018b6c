"""The scheduler in the server: carries out what `SchedulerCore` decides. One event loop owns it; no locks."""

from __future__ import annotations

import asyncio
import logging
import math
import time
from collections import Counter
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager

import msgspec

from corectl import trace
from corectl.config import Settings
from corectl.errors import Busy, Canceled, CorectlError, LoadFailed, NotSupported, OutOfMemory
from corectl.hardware.device import Device
from corectl.messages import LoadOptions
from corectl.plugins import PluginHost
from corectl.remote.model import RemoteModel
from corectl.runner.supervisor import STOP_GRACE, Runner
from corectl.scheduler.context import Context
from corectl.scheduler.core import SchedulerCore
from corectl.scheduler.events import Action, Entry, Grant, Reject, Request, Start, Stop
from corectl.scheduler.fit import HOST
from corectl.scheduler.loader import Loader, NoRoom, Slot, compared
from corectl.scheduler.machine import Machine
from corectl.scheduler.memory import until_freed
from corectl.scheduler.plan import FitPlan
from corectl.scheduler.state import AnyModel, Lease, LoadedModel, Model, SchedulerStats, summarize
from corectl.scheduler.views import loaded, view
from corectl.trace import Trace

log = logging.getLogger(__name__)

CLOSING = "the server is shutting down"
DEVICE_LOST = "device lost"
RAN_OUT = "out of memory"
LOST_SECONDS = 0.5
"""After so long a device that was not there is looked for again."""


class _Pending(msgspec.Struct, frozen=True):
    """A request that waits, or uses its model."""

    model: Model
    request: Request
    granted: asyncio.Future[Slot]


class Scheduler:
    """Queues requests, loads and unloads models."""

    def __init__(self, settings: Settings, plugins: PluginHost) -> None:
        policy = plugins.policies.get(settings.scheduler_policy)
        if policy is None:
            known = ", ".join(sorted(plugins.policies)) or "none"
            raise NotSupported(
                f"there is no scheduler policy {settings.scheduler_policy!r}; installed: {known}"
            )
        self._settings = settings
        self._plugins = plugins
        self.machine = Machine(settings, plugins)
        self._loader = Loader(settings, plugins, policy, self.machine)
        self._core = SchedulerCore(policy, max_loaded=self.machine.max_loaded, max_queue=settings.max_queue)
        self._slots: dict[str, Slot] = {}
        self._requests: dict[int, _Pending] = {}
        self._runners: dict[Runner, Slot] = {}
        self._next_id = 1
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False
        self._loads = self._load_failures = 0
        self._load_seconds = 0.0
        self._unloads: Counter[str] = Counter()

    @property
    def stats(self) -> SchedulerStats:
        """Counts, as of now."""
        return SchedulerStats(
            waiting=self._core.waiting,
            refused=self._core.refused,
            loads=self._loads,
            load_failures=self._load_failures,
            load_seconds=self._load_seconds,
            smaller_loads=self._loader.smaller_loads,
            unloads=dict(self._unloads),
        )

    async def _survey(self) -> tuple[Device, ...]:
        """What the machine has now, before a load. Models on a device that has vanished are given up."""
        devices, usable = await self.machine.survey()
        if self._lost(usable):
            # A driver that did not answer once is no reason to throw models out.
            await asyncio.sleep(LOST_SECONDS)
            devices, usable = await self.machine.survey()
        for key, lost in self._lost(usable).items():
            name = self._slots[key].model.record.name.short
            log.warning("%s is lost: %s can no longer be used", name, ", ".join(lost))
            self._carry_out(self._core.expire(key, DEVICE_LOST))
        return devices

    def _lost(self, usable: set[str]) -> dict[str, list[str]]:
        """The devices that models in memory are on and that are not usable, by the model's key."""
        found = {
            key: [id for id in slot.placement.devices if id not in usable and id != HOST]
            for key, slot in self._slots.items()
            if slot.runner is not None and slot.placement is not None and not slot.leaves
        }
        return {key: lost for key, lost in found.items() if lost}

    @asynccontextmanager
    async def lease(
        self, model: AnyModel, options: LoadOptions, keep_alive: float | None = None
    ) -> AsyncIterator[Lease]:
        """Waits until the model is loaded with these options, and keeps it so meanwhile. A remote one never waits.

        `keep_alive` in seconds replaces the configured one. Raises `Busy`, `BadRequest`, `LoadFailed`, `NotSupported`.
        Cancelling the wait gives up a load that nobody else waits for.
        """
        current = trace.current()
        current.model, current.outcome = model.record.name.short, "cancelled"
        grant = self._elsewhere if isinstance(model, RemoteModel) else self._here
        try:
            async with grant(model, options, keep_alive, current) as lease:  # type: ignore[arg-type]
                yield lease
            current.outcome = "finished"
        except Canceled:
            raise
        except Exception as exc:
            current.outcome = exc.code if isinstance(exc, CorectlError) else CorectlError.code
            raise
        finally:
            summary = summarize(current)
            self._plugins.emit("corectl_request_finished", request=summary)

    @asynccontextmanager
    async def _elsewhere(
        self, model: RemoteModel, options: LoadOptions, keep_alive: float | None, current: Trace
    ) -> AsyncIterator[Lease]:
        """Nothing is loaded for it, so that it neither waits nor takes anybody's place."""
        if self._closing:
            raise Busy(CLOSING)
        try:
            yield Lease(runner=model.runner(options, keep_alive), load_ns=1, trace=current)
        except CorectlError as exc:
            model.reached(exc)
            raise
        model.reached(None)

    @asynccontextmanager
    async def _here(
        self, model: Model, options: LoadOptions, keep_alive: float | None, current: Trace
    ) -> AsyncIterator[Lease]:
        started = time.monotonic()
        id, self._next_id = self._next_id, self._next_id + 1
        loop = asyncio.get_running_loop()
        before = self._slots.get(model.key)
        ready = before is not None and before.runner is not None
        granted: asyncio.Future[Slot] = loop.create_future()
        try:
            request = await self._request(id, model, options, keep_alive)
            self._requests[id] = _Pending(model, request, granted)
            self._carry_out(self._core.arrive(request))
            slot = await granted
            current.queued = time.monotonic() - started
            current.load = 0.0 if slot is before and ready else min(current.queued, slot.load_seconds)
            assert slot.runner is not None and slot.choice is not None
            yield Lease(
                runner=slot.runner,
                load_ns=max(int(current.queued * 1e9), 1),
                num_ctx=0 if request.automatic else request.options.num_ctx or 0,
                notices=slot.notices + slot.choice.ignored(options, self._settings),
                trace=current,
            )
        except Busy as exc:
            exc.retry_after = self._load_time()
            raise
        except OutOfMemory:
            if current.queued:
                self._make_space()
            raise
        finally:
            self._requests.pop(id, None)
            now = loop.time()
            self._carry_out(self._core.cancel(id, now) + self._core.release(id, now))

    async def _request(
        self, id: int, model: Model, options: LoadOptions, keep_alive: float | None
    ) -> Request:
        choice, context = await self.machine.settle(model, options)
        if self._closing:
            raise Busy(CLOSING)
        # How many accelerators there are may not have been known before.
        self._core.max_loaded = self.machine.max_loaded
        return Request(
            id=id,
            model=model.key,
            options=msgspec.structs.replace(options, num_ctx=context.num_ctx),
            backend=choice.backend.name,
            backend_named=choice.named,
            keep_alive=self._settings.keep_alive if keep_alive is None else keep_alive,
            arrived=asyncio.get_running_loop().time(),
            automatic=context.automatic,
            # How long an input may be is settled where it is read, and texts to embed are cut there.
            exact=model.spec.embedding,
        )

    def _load_time(self) -> int:
        """Seconds that a load has taken here so far: after that, it is worth to ask again."""
        return max(1, min(60, math.ceil(self._load_seconds / max(1, self._loads))))

    def _make_space(self) -> None:
        """Memory ran out in the middle of work: all models go, so that what comes next is loaded into a clean place."""
        for key in list(self._core.entries):
            self._carry_out(self._core.expire(key, RAN_OUT))

    async def unload(self, model: AnyModel) -> None:
        """Takes a model out of memory: at once if it is idle (returns when it is gone), else after its requests."""
        if isinstance(model, RemoteModel):
            await model.server.host.unload(model.id)
            return
        self._carry_out(self._core.expire(model.key))
        entry, slot = self._core.entries.get(model.key), self._slots.get(model.key)
        if entry is not None and entry.phase == "stopping" and slot is not None and slot.runner is not None:
            await asyncio.shield(slot.runner.ended)

    async def plan(self, model: AnyModel, options: LoadOptions) -> FitPlan:
        """Whether the model fits with these options, where it would go, and which context would still fit.

        Raises `BadRequest`, `BadModelFile`, `NotSupported`.
        """
        if isinstance(model, RemoteModel):
            name = model.record.name.short
            raise NotSupported(f"{name} takes no memory of this machine: {model.reason}")
        _, context = await self.machine.settle(model, options)
        options = msgspec.structs.replace(options, num_ctx=context.num_ctx)
        devices, _ = await self.machine.survey()
        own = self._slots.get(model.key)
        others = self._others(model.key)
        return await asyncio.to_thread(self._loader.plan, model, options, context, devices, own, others)

    def _others(self, key: str) -> list[Slot]:
        return [slot for other, slot in self._slots.items() if other != key]

    def loaded(self) -> list[LoadedModel]:
        """What is in memory, latest expiry first."""
        return loaded(self._core.entries, self._slots, asyncio.get_running_loop().time())

    def runners(self) -> list[LoadedModel]:
        """All models whose processes live, also those on their way out, of which `corectl_model_unloaded` will tell.

        There may be two of one name, if it was given to other weights. None of them says when it expires.
        """
        return [
            view(slot, runner, entry.active if (entry := self._entry(slot)) else 0, None)
            for runner, slot in self._runners.items()
        ]

    def _entry(self, slot: Slot) -> Entry | None:
        """The state machine's side of a slot; None once another has taken its place."""
        key = slot.model.key
        return self._core.entries.get(key) if self._slots.get(key) is slot else None

    async def shutdown(self) -> None:
        """Ends all runners. Requests that still wait get `Busy`, those that are served an error from their runner."""
        self._closing = True
        for id in list(self._requests):
            self._reject(id, Busy(CLOSING))
        for slot in list(self._slots.values()):
            slot.task.cancel()
        runners = [slot.runner for slot in self._slots.values() if slot.runner is not None]
        await asyncio.gather(*(runner.stop() for runner in runners), return_exceptions=True)
        if runners:
            await asyncio.wait({runner.ended for runner in runners}, timeout=STOP_GRACE)
        while self._tasks:
            await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._timer is not None:
            self._timer.cancel()

    def _carry_out(self, actions: Sequence[Action]) -> None:
        for action in actions:
            match action:
                case Grant(id=id, model=key):
                    self._grant(id, key)
                case Reject(id=id, error=error):
                    self._reject(id, error)
                case Start(id=id) if self._closing:
                    self._reject(id, Busy(CLOSING))
                case Start(model=key, id=id, last_try=last_try):
                    pending = self._requests[id]
                    task = self._background(self._load(key, pending.request, last_try))
                    self._slots[key] = Slot(model=pending.model, task=task)
                case Stop(model=key, reason=reason):
                    # The slot as it is now: when its turn comes, a successor may stand in its place.
                    if (slot := self._slots.get(key)) is not None:
                        self._background(self._stop(slot, reason))
        self._share_cores()
        self._set_timer()

    def _grant(self, id: int, key: str) -> None:
        granted = self._requests[id].granted
        if not granted.done():
            granted.set_result(self._slots[key])

    def _reject(self, id: int, error: CorectlError) -> None:
        if error.__cause__ is not None:
            log.error("%s", error.message, exc_info=error.__cause__)
        granted = self._requests[id].granted
        if not granted.done():
            granted.set_exception(error)

    def _share_cores(self) -> None:
        """Tells the runners that work how many cores each may use; one whose threads are fixed needs them as well."""
        busy = [self._slots[key] for key, entry in self._core.entries.items() if entry.active]
        share = max(1, self.machine.inventory.cores // max(1, len(busy)))
        for slot in busy:
            fixed = slot.placement is None or slot.placement.fixed_threads
            if slot.runner is not None and not fixed and slot.share != share:
                slot.share = share
                slot.runner.share(share)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        expiry = self._core.next_expiry()
        if expiry is not None and expiry != float("inf"):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(expiry, lambda: self._carry_out(self._core.tick(loop.time())))

    async def _load(self, key: str, request: Request, last_try: bool) -> None:
        """Loads one model and tells the core how it went."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        slot = self._slots[key]
        name = slot.model.record.name.short
        others: list[Slot] = []
        try:
            # Before the machine is looked at: what is found there still counts the memory of one that goes meanwhile.
            others = self._others(key)
            devices = await self._survey()
            context = Context(request.options.num_ctx or 0, request.automatic)
            await self._loader.load(slot, request.options, context, devices, others, last_try=last_try)
        except asyncio.CancelledError:
            self._end_load(key, self._core.gone(key, loop.time()))
            raise
        except NoRoom:
            del self._slots[key]
            there = {id(other) for other in self._slots.values()}
            stale = any(id(other) not in there for other in others)
            self._carry_out(self._core.no_room(key, loop.time(), stale=stale))
            return
        except Exception as exc:
            if isinstance(exc, OutOfMemory) and others and not last_try:
                log.warning("%s: %s; trying again without the other models", name, exc.message)
                del self._slots[key]
                self._carry_out(self._core.no_room(key, loop.time(), alone=True))
                return
            error = exc if isinstance(exc, CorectlError) else LoadFailed(f"{type(exc).__name__}: {exc}")
            log.error("%s could not be loaded: %s", name, error.message)
            self._load_failures += 1
            self._end_load(key, self._core.load_failed(key, error, loop.time()))
            return
        slot.load_seconds = loop.time() - started
        self._ready(key, slot)

    def _end_load(self, key: str, actions: list[Action]) -> None:
        del self._slots[key]
        self._carry_out(actions)

    def _ready(self, key: str, slot: Slot) -> None:
        runner, placement = slot.runner, slot.placement
        assert runner is not None and placement is not None
        self._loads += 1
        self._load_seconds += slot.load_seconds
        slot.notices += runner.info.notices
        slot.share = self.machine.inventory.cores
        log.info(
            "loaded %s in %.2f seconds: a context of %d tokens, a pool of %d; %s",
            *(slot.model.record.name.short, slot.load_seconds, placement.num_ctx, placement.cells),
            compared(placement.estimated, runner.info.measured),
        )
        for notice in slot.notices:
            log.warning("%s: %s", slot.model.record.name.short, notice.message)
        self._runners[runner] = slot
        runner.lost.add_done_callback(lambda _: self._carry_out(self._core.dying(key)))
        runner.ended.add_done_callback(lambda ended: self._ended(key, slot, ended.result()))
        self._plugins.emit("corectl_model_loaded", model=view(slot, runner, 0, None))
        now = asyncio.get_running_loop().time()
        self._carry_out(self._core.loaded(key, runner.info.memory, now, placement.num_ctx))

    async def _stop(self, slot: Slot, reason: str) -> None:
        if slot.runner is None:
            slot.task.cancel()
            return
        slot.leaves = reason
        log.info("unloading %s (%s)", slot.model.record.name.short, reason)
        if slot.placement is not None and slot.placement.layers:
            slot.before = await self.machine.inventory.refresh()
        await slot.runner.stop()

    def _ended(self, key: str, slot: Slot, reason: str) -> None:
        """A runner has ended: tells the plugins, and the core when its memory is free."""
        asked = slot.leaves or ("shutdown" if self._closing else "")
        self._unloads[asked or "died"] += 1
        if slot.runner is not None:
            del self._runners[slot.runner]
            last = view(slot, slot.runner, 0, None)
            self._plugins.emit("corectl_model_unloaded", model=last, reason=asked or reason)
        if slot.before and not self._closing:
            self._background(self._await_memory(key, slot))
        else:
            self._gone(key, slot)

    async def _await_memory(self, key: str, slot: Slot) -> None:
        """A driver may need a moment to take memory back; the next load counts on it."""
        if not await until_freed(self.machine.inventory.refresh, slot.before, slot.use, asyncio.sleep):
            log.warning("the memory of %s has not come back", slot.model.record.name.short)
        self._gone(key, slot)

    def _gone(self, key: str, slot: Slot) -> None:
        if self._slots.get(key) is slot:
            del self._slots[key]
        self._carry_out(self._core.gone(key, asyncio.get_running_loop().time()))

    def _background(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

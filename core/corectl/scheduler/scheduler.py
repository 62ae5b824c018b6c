"""The scheduler in the server: carries out what `SchedulerCore` decides. One event loop owns it; no locks."""

from __future__ import annotations

import asyncio
import logging
import time
from collections.abc import AsyncIterator, Coroutine, Sequence
from contextlib import asynccontextmanager
from datetime import UTC, datetime, timedelta

import msgspec

from corectl.config import Settings
from corectl.errors import Busy, CorectlError, LoadFailed, NotSupported
from corectl.hardware.device import Device
from corectl.messages import LoadOptions
from corectl.model.formats import ModelDescription
from corectl.model.record import ModelRecord
from corectl.plugins import PluginHost
from corectl.runner import protocol
from corectl.runner.engine import Backend, CacheShape, ModelSpec
from corectl.runner.supervisor import STOP_GRACE, Runner
from corectl.scheduler.backends import choose_backend
from corectl.scheduler.core import Action, Grant, Reject, Request, SchedulerCore, Start, Stop
from corectl.scheduler.policy import PlacementQuestion
from corectl.scheduler.state import LoadedModel, RequestSummary

log = logging.getLogger(__name__)

DEFAULT_CONTEXT = 4096
MIN_CONTEXT = 4
DEFAULT_MAX_LOADED = 3
DEFAULT_BATCH = 512
AUTO_SEQUENCES = 16
EMBEDDING_SEQUENCES = 64
"""Texts that are embedded in one step: they are short, and need no memory."""
CLOSING = "the server is shutting down"


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """A model that may be loaded: its record and what its header says."""

    record: ModelRecord
    spec: ModelSpec
    description: ModelDescription

    @property
    def key(self) -> str:
        """Two names of the same weights are the same model in memory."""
        return "\n".join(map(str, (self.spec.weights, *self.spec.projectors, *self.spec.adapters)))


class Lease(msgspec.Struct, frozen=True, kw_only=True):
    """The right to use a loaded model, until the context that gave it ends. `load_ns` is the time that it took."""

    runner: Runner
    load_ns: int


class _Slot(msgspec.Struct, kw_only=True):
    """What stands behind an entry of the core."""

    model: Model
    task: asyncio.Task[None]
    runner: Runner | None = None
    backend: str = ""


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
        self._policy = policy
        self._core = SchedulerCore(
            policy,
            max_loaded=settings.max_loaded_models or DEFAULT_MAX_LOADED,
            max_queue=settings.max_queue,
        )
        self._slots: dict[str, _Slot] = {}
        self._requests: dict[int, tuple[Model, asyncio.Future[Runner]]] = {}
        self._next_id = 1
        self._timer: asyncio.TimerHandle | None = None
        self._tasks: set[asyncio.Task[None]] = set()
        self._closing = False

    def context_length(self, model: Model, requested: int | None) -> int:
        """The effective context in tokens: asked for, else configured; at most what the model was trained for."""
        wanted = requested or self._settings.context_length or DEFAULT_CONTEXT
        trained = model.description.context_length
        if trained and wanted > trained:
            if requested:
                log.warning("requested context size too large for model: %d, using %d", wanted, trained)
            wanted = trained
        return max(wanted, MIN_CONTEXT)

    @asynccontextmanager
    async def lease(
        self, model: Model, options: LoadOptions, keep_alive: float | None = None
    ) -> AsyncIterator[Lease]:
        """Waits until the model is loaded with these options, and keeps it so meanwhile.

        `keep_alive` in seconds replaces the configured one. Raises `Busy`, `LoadFailed`, `NotSupported`. Cancelling
        the wait gives up a load that nobody else waits for.
        """
        if self._closing:
            raise Busy(CLOSING)
        started = time.monotonic()
        id, self._next_id = self._next_id, self._next_id + 1
        loop = asyncio.get_running_loop()
        granted: asyncio.Future[Runner] = loop.create_future()
        self._requests[id] = (model, granted)
        request = Request(
            id=id,
            model=model.key,
            options=msgspec.structs.replace(options, num_ctx=self.context_length(model, options.num_ctx)),
            keep_alive=self._settings.keep_alive if keep_alive is None else keep_alive,
            arrived=loop.time(),
        )
        outcome = "cancelled"
        queued = 0.0
        try:
            self._carry_out(self._core.arrive(request))
            runner = await granted
            queued = time.monotonic() - started
            yield Lease(runner=runner, load_ns=max(int(queued * 1e9), 1))
            outcome = "finished"
        except CorectlError as exc:
            outcome = exc.code
            raise
        except Exception:
            outcome = CorectlError.code
            raise
        finally:
            del self._requests[id]
            now = loop.time()
            self._carry_out(self._core.cancel(id, now) + self._core.release(id, now))
            summary = RequestSummary(
                model=model.record.name.short,
                outcome=outcome,
                queued=queued,
                total=time.monotonic() - started,
            )
            self._plugins.emit("corectl_request_finished", request=summary)

    async def unload(self, model: Model) -> None:
        """Takes a model out of memory: at once if it is idle (returns when it is gone), else after its requests."""
        self._carry_out(self._core.expire(model.key))
        entry, slot = self._core.entries.get(model.key), self._slots.get(model.key)
        if entry is not None and entry.phase == "stopping" and slot is not None and slot.runner is not None:
            await asyncio.shield(slot.runner.ended)

    def loaded(self) -> list[LoadedModel]:
        """What is in memory, latest expiry first."""
        found = []
        now = asyncio.get_running_loop().time()
        for key, entry in self._core.entries.items():
            slot = self._slots.get(key)
            if entry.phase != "ready" or slot is None or slot.runner is None:
                continue
            found.append(self._view(slot, slot.runner, entry.active, self._expiry(key, now)))
        return sorted(
            found, key=lambda model: model.expires_at or datetime.max.replace(tzinfo=UTC), reverse=True
        )

    def _expiry(self, key: str, now: float) -> datetime | None:
        entry = self._core.entries[key]
        if entry.draining:
            return datetime.now(UTC) - timedelta(seconds=1)
        left = entry.keep_alive if entry.expires is None else entry.expires - now
        # Beyond a century is for ever; larger values do not fit a date.
        return None if left > 100 * 365 * 86400 else datetime.now(UTC) + timedelta(seconds=left)

    def _view(self, slot: _Slot, runner: Runner, active: int, expires_at: datetime | None) -> LoadedModel:
        return LoadedModel(
            record=slot.model.record,
            backend=slot.backend,
            info=runner.info,
            stats=runner.stats,
            pid=runner.pid,
            active=active,
            expires_at=expires_at,
        )

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
                case Start(model=key, id=id):
                    model = self._requests[id][0]
                    task = self._background(self._load(key, model))
                    self._slots[key] = _Slot(model=model, task=task)
                case Stop(model=key, reason=reason):
                    # The slot as it is now: when its turn comes, a successor may stand in its place.
                    if (slot := self._slots.get(key)) is not None:
                        self._background(self._stop(slot, reason))
        self._set_timer()

    def _grant(self, id: int, key: str) -> None:
        runner = self._slots[key].runner
        assert runner is not None
        _, granted = self._requests[id]
        if not granted.done():
            granted.set_result(runner)

    def _reject(self, id: int, error: CorectlError) -> None:
        if error.__cause__ is not None:
            log.error("%s", error.message, exc_info=error.__cause__)
        _, granted = self._requests[id]
        if not granted.done():
            granted.set_exception(error)

    def _set_timer(self) -> None:
        if self._timer is not None:
            self._timer.cancel()
            self._timer = None
        expiry = self._core.next_expiry()
        if expiry is not None and expiry != float("inf"):
            loop = asyncio.get_running_loop()
            self._timer = loop.call_at(expiry, lambda: self._carry_out(self._core.tick(loop.time())))

    async def _load(self, key: str, model: Model) -> None:
        """Loads one model and tells the core how it went."""
        loop = asyncio.get_running_loop()
        started = loop.time()
        try:
            slot = self._slots[key]
            load = await self._prepare(key, model)
            runner = (
                None if load is None else await Runner.start(load, load_timeout=self._settings.load_timeout)
            )
        except asyncio.CancelledError:
            del self._slots[key]
            self._carry_out(self._core.gone(key, loop.time()))
            raise
        except Exception as exc:
            error = exc if isinstance(exc, CorectlError) else LoadFailed(f"{type(exc).__name__}: {exc}")
            log.error("%s could not be loaded: %s", model.record.name.short, error.message)
            del self._slots[key]
            self._carry_out(self._core.load_failed(key, error, loop.time()))
            return
        if load is None or runner is None:
            del self._slots[key]
            self._carry_out(self._core.no_room(key, loop.time()))
            return
        slot.runner, slot.backend = runner, load.backend
        log.info(
            "loaded %s in %.2f seconds: %s", model.record.name.short, loop.time() - started, load.placement
        )
        runner.lost.add_done_callback(lambda _: self._carry_out(self._core.dying(key)))
        runner.ended.add_done_callback(lambda ended: self._gone(key, slot, ended.result()))
        self._plugins.emit("corectl_model_loaded", model=self._view(slot, runner, 0, None))
        self._carry_out(self._core.loaded(key, runner.info.memory, loop.time()))

    async def _prepare(self, key: str, model: Model) -> protocol.Load | None:
        """Chooses backend and placement; None if the model does not fit beside the others."""
        backend = choose_backend(
            self._plugins.backends, format=model.spec.format, wanted=self._settings.backend
        )
        options = self._core.entries[key].options
        devices = await asyncio.to_thread(self._devices)
        shape = self._shape(model, options)
        estimate = await asyncio.to_thread(backend.estimate, model.spec, shape)
        placement = self._policy.place(
            PlacementQuestion(
                options=options,
                estimate=estimate,
                shape=shape,
                devices=tuple(devices),
                num_parallel=self._settings.num_parallel,
                embedding=model.spec.embedding,
                alone=len(self._core.entries) == 1,
                snapshots=self._settings.cache_memory,
            )
        )
        if placement is None:
            return None
        return protocol.Load(
            plugins=self._plugins_for(backend),
            backend=backend.name,
            model=model.spec,
            placement=placement,
        )

    def _shape(self, model: Model, options: LoadOptions) -> CacheShape:
        num_ctx = options.num_ctx or DEFAULT_CONTEXT
        embedding = model.spec.embedding
        sequences = EMBEDDING_SEQUENCES if embedding else AUTO_SEQUENCES
        return CacheShape(
            # An encoder reads an input in one piece.
            num_batch=num_ctx if embedding else min(options.num_batch or DEFAULT_BATCH, num_ctx),
            max_sequences=self._settings.num_parallel or sequences,
            cache_type=self._settings.kv_cache_type,
            flash_attention=self._settings.flash_attention,
        )

    def _plugins_for(self, backend: Backend) -> tuple[str, ...]:
        """The plugins that a runner needs: no others, because importing them takes time."""
        owner = self._plugins.plugin_of("corectl_backends", backend.name)
        return tuple(sorted({owner, *self._plugins.plugins_with("corectl_dialects")}))

    def _devices(self) -> list[Device]:
        devices: list[Device] = []
        for name, probe in sorted(self._plugins.probes.items()):
            try:
                devices += probe.devices()
            except Exception:
                log.exception("hardware probe %s failed", name)
        return devices

    async def _stop(self, slot: _Slot, reason: str) -> None:
        if slot.runner is None:
            slot.task.cancel()
            return
        log.info("unloading %s (%s)", slot.model.record.name.short, reason)
        await slot.runner.stop()

    def _gone(self, key: str, slot: _Slot, reason: str) -> None:
        """A runner has ended: tells the core and the plugins."""
        entry = self._core.entries.get(key)
        if self._slots.get(key) is slot:
            del self._slots[key]
        if slot.runner is not None:
            why = (entry.draining if entry is not None else "") or ("shutdown" if self._closing else reason)
            view = self._view(slot, slot.runner, 0, None)
            self._plugins.emit("corectl_model_unloaded", model=view, reason=why)
        self._carry_out(self._core.gone(key, asyncio.get_running_loop().time()))

    def _background(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task

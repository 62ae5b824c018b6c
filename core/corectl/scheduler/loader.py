"""Loads one model: backend, devices, decision, runner process; and again, smaller, when memory runs out."""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from functools import cache

import msgspec
import psutil

from corectl.config import Settings
from corectl.errors import DevicesMissing, OutOfMemory
from corectl.hardware.device import Device
from corectl.hardware.eligible import Eligible, eligible
from corectl.messages import LoadOptions, Notice
from corectl.plugins import PluginHost
from corectl.runner import protocol
from corectl.runner.engine import Backend, MemoryUse, Placement
from corectl.runner.supervisor import Runner
from corectl.scheduler.backends import Choice
from corectl.scheduler.context import Context
from corectl.scheduler.machine import Machine
from corectl.scheduler.memory import Holding, free_beside, free_without, less_than
from corectl.scheduler.plan import Decision, Estimate, FitPlan, Wish, decide, plan, size
from corectl.scheduler.policy import SchedulerPolicy
from corectl.scheduler.state import Model

log = logging.getLogger(__name__)

SMALLER = 0.8
"""What is left, of the memory that a load was to take, for the next try."""
MOST_TRIES = 6


class NoRoom(Exception):
    """The model fits, but not beside the others."""


class Slot(msgspec.Struct, kw_only=True):
    """What stands behind an entry of the state machine, from the beginning of a load until its process is gone.

    `share` is the last number of cores that the runner was told, `leaves` why it was asked to end, `before` what
    devices reported before that.
    """

    model: Model
    task: asyncio.Task[None]
    choice: Choice | None = None
    placement: Placement | None = None
    notices: tuple[Notice, ...] = ()
    runner: Runner | None = None
    load_seconds: float = 0.0
    share: int = 0
    leaves: str = ""
    before: tuple[Device, ...] = ()

    @property
    def use(self) -> tuple[MemoryUse, ...]:
        """The memory that it takes: measured, or else estimated."""
        measured = self.runner.info.measured if self.runner is not None else ()
        return measured or (self.placement.estimated if self.placement is not None else ())

    def holding(self) -> Holding:
        """For worker threads: it asks the system."""
        return Holding(use=self.use, resident=_resident(self.runner.pid) if self.runner is not None else 0)


class Loader:
    """Carries out loads, and makes plans of them."""

    def __init__(
        self, settings: Settings, plugins: PluginHost, policy: SchedulerPolicy, machine: Machine
    ) -> None:
        self._settings = settings
        self._plugins = plugins
        self._policy = policy
        self._machine = machine
        self.smaller_loads = 0

    async def load(
        self,
        slot: Slot,
        options: LoadOptions,
        context: Context,
        devices: Sequence[Device],
        others: Sequence[Slot],
        *,
        last_try: bool,
    ) -> None:
        """Fills the slot with a runner.

        Raises `NoRoom` if some of the others must go first, `OutOfMemory` if memory ran out and all of them should
        (but on the `last_try`, which goes on smaller instead), and other errors if it cannot be loaded at all. Without
        accelerators that the engine does not find it goes on as if they were not there.
        """
        choice = self._machine.choose(slot.model, options.backend)
        backend, slot.choice = choice.backend, choice
        log.info(
            "%s: backend %s (%s): %s",
            slot.model.record.name.short,
            backend.name,
            choice.variant,
            choice.reason,
        )
        wish = self._wish(slot.model, options, context)
        estimate = cache(lambda shape: backend.estimate(slot.model.spec, shape))
        now, empty = await asyncio.to_thread(self._ground, choice, options, devices, others)
        decision = await asyncio.to_thread(self._decide, wish, now, empty, estimate, alone=not others)
        for turn in range(1, MOST_TRIES + 1):
            if decision.error is not None:
                raise decision.error
            placement = decision.placement
            if placement is None:
                raise NoRoom
            slot.placement, slot.notices = placement, decision.notices
            try:
                slot.runner = await self._start(slot.model, backend, placement)
                return
            except DevicesMissing as exc:
                if turn == MOST_TRIES:
                    raise
                now, empty = (without(each, placement, exc.message) for each in (now, empty))
                if not now.accelerators:
                    # A context that follows the memory of GPUs is that of a machine without any.
                    shortest = Context(wish.context.choices()[-1], context.automatic)
                    wish = msgspec.structs.replace(wish, context=shortest)
                decision = await asyncio.to_thread(self._decide, wish, now, empty, estimate, alone=not others)
                log.warning("%s: %s; trying again without", slot.model.record.name.short, exc.message)
            except OutOfMemory as exc:
                if (others and not last_try) or turn == MOST_TRIES:
                    raise
                now = less(now, placement)
                lower = Context(placement.num_ctx, context.automatic)
                wish = msgspec.structs.replace(wish, context=lower)
                again = await asyncio.to_thread(decide, self._policy, wish, now, estimate, alone=True)
                decision = smaller(placement, again, exc)
                # The host was counted as smaller than it is.
                decision = _with_snapshots(decision, placement.snapshots)
                self.smaller_loads += 1
                log.warning("%s: %s; trying again, smaller", slot.model.record.name.short, exc.message)

    def plan(
        self,
        model: Model,
        options: LoadOptions,
        context: Context,
        devices: Sequence[Device],
        own: Slot | None,
        others: Sequence[Slot],
    ) -> FitPlan:
        """What a load would come to now, were the model not in memory. For worker threads: it reads the header."""
        choice = self._machine.choose(model, options.backend)
        backend = choice.backend
        wish = self._wish(model, options, context)
        if own is not None:
            devices = free_without(devices, [own.holding()])
        now, empty = self._ground(choice, options, devices, others)
        estimate = cache(lambda shape: backend.estimate(model.spec, shape))
        trained = model.description.context_length
        return plan(self._policy, wish, now, empty, estimate, trained=trained)

    def _wish(self, model: Model, options: LoadOptions, context: Context) -> Wish:
        return Wish(options=options, context=context, embedding=model.spec.embedding, settings=self._settings)

    def _ground(
        self, choice: Choice, options: LoadOptions, devices: Sequence[Device], others: Sequence[Slot]
    ) -> tuple[Eligible, Eligible]:
        """The devices that may be used: with what is free now, and with what would be if all others had gone."""
        variant, library = choice.variant, self._settings.llm_library
        holdings, failures = [slot.holding() for slot in others], self._machine.inventory.failures
        now, empty = (
            eligible(found, variant=variant, library=library, main_gpu=options.main_gpu, failures=failures)
            for found in (free_beside(devices, holdings), free_without(devices, holdings))
        )
        return now, empty

    def _decide(
        self, wish: Wish, now: Eligible, empty: Eligible, estimate: Estimate, *, alone: bool
    ) -> Decision:
        """Nothing is evicted for a model that would not fit even then."""
        decision = decide(self._policy, wish, now, estimate, alone=alone)
        if decision.placement is None and decision.error is None:
            return Decision(error=decide(self._policy, wish, empty, estimate, alone=True).error)
        return decision

    async def _start(self, model: Model, backend: Backend, placement: Placement) -> Runner:
        owner = self._plugins.plugin_of("corectl_backends", backend.name)
        # A runner gets no plugin that it does not need, because importing them takes time.
        plugins = tuple(sorted({owner, *self._plugins.plugins_with("corectl_dialects")}))
        load = protocol.Load(plugins=plugins, backend=backend.name, model=model.spec, placement=placement)
        return await Runner.start(load, load_timeout=self._settings.load_timeout)


def _with_snapshots(decision: Decision, snapshots: int) -> Decision:
    placement = decision.placement
    if placement is None:
        return decision
    return msgspec.structs.replace(
        decision, placement=msgspec.structs.replace(placement, snapshots=snapshots)
    )


def without(found: Eligible, failed: Placement, reason: str) -> Eligible:
    """What is left after a load with this placement did not find its accelerators."""
    lost = [device for device in found.accelerators if device.id in failed.devices]
    reasons = (f"{device.name} ({device.id}): {reason}" for device in lost)
    return msgspec.structs.replace(
        found,
        devices=tuple(device for device in found.devices if device not in lost),
        reasons=(*found.reasons, *reasons),
    )


def less(found: Eligible, failed: Placement) -> Eligible:
    """What may be planned with after a load with this placement has run out of memory."""
    return msgspec.structs.replace(found, devices=less_than(found.devices, failed.estimated, SMALLER))


def smaller(failed: Placement, decision: Decision, error: OutOfMemory) -> Decision:
    """The next try with a notice that says so. Raises `error` if it would be the same again, or none at all."""
    placement = decision.placement
    if placement is None or _extent(placement) == _extent(failed):
        raise error
    message = (
        f"memory ran out while the model was loaded; it has a context of {placement.num_ctx} tokens, "
        f"a pool of {placement.cells}, and {sum(placement.layers)} layers on accelerators"
    )
    others = [notice for notice in decision.notices if notice.code != "reduced_load"]
    return msgspec.structs.replace(decision, notices=(Notice(code="reduced_load", message=message), *others))


def _extent(placement: Placement) -> tuple[object, ...]:
    return placement.num_ctx, placement.cells, placement.devices, placement.layers


def compared(estimated: Sequence[MemoryUse], measured: Sequence[MemoryUse]) -> str:
    """Estimated and measured memory side by side, device by device, for the log."""
    guessed, found = ({use.device: use.total for use in uses} for uses in (estimated, measured))
    return "; ".join(
        f"{device} estimated {size(guessed.get(device, 0))}"
        + (f", measured {size(found.get(device, 0))}" if found else "")
        for device in dict.fromkeys([*guessed, *found])
    )


def _resident(pid: int) -> int:
    """Memory in bytes that the system counts as taken by a process and nobody else; pages of files are not."""
    try:
        memory = psutil.Process(pid).memory_info()
    except psutil.Error:
        return 0
    return max(0, int(memory.rss) - int(getattr(memory, "shared", 0)))

"""Whether a model fits, where it goes and how large it is: decided here for a load, and shown by a plan. Pure.

The policy says where a model goes for one context. Around that: a context that nobody has set is lowered before layers
stay behind, what the operator demands is enforced, and what went another way than asked for is said.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from corectl.config import Settings
from corectl.errors import BadRequest, CorectlError, DoesNotFit, LoadFailed
from corectl.hardware.device import Device
from corectl.hardware.eligible import Eligible
from corectl.messages import LoadOptions, Notice
from corectl.runner.engine import CacheShape, MemoryEstimate, Placement
from corectl.scheduler.context import MIN_CONTEXT, Context, cache_shape
from corectl.scheduler.fit import HOST, memory_use
from corectl.scheduler.policy import PlacementQuestion, SchedulerPolicy

Estimate = Callable[[CacheShape], MemoryEstimate]

CONTEXT_STEP = 256
"""The largest context that fits is looked for in steps of so many tokens."""
LARGEST_CONTEXT = 2**20
"""The largest context that is looked for where the model does not say what it was trained for."""


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be loaded. `options.num_ctx` is that of `context`."""

    options: LoadOptions
    context: Context
    embedding: bool
    settings: Settings


class Decision(msgspec.Struct, frozen=True, kw_only=True):
    """Where a model goes, or nowhere: because something must go first, or, with an `error`, in no case.

    `notices` say what went another way than one may think.
    """

    placement: Placement | None = None
    notices: tuple[Notice, ...] = ()
    error: CorectlError | None = None


class DevicePlan(msgspec.Struct, frozen=True, kw_only=True):
    """One device's part: how many layers, and the estimated bytes of them, of their cache and of computing.

    `free` is what the device has for that, in bytes, when those have gone that must.
    """

    id: str
    kind: str
    name: str
    total: int
    free: int
    layers: int = 0
    weights: int = 0
    cache: int = 0
    compute: int = 0

    @property
    def estimated(self) -> int:
        return self.weights + self.cache + self.compute


class FitPlan(msgspec.Struct, frozen=True, kw_only=True):
    """How a model would be loaded now.

    `fits` says that each device has room for its part, `evicts` that other models must go first, `reason` why it cannot
    be loaded at all (empty: it can). Contexts and `cells`, the size of the pool, are in tokens; `largest_ctx` is the
    largest context that fits, with all layers on accelerators where that is possible at all (0: none). `layers` counts
    the model's, with its head; those on no accelerator are computed by the CPU. Besides what lies on the devices, saved
    states may come to take `snapshots` bytes of the host's memory.
    """

    fits: bool
    reason: str = ""
    evicts: bool = False
    num_ctx: int = 0
    cells: int = 0
    max_sequences: int = 0
    num_batch: int = 0
    largest_ctx: int = 0
    layers: int = 0
    devices: tuple[DevicePlan, ...] = ()
    snapshots: int = 0
    notices: tuple[Notice, ...] = ()


def decide(
    policy: SchedulerPolicy, wish: Wish, found: Eligible, estimate: Estimate, *, alone: bool
) -> Decision:
    """Where the model goes on these devices. With `alone` there is nothing left to evict, so no means no."""
    best: tuple[Placement, MemoryEstimate] | None = None
    question: PlacementQuestion | None = None
    for num_ctx in wish.context.choices() if alone else (wish.context.num_ctx,):
        question = _question(wish, num_ctx, found.devices, estimate, alone=alone)
        placement = policy.place(question)
        if placement is None:
            continue
        whole = not found.accelerators or _whole(placement, question.estimate, wish.options)
        # A shorter context is worth it if all layers find a place, not for a few more of them.
        if whole or best is None:
            best = placement, question.estimate
        if whole:
            break
    assert question is not None
    if wish.settings.require_gpu and not (best and _on_accelerators(*best)):
        hopeless = alone or not found.accelerators or wish.options.num_gpu is not None
        return Decision(error=_no_gpu(question, found) if hopeless else None)
    if best is None:
        return Decision(error=_no_memory(question, found) if alone else None)
    placement = msgspec.structs.replace(_saving(best[0], found), numa=wish.settings.numa)
    return Decision(placement=placement, notices=_notices(wish, *best, found))


def plan(
    policy: SchedulerPolicy, wish: Wish, now: Eligible, empty: Eligible, estimate: Estimate, *, trained: int
) -> FitPlan:
    """What a load would come to. `now` has the memory that is free, `empty` what would be if all others had gone."""
    decision, devices = decide(policy, wish, now, estimate, alone=now == empty), now
    evicts = decision.placement is None and decision.error is None
    if evicts:
        decision, devices = decide(policy, wish, empty, estimate, alone=True), empty
    placement = decision.placement
    if placement is None:
        reason = decision.error.message if decision.error else ""
        parts: tuple[DevicePlan, ...] = ()
        fits = False
    else:
        reason = ""
        parts = _parts(placement, devices.devices)
        fits = all(part.estimated <= part.free for part in parts)
    most = min(limit for limit in (trained, wish.settings.max_context, LARGEST_CONTEXT) if limit)
    return FitPlan(
        fits=fits,
        reason=reason,
        evicts=evicts,
        num_ctx=placement.num_ctx if placement else wish.context.num_ctx,
        cells=placement.cells if placement else 0,
        max_sequences=placement.max_sequences if placement else 0,
        num_batch=placement.num_batch if placement else 0,
        largest_ctx=_largest(policy, wish, empty, estimate, most),
        layers=len(estimate(_shape(wish, wish.context.num_ctx)).layers) + 1,
        devices=parts,
        snapshots=placement.snapshots if placement else 0,
        notices=decision.notices,
    )


def _largest(policy: SchedulerPolicy, wish: Wish, empty: Eligible, estimate: Estimate, most: int) -> int:
    """The largest context that fits, looked for by halving: what fits is smaller than what does not."""

    def tried(num_ctx: int) -> Placement | None:
        fixed = msgspec.structs.replace(wish, context=Context(num_ctx, automatic=False))
        placement = decide(policy, fixed, empty, estimate, alone=True).placement
        room = placement and all(part.estimated <= part.free for part in _parts(placement, empty.devices))
        return placement if room else None

    smallest = tried(MIN_CONTEXT)
    if smallest is None:
        return 0
    layers = sum(smallest.layers)
    whole = layers > len(estimate(_shape(wish, MIN_CONTEXT)).layers)

    def fits(num_ctx: int) -> bool:
        placement = tried(num_ctx)
        return placement is not None and (not whole or sum(placement.layers) == layers)

    if fits(most):
        return most
    low, high = 0, -(-most // CONTEXT_STEP)
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (middle, high) if fits(middle * CONTEXT_STEP) else (low, middle)
    return max(low * CONTEXT_STEP, MIN_CONTEXT)


def _shape(wish: Wish, num_ctx: int) -> CacheShape:
    return cache_shape(num_ctx, wish.options.num_batch, wish.settings, embedding=wish.embedding)


def _question(
    wish: Wish, num_ctx: int, devices: tuple[Device, ...], estimate: Estimate, *, alone: bool
) -> PlacementQuestion:
    shape = _shape(wish, num_ctx)
    return PlacementQuestion(
        options=msgspec.structs.replace(wish.options, num_ctx=num_ctx),
        estimate=estimate(shape),
        shape=shape,
        devices=devices,
        num_parallel=wish.settings.num_parallel,
        embedding=wish.embedding,
        alone=alone,
        overhead=wish.settings.gpu_overhead,
        spread=wish.settings.sched_spread,
        # A model that gives vectors has nothing to save.
        snapshots=0 if wish.embedding else wish.settings.cache_memory,
    )


def _saving(placement: Placement, found: Eligible) -> Placement:
    """The placement with room for saved states: no more than half of what the load leaves free of the host's memory."""
    if found.host is None:
        return placement
    taken = sum(use.total for use in placement.estimated if use.device == HOST)
    room = min(placement.snapshots, max(0, found.host.memory_free - taken) // 2)
    return msgspec.structs.replace(placement, snapshots=room)


def _on_accelerators(placement: Placement, estimate: MemoryEstimate) -> bool:
    return sum(placement.layers) > len(estimate.layers)


def _whole(placement: Placement, estimate: MemoryEstimate, options: LoadOptions) -> bool:
    """Whether all layers lie on accelerators, or as many as the request asks for."""
    asked = options.num_gpu
    return _on_accelerators(placement, estimate) or (asked is not None and sum(placement.layers) >= asked)


def _parts(placement: Placement, devices: Sequence[Device]) -> tuple[DevicePlan, ...]:
    uses = {use.device: use for use in placement.estimated}
    accelerators = [id for id in placement.devices if id in uses and id != HOST]
    layers = dict(zip(accelerators, placement.layers, strict=False))
    parts = []
    for device in devices:
        use = uses.get(HOST if device.kind == "cpu" else device.id)
        if use is not None:
            parts.append(
                DevicePlan(
                    id=device.id,
                    kind=device.kind,
                    name=device.name,
                    total=device.memory_total,
                    free=device.memory_free,
                    layers=layers.get(device.id, 0),
                    weights=use.weights,
                    cache=use.cache,
                    compute=use.compute,
                )
            )
    return tuple(parts)


def _notices(
    wish: Wish, placement: Placement, estimate: MemoryEstimate, found: Eligible
) -> tuple[Notice, ...]:
    notices = []
    if placement.num_ctx < wish.context.num_ctx:
        message = (
            f"the context is {placement.num_ctx} tokens instead of {wish.context.num_ctx}: memory is short"
        )
        notices.append(Notice(code="reduced_load", message=message))
    if (found.accelerators or found.reasons) and not _whole(placement, estimate, wish.options):
        every, there = len(estimate.layers) + 1, sum(placement.layers)
        why = "; ".join(found.reasons) if not found.accelerators else "there is no room for more of them"
        message = f"{every - there} of {every} layers are computed by the CPU: {why}"
        notices.append(Notice(code="cpu_fallback", message=message))
    return tuple(notices)


def _no_gpu(question: PlacementQuestion, found: Eligible) -> CorectlError:
    """Why a server that computes on GPUs only does not load the model."""
    asked = question.options.num_gpu
    if found.accelerators and asked is not None and asked <= len(question.estimate.layers):
        return BadRequest(f'option "num_gpu" is {asked}, but this server requires all layers on GPUs')
    if not found.accelerators:
        why = "; ".join(found.reasons) or "no GPU was found"
        return LoadFailed(f"this server requires a GPU, but none can be used: {why}")
    every = len(question.estimate.layers) + 1
    first = found.accelerators[0].id
    cells = question.options.num_ctx or 0
    use = memory_use(question.estimate, question.shape, cells=cells, accelerators=[first], layers=[every])
    there = ", ".join(f"{device.name} has {size(device.memory_free)} free" for device in found.accelerators)
    return DoesNotFit(
        "this server requires all layers on GPUs, but the model requires "
        f"{size(use[1].total)} of GPU memory, and {there}"
    )


def _no_memory(question: PlacementQuestion, found: Eligible) -> CorectlError:
    """Why a model does not fit even when it is alone."""
    host = found.host
    need = memory_use(question.estimate, question.shape, cells=question.options.num_ctx or 0)[0].total
    available = host.memory_total + host.swap if host else 0
    if host is None or need <= available:
        return DoesNotFit("the model does not fit into memory")
    return DoesNotFit(
        f"model requires more system memory ({size(need)}) than is available ({size(available)})"
    )


def size(count: float) -> str:
    """Bytes for people: `5.6 GiB`."""
    for unit in ("GiB", "MiB", "KiB"):
        factor = {"GiB": 2**30, "MiB": 2**20, "KiB": 2**10}[unit]
        if count >= factor:
            return f"{count / factor:.1f} {unit}"
    return f"{int(count)} B"

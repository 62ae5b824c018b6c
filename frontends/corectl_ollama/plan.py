"""`POST /api/plan`: whether a model fits, and where it would go. An addition of ours; nothing is loaded."""

from __future__ import annotations

import msgspec
from litestar import Response

from corectl.messages import Notice
from corectl.scheduler.plan import DevicePlan, FitPlan
from corectl.server.inference import find_model
from corectl.server.services import Services, require_name
from corectl_ollama.replies import reply
from corectl_ollama.schema import PlanRequest


class PlannedDevice(msgspec.Struct, kw_only=True):
    """What of the model lies on one device, in bytes; on the host are the layers that no other device has."""

    id: str
    kind: str
    name: str
    layers: int
    weights: int
    cache: int
    compute: int
    estimated: int
    free: int
    total: int


class PlanReply(msgspec.Struct, kw_only=True, omit_defaults=True):
    """`reason` says why a model cannot be loaded at all. Contexts and `cells` are in tokens."""

    model: str
    fits: bool
    evicts: bool
    num_ctx: int
    largest_num_ctx: int
    cells: int
    num_batch: int
    parallel: int
    layers: int
    devices: list[PlannedDevice]
    cache_memory: int
    reason: str = ""
    warnings: list[Notice] = []


async def plan(services: Services, body: PlanRequest) -> Response[bytes]:
    record = await find_model(services, require_name(body.model or body.name))
    model = await services.model(record)
    load, _ = services.options(record, body.options)
    found = await services.scheduler.plan(model, load)
    return reply(_reply(record.name.short, found))


def _reply(model: str, found: FitPlan) -> PlanReply:
    on_host = found.layers - sum(device.layers for device in found.devices)
    return PlanReply(
        model=model,
        fits=found.fits,
        evicts=found.evicts,
        num_ctx=found.num_ctx,
        largest_num_ctx=found.largest_ctx,
        cells=found.cells,
        num_batch=found.num_batch,
        parallel=found.max_sequences,
        layers=found.layers,
        devices=[_device(device, on_host) for device in found.devices],
        cache_memory=found.snapshots,
        reason=found.reason,
        warnings=list(found.notices),
    )


def _device(device: DevicePlan, on_host: int) -> PlannedDevice:
    return PlannedDevice(
        id=device.id,
        kind=device.kind,
        name=device.name,
        layers=on_host if device.kind == "cpu" else device.layers,
        weights=device.weights,
        cache=device.cache,
        compute=device.compute,
        estimated=device.estimated,
        free=device.free,
        total=device.total,
    )

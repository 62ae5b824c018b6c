"""GET /v1/models and /v1/models/{id}."""

from __future__ import annotations

from typing import Any

from litestar import Response

from corectl.errors import NotFound
from corectl.model.name import parse_reference
from corectl.model.record import ModelRecord
from corectl.server.inference import not_found
from corectl.server.services import Services
from corectl_openai.objects import ModelObject, ModelsReply
from corectl_openai.replies import reply


async def list_models(services: Services) -> Response[Any]:
    """All models, newest first."""
    records = await services.list()
    return reply(ModelsReply(data=[_model(record, record.name.short) for record in records]))


async def one_model(services: Services, name: str) -> Response[Any]:
    """One model, under the name that it was asked for by."""
    reference = parse_reference(name)
    record = await services.find(reference.name)
    if record is None:
        raise NotFound(not_found(reference.name.short))
    return reply(_model(record, name))


def _model(record: ModelRecord, name: str) -> ModelObject:
    return ModelObject(
        id=name,
        created=int(record.modified_at.timestamp()),
        owned_by=record.name.namespace,
        display_name=name,
        created_at=record.modified_at,
    )

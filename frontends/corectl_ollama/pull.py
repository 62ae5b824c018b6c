"""POST /api/pull."""

from __future__ import annotations

from typing import Any

from litestar import Response

from corectl.server.body import AnyRequest
from corectl.server.services import Services
from corectl_ollama.schema import TransferRequest
from corectl_ollama.steps import steps_reply


async def pull(request: AnyRequest, services: Services, body: TransferRequest) -> Response[Any]:
    """A client that leaves gives up its share: the download goes on while others wait for it."""
    steps = services.transfers.pull(body.model or body.name, insecure=body.insecure)
    return await steps_reply(request, steps, stream=body.stream)

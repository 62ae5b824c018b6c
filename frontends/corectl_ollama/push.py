"""POST /api/push."""

from __future__ import annotations

from typing import Any

from litestar import Response

from corectl.errors import RemoteError, Unauthorized
from corectl.server.body import AnyRequest
from corectl.server.services import Services, require_name
from corectl_ollama.schema import TransferRequest
from corectl_ollama.steps import steps_reply, with_faults


async def push(request: AnyRequest, services: Services, body: TransferRequest) -> Response[Any]:
    """Ends when the client leaves; blobs that have arrived need not be sent again."""
    steps = services.transfers.push(require_name(body.model or body.name), insecure=body.insecure)
    return await steps_reply(request, with_faults(steps, RemoteError, Unauthorized), stream=body.stream)

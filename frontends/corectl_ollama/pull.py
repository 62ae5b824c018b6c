"""POST /api/pull."""

from __future__ import annotations

from typing import Any

from litestar import Response

from corectl.errors import BadModelFile, NotFound, RemoteError, Unauthorized
from corectl.server.body import AnyRequest
from corectl.server.services import Services
from corectl_ollama.schema import TransferRequest
from corectl_ollama.steps import Steps, steps_reply, with_faults


async def pull(request: AnyRequest, services: Services, body: TransferRequest) -> Response[Any]:
    """A client that leaves gives up its share: the download goes on while others wait for it."""
    steps = pull_steps(services, body.model or body.name, insecure=body.insecure)
    return await steps_reply(request, steps, stream=body.stream)


def pull_steps(services: Services, name: str, *, insecure: bool) -> Steps:
    """The steps of a pull. What is wrong with a registry, or with what it has, is its own fault."""
    steps = services.transfers.pull(name, insecure=insecure)
    return with_faults(steps, RemoteError, Unauthorized, NotFound, BadModelFile)

"""The Messages API: what Anthropic's own clients speak, under `/v1/messages`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from corectl import hookimpl
from corectl.server.frontend import Frontend

if TYPE_CHECKING:
    from litestar import Router

    from corectl.server.services import Services

corectl_api = 1


class AnthropicFrontend:
    """See `corectl.server.frontend.Frontend`."""

    name = "anthropic"

    def routers(self, services: Services) -> Sequence[Router]:
        from corectl_anthropic.routes import routers

        return routers(services)


@hookimpl
def corectl_frontends() -> list[Frontend]:
    return [AnthropicFrontend()]

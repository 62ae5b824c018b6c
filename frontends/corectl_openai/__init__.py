"""OpenAI's API, as far as models on one's own machines can serve it: under `/v1`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from corectl import hookimpl
from corectl.server.frontend import Frontend

if TYPE_CHECKING:
    from litestar import Router

    from corectl.server.services import Services

corectl_api = 1


class OpenAiFrontend:
    """See `corectl.server.frontend.Frontend`."""

    name = "openai"

    def routers(self, services: Services) -> Sequence[Router]:
        from corectl_openai.routes import routers

        return routers(services)


@hookimpl
def corectl_frontends() -> list[Frontend]:
    return [OpenAiFrontend()]

"""The native API: what Ollama's own clients speak, under `/` and `/api`."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from corectl import hookimpl
from corectl.server.frontend import Frontend

if TYPE_CHECKING:
    from litestar import Router

    from corectl.server.services import Services

corectl_api = 1


class OllamaFrontend:
    """See `corectl.server.frontend.Frontend`."""

    name = "ollama"

    def routers(self, services: Services) -> Sequence[Router]:
        from corectl_ollama.routes import routers

        return routers(services)


@hookimpl
def corectl_frontends() -> list[Frontend]:
    return [OllamaFrontend()]

"""GET /metrics: what the server does, for Prometheus. Names are vLLM's where it has one, with `corectl_` in front."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING

from corectl import hookimpl
from corectl.server.frontend import Frontend

if TYPE_CHECKING:
    from litestar import Router

    from corectl.server.services import Services

corectl_api = 1


class MetricsFrontend:
    """See `corectl.server.frontend.Frontend`."""

    name = "metrics"

    def routers(self, services: Services) -> Sequence[Router]:
        from corectl_metrics.routes import routers

        return routers(services)


@hookimpl
def corectl_frontends() -> list[Frontend]:
    return [MetricsFrontend()]

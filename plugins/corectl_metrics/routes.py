"""The one route."""

from __future__ import annotations

from collections.abc import Sequence

from litestar import Response, Router, get
from prometheus_client import CollectorRegistry, ProcessCollector, generate_latest

from corectl.server.operation import Operation
from corectl.server.services import Services
from corectl_metrics.collect import Metrics
from corectl_metrics.ledger import Ledger

TEXT = "text/plain; version=0.0.4"
"""The character set follows, as with any text."""


def routers(services: Services) -> Sequence[Router]:
    """The metrics of one server. They cost next to nothing until they are asked for."""
    ledger = Ledger()
    services.plugins.listen(ledger)
    registry = CollectorRegistry()
    registry.register(Metrics(ledger, services.scheduler, services.remotes))
    ProcessCollector(registry=registry)

    @get("/metrics", operation=Operation(summary="Counts and times, for Prometheus", reply=str))
    async def metrics() -> Response[bytes]:
        # In the event loop, so that the counts belong together; it takes a few milliseconds.
        return Response(generate_latest(registry), media_type=TEXT)

    return [Router("/", route_handlers=[metrics])]

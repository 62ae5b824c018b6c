"""GET /aviary: the birds that there are, one a line."""

from __future__ import annotations

from collections.abc import Sequence

from litestar import MediaType, Router, get

from corectl.server.services import Services


def routers(services: Services) -> Sequence[Router]:
    @get("/", media_type=MediaType.TEXT)
    async def birds() -> str:
        names = [record.name.short for record in await services.list()]
        return "".join(f"{name}\n" for name in names if name.startswith("aviary/"))

    return [Router("/aviary", route_handlers=[birds])]

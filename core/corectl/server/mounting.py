"""Which frontends are mounted: those that build, and whose routes are still free."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import TypeVar

from litestar import Router

from corectl.deadline import Deadline
from corectl.server.services import Services

log = logging.getLogger(__name__)

A = TypeVar("A")
Routers = list[Router]


def mount(services: Services, make: Callable[[Routers], A]) -> A:
    """The application that `make` makes of all routers that fit together.

    A frontend that raises, that takes too long, or that wants a route which another one has, is logged and left out.
    The order is that of the plugins, so the routes of built-in ones come first.
    """
    built = {name: routers for name in services.plugins.frontends if (routers := _build(services, name))}
    try:
        return make([router for routers in built.values() for router in routers])
    except Exception:
        # Making an application takes time. So who is to blame is looked for only now.
        fitting: Routers = []
        for name, routers in built.items():
            try:
                make([*fitting, *routers])
            except Exception:
                log.exception("frontend %s is left out", name)
            else:
                fitting += routers
        return make(fitting)


def _build(services: Services, name: str) -> Routers:
    frontend = services.plugins.frontends[name]
    try:
        routers = Deadline(f"frontend {name}").call(lambda: list(frontend.routers(services)))
        for router in routers:
            # What is none is for Litestar to refuse.
            if isinstance(router, Router):
                router.opt["frontend"] = name
        return routers
    except Exception:
        log.exception("frontend %s is left out", name)
        return []

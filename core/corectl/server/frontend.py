"""What a frontend is, and the services that it is given."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Protocol

if TYPE_CHECKING:
    from litestar import Router

    from corectl.server.services import Services


class Frontend(Protocol):
    """A protocol that clients speak; see `corectl.hookspecs.corectl_frontends`.

    The routers read their bodies through `corectl.server.body`, so that limits and errors are the same everywhere,
    and raise `corectl.errors`, which they turn into replies of their own form; see `corectl.server.failures`. Routes
    say what they take and give with `corectl.server.operation`: the frontend's OpenAPI document is made of that.
    """

    @property
    def name(self) -> str: ...

    def routers(self, services: Services) -> Sequence[Router]: ...

"""What goes into the scheduler's state machine, and what comes out: requests, entries and actions."""

from __future__ import annotations

from typing import Literal

import msgspec

from corectl.errors import CorectlError
from corectl.messages import LoadOptions


class Grant(msgspec.Struct, frozen=True):
    """Request `id` may use the model now; it must be released later."""

    id: int
    model: str


class Reject(msgspec.Struct, frozen=True):
    id: int
    error: CorectlError


class Start(msgspec.Struct, frozen=True):
    """Load the model with the options of request `id`. Answer with `loaded`, `load_failed` or `no_room`.

    A `last_try` follows one that ran out of memory, and all other models have gone since.
    """

    model: str
    id: int
    last_try: bool = False


class Stop(msgspec.Struct, frozen=True):
    """End the model's runner, or give up loading it. Answer with `gone`."""

    model: str
    reason: str


Action = Grant | Reject | Start | Stop
Phase = Literal["loading", "ready", "stopping"]


class Request(msgspec.Struct, frozen=True, kw_only=True):
    """A request for a model. `keep_alive` is in seconds, `arrived` on the clock that all events use.

    A context that is `automatic` may be lowered when the model is loaded; where it is `exact`, a longer one will not
    do. `backend` is the one that it comes to, and `backend_named` says that no other one will do: options, the model's
    name or the server's settings ask for it.
    """

    id: int
    model: str
    options: LoadOptions
    backend: str = ""
    backend_named: bool = False
    keep_alive: float
    arrived: float
    automatic: bool = False
    exact: bool = False


class Entry(msgspec.Struct, kw_only=True):
    """A model that is loading, in memory, or on its way out. `expires` is on the events' clock, None while busy.

    `options`, `automatic` and `backend` are those that the load was asked for, `num_ctx` what it came to. Loading took
    `load_seconds`, and ended at `ready_at`. `draining` says why the model is to go; while it loads, that waits until
    those who asked for it have been served. At `reload_at` it begins to drain for a request that wants it otherwise.
    """

    model: str
    options: LoadOptions
    keep_alive: float
    num_ctx: int | None = None
    backend: str = ""
    automatic: bool = False
    phase: Phase = "loading"
    memory: int = 0
    active: int = 0
    since: float = 0.0
    load_seconds: float = 0.0
    ready_at: float = 0.0
    expires: float | None = None
    reload_at: float | None = None
    draining: str = ""

    @property
    def serves(self) -> bool:
        """True if it takes requests."""
        return self.phase == "ready" and not self.draining

    def asked_by(self, request: Request) -> bool:
        """True if the request would have it loaded just so."""
        asked = request.options, request.automatic, request.backend
        return asked == (self.options, self.automatic, self.backend)

    def suits(self, request: Request) -> bool:
        """True if the request can use the model as it is loaded. Options that it leaves open suit any value."""
        if request.backend_named and request.backend != self.backend:
            return False
        for field in LoadOptions.__struct_fields__:
            if field in ("backend", "num_ctx"):
                continue
            wanted, there = getattr(request.options, field), getattr(self.options, field)
            if wanted is not None and wanted != there:
                return False
        return self._has_context(request)

    def _has_context(self, request: Request) -> bool:
        """True if the context is long enough: the request keeps to its own."""
        wanted, there = request.options.num_ctx, self.num_ctx or 0
        if wanted is None:
            return True
        # One that nobody asked for is what the load has made of it.
        most = max(there, self.options.num_ctx or 0) if request.automatic else there
        return wanted in (there, most) if request.exact else wanted <= most

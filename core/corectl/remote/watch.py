"""One server and what is known of it: what it offers, and whether it answers."""

from __future__ import annotations

import asyncio
import logging
import threading
from collections.abc import Sequence
from contextvars import Context
from datetime import UTC, datetime

from corectl.errors import CorectlError, RemoteUnreachable
from corectl.model.record import ModelRecord
from corectl.remote.backend import RemoteEntry, RemoteHost, RemoteServer
from corectl.remote.names import local_name
from corectl.remote.records import record_of

log = logging.getLogger("corectl.remote")

CHECK_SECONDS = 5.0
"""How long a check may take."""

PERIOD = 30.0
"""Seconds between two checks of a server that answers."""

FIRST_PAUSE, LONGEST_PAUSE = 1.0, 60.0
"""Seconds after the first check that failed, and at most; in between they double."""

FRESH = 1.0
"""Seconds for which an answer counts as new."""

MAX_MODELS = 10_000
"""Models of one server that are listed; what it says beyond that is left out."""

Records = dict[tuple[str, str, str, str], ModelRecord]
"""By the keys of their names here."""


class WatchedServer:
    """One server. Other threads may read `records`, `up` and `problem`, and wait for `known`."""

    def __init__(self, server: RemoteServer, backend: str, host: RemoteHost) -> None:
        self.server = server
        self.backend = backend
        self.host = host
        self.records: Records = {}
        """What it offered when it last answered."""
        self.up = False
        self.problem: CorectlError | None = None
        """Why it cannot be used; None as long as nothing is known against it."""
        self.known = threading.Event()
        """Set when the first check is over."""
        self._since = datetime.now(UTC)
        self._checked = float("-inf")
        self._checking: asyncio.Task[None] | None = None
        self._nudge = asyncio.Event()
        self._nameless: set[str] = set()

    async def watch(self) -> None:
        """Checks for ever."""
        failures = 0
        while True:
            await self.check()
            failures = failures + 1 if self.problem else 0
            backoff = min(FIRST_PAUSE * 2.0 ** min(failures - 1, 30), LONGEST_PAUSE)
            try:
                async with asyncio.timeout(backoff if failures else PERIOD):
                    await self._nudge.wait()
            except TimeoutError:
                pass
            self._nudge.clear()

    async def check(self) -> None:
        """Asks the server for its models. Several who want to know at once share one question. Never raises."""
        if self._checking is None or self._checking.done():
            # It is nobody's request: neither its id nor where it came through goes along.
            self._checking = asyncio.get_running_loop().create_task(self._check(), context=Context())
        await asyncio.shield(self._checking)

    async def refresh(self) -> None:
        """The same, unless it was asked a moment ago."""
        if not self._fresh:
            await self.check()

    def wake(self) -> None:
        """Brings the next check forward, unless there was one a moment ago."""
        if not self._fresh:
            self._nudge.set()

    @property
    def _fresh(self) -> bool:
        return asyncio.get_running_loop().time() - self._checked <= FRESH

    def seen(self, *, reached: bool) -> None:
        """A request has reached the server, or has not. What was not expected is a reason to check."""
        if reached != self.up:
            self._nudge.set()

    async def _check(self) -> None:
        try:
            async with asyncio.timeout(CHECK_SECONDS):
                entries = await self.host.models()
        except CorectlError as exc:
            self._fails(exc)
        except TimeoutError:
            late = f"{self.server.label} did not answer within {CHECK_SECONDS:g} seconds"
            self._fails(RemoteUnreachable(f"remote server {late}"))
        except Exception as exc:
            log.exception("the backend %s failed", self.backend)
            self._fails(CorectlError(f"the backend {self.backend} failed: {type(exc).__name__}"))
        else:
            self._answers(entries)
        self._checked = asyncio.get_running_loop().time()
        self.known.set()

    def _answers(self, entries: Sequence[RemoteEntry]) -> None:
        self.records = self._named(entries[:MAX_MODELS])
        if not self.up:
            told = (self.server.label, self.host.protocol, len(self.records))
            log.info("remote server %s answers: %s, %d models", *told)
        self.up, self.problem = True, None

    def _fails(self, error: CorectlError) -> None:
        if self.problem is None or self.problem.message != error.message:
            log.warning("%s; until it answers, its models are not listed", error.message)
        self.up, self.problem = False, error

    def _named(self, entries: Sequence[RemoteEntry]) -> Records:
        found: Records = {}
        nameless = set()
        for entry in entries:
            name = local_name(self.server.name, entry.id)
            if name is None or name.key in found:
                nameless.add(entry.id)
            else:
                found[name.key] = record_of(self.server, entry, name, self._since)
        if nameless - self._nameless:
            some = ", ".join(repr(id[:100]) for id in sorted(nameless)[:10])
            log.warning("models of %s that cannot have a name of their own here: %s", self.server.label, some)
        self._nameless = nameless
        return found

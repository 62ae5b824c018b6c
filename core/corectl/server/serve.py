"""`corectl serve`: binds, builds, runs, until it is told to stop."""

from __future__ import annotations

import asyncio
import errno
import gc
import ipaddress
import logging
import signal
import socket
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from functools import partial
from types import FrameType
from typing import Any

import click
import uvicorn

from corectl import __version__, config
from corectl.errors import CorectlError
from corectl.plugins import PluginHost
from corectl.plugins.forks import forks_refused
from corectl.remote.registry import RemoteModels
from corectl.remote.remotes import Remotes
from corectl.scheduler.scheduler import Scheduler
from corectl.server.app import build_app
from corectl.server.connections import UNREAD_SECONDS, connections
from corectl.server.guard import Guard
from corectl.server.log import start_log
from corectl.server.request_log import RequestLog
from corectl.server.services import Services
from corectl.server.workshop import Workshop
from corectl.store.catalog import Catalog
from corectl.transfer.service import Transfers

log = logging.getLogger("corectl")

BACKLOG = 2048
SHUTDOWN_GRACE = 5
"""Seconds that running replies may still take after a signal."""


def serve(flags: dict[str, Any]) -> int:
    """Runs the server in the foreground; the exit status. `flags` are those given on the command line."""
    with forks_refused():
        return _serve(flags)


def _serve(flags: dict[str, Any]) -> int:
    try:
        settings = config.load(flags)
        start_log(settings.log_level, settings.log_format)
        listener = _bind(settings.host, settings.port)
        services = build_services(settings)
    except CorectlError as exc:
        click.echo(f"Error: {exc.message}", err=True)
        return 1
    except OSError as exc:
        reason = "address already in use" if exc.errno == errno.EADDRINUSE else exc.strerror
        click.echo(f"Error: listen tcp {settings.host}:{settings.port}: bind: {reason}", err=True)
        return 1
    guarded = Guard(build_app(services), origins=settings.origins, loopback=_is_loopback(listener))
    app = RequestLog(guarded)
    host, port = listener.getsockname()[:2]
    if not _is_loopback(listener):
        log.warning("listening on %s: every machine that reaches it may use and delete models", host)
    log.info("Listening on %s:%d (version %s)", f"[{host}]" if ":" in host else host, port, __version__)
    # What has been made so far stays for the server's life; the collector need not look at it again and again.
    gc.collect()
    gc.freeze()
    server = _Server(
        uvicorn.Config(
            app,
            loop="uvloop",
            http=connections(),
            ws="none",
            lifespan="on",
            log_config=None,
            access_log=False,
            server_header=False,
            # Nothing here asks for a client's address or scheme.
            proxy_headers=False,
            # Connections have it.
            date_header=False,
            timeout_graceful_shutdown=SHUTDOWN_GRACE,
        )
    )
    server.run(sockets=[listener])
    return 0 if server.started else 1


class _Server(uvicorn.Server):
    """A server that a signal ends with exit status 0: uvicorn's own raises the signal again when it is done."""

    _told: Callable[[], object] | None = None
    """Says to the event loop that a signal has come."""

    async def main_loop(self) -> None:
        """Waits for a signal. uvicorn's own wakes up ten times a second to see whether there was one.

        Beside a model that computes on all cores, whose caches are never free, that costs milliseconds a second.
        """
        loop, ended = asyncio.get_running_loop(), asyncio.Event()
        self._told = partial(loop.call_soon_threadsafe, ended.set)
        if not self.should_exit:
            await ended.wait()

    def handle_exit(self, sig: int, frame: FrameType | None) -> None:
        super().handle_exit(sig, frame)
        if self._told is not None:
            self._told()

    @contextmanager
    def capture_signals(self) -> Iterator[None]:
        before = {
            number: signal.signal(number, self.handle_exit) for number in (signal.SIGINT, signal.SIGTERM)
        }
        try:
            yield
        finally:
            for number, handler in before.items():
                signal.signal(number, handler)


def build_services(settings: config.Settings) -> Services:
    """Loads the plugins and puts the server's parts together."""
    plugins = PluginHost.load(settings)
    remotes = Remotes(settings, plugins.remote_backends)
    # Its names are its own, and it answers at once: those of plugins are asked on a thread each.
    registries = [*([RemoteModels(remotes)] if remotes.named else []), *plugins.registries.values()]
    catalog = Catalog(settings.models, registries, prune=settings.prune)
    catalog.start()
    scheduler = Scheduler(settings, plugins)
    return Services(
        settings=settings,
        plugins=plugins,
        catalog=catalog,
        scheduler=scheduler,
        transfers=Transfers(settings, plugins.remote_registries, catalog),
        remotes=remotes,
        workshop=Workshop(settings, plugins, scheduler.machine),
    )


def _bind(host: str, port: int) -> socket.socket:
    family = socket.AF_INET6 if ":" in host else socket.AF_INET
    listener = socket.socket(family, socket.SOCK_STREAM)
    try:
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        # Connections inherit it: a client whose machine is gone is noticed some time.
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_KEEPALIVE, 1)
        # And so is one that is there, but takes nothing of what was sent to it.
        if hasattr(socket, "TCP_USER_TIMEOUT"):
            listener.setsockopt(socket.IPPROTO_TCP, socket.TCP_USER_TIMEOUT, int(UNREAD_SECONDS * 1000))
        listener.bind((host, port))
        listener.listen(BACKLOG)
    except OSError:
        listener.close()
        raise
    return listener


def _is_loopback(listener: socket.socket) -> bool:
    return ipaddress.ip_address(listener.getsockname()[0]).is_loopback

"""Takes requests from the server: one thread reads them, another prepares them, so that a cancellation never waits."""

from __future__ import annotations

import faulthandler
import logging
import os
import queue
import selectors
import signal
import socket
import threading
import time
from collections.abc import Callable

from corectl.errors import CorectlError
from corectl.runner import protocol
from corectl.runner.emitter import Sender

log = logging.getLogger(__name__)

PREPARE_SECONDS = 90
"""How long a prompt may take to be rendered and tokenised before the process ends itself.

The longest that a context of 262,144 tokens could be cut from takes 17 seconds, and some times as long on a machine
whose cores are all computing.

Templates have budgets of their own, far below it. This is for a hostile one that finds a way around them, inside a
single call of C code that no Python thread could interrupt: the kernel's timer sends `ALARM`.
"""

ALARM = signal.SIGALRM
"""Ends a process that does not handle it."""

EXIT_GRACE = 10.0
"""Seconds that a step may still take when the server has gone, before the process ends itself."""

Request = protocol.Complete | protocol.Ask
Deliver = Callable[[], None]


class Intake:
    """Reads from the connection until the server is gone.

    `prepare` turns a request into a `Deliver`, which is called if the request still stands; `cancel` is told of
    requests that nobody waits for any more, `share` of cores that are its own, `shutdown` of the end; `step_seconds`
    says for how long the current step has been going on. All of them are called on threads of this object.
    """

    def __init__(
        self,
        connection: socket.socket,
        sender: Sender,
        *,
        prepare: Callable[[Request], Deliver],
        cancel: Callable[[int], None],
        share: Callable[[protocol.Share], None],
        step_seconds: Callable[[], float],
        shutdown: Callable[[], None],
    ) -> None:
        self._connection = connection
        self._sender = sender
        self._prepare = prepare
        self._cancel = cancel
        self._share = share
        self._step_seconds = step_seconds
        self._shutdown = shutdown
        self._requests: queue.SimpleQueue[Request | None] = queue.SimpleQueue()
        self._preparer = threading.Thread(target=self._prepare_all, name="preparer", daemon=True)
        # Guards `_pending`: the ids that are not delivered yet.
        self._lock = threading.Lock()
        self._pending: set[int] = set()

    def start(self) -> None:
        """Called once, by the main thread."""
        signal.signal(ALARM, signal.SIG_DFL)
        # Where it hangs goes to the log.
        faulthandler.register(ALARM, chain=True)
        threading.Thread(target=self._read_all, name="reader", daemon=True).start()
        self._preparer.start()

    def join(self) -> None:
        """Returns when nothing is prepared any more: the engine may be closed then. Called after `shutdown` was."""
        self._preparer.join()

    def _read_all(self) -> None:
        ready = selectors.DefaultSelector()
        ready.register(self._connection, selectors.EVENT_READ)
        try:
            while True:
                # Linux wakes who waits in `recv` for each frame that the server takes from us as well.
                ready.select()
                self._accept(protocol.receive(self._connection))
        except (EOFError, OSError):
            pass
        except Exception:
            log.exception("the reading thread failed")
        with self._lock:
            self._pending.clear()
        self._requests.put(None)
        self._shutdown()
        time.sleep(EXIT_GRACE)
        os._exit(0)

    def _accept(self, item: protocol.ToRunner) -> None:
        match item:
            case protocol.Cancel(id=id):
                with self._lock:
                    self._pending.discard(id)
                    self._cancel(id)
            case protocol.Ping():
                self._sender.send(protocol.Pong(self._step_seconds()))
            case protocol.Share():
                self._share(item)
            case protocol.Complete() | protocol.Ask():
                with self._lock:
                    self._pending.add(item.id)
                self._requests.put(item)
            case _:
                raise EOFError(f"unexpected {type(item).__name__} frame")

    def _prepare_all(self) -> None:
        while True:
            item = self._requests.get()
            if item is None:
                return
            if item.id not in self._pending:
                continue
            signal.setitimer(signal.ITIMER_REAL, PREPARE_SECONDS)
            try:
                deliver = self._prepare(item)
            except CorectlError as exc:
                deliver = self._failing(item.id, exc.code, exc.message)
            except Exception as exc:
                log.exception("a request could not be prepared")
                deliver = self._failing(item.id, CorectlError.code, f"{type(exc).__name__}: {exc}")
            finally:
                signal.setitimer(signal.ITIMER_REAL, 0)
            with self._lock:
                if item.id in self._pending:
                    self._pending.discard(item.id)
                    self._deliver(item.id, deliver)

    def _deliver(self, id: int, deliver: Deliver) -> None:
        """This thread must outlive whatever cannot be delivered: all later requests wait for it."""
        try:
            deliver()
        except Exception as exc:
            log.exception("a request could not be handed on")
            self._failing(id, CorectlError.code, type(exc).__name__)()

    def _failing(self, id: int, code: str, message: str) -> Deliver:
        return lambda: self._sender.send(protocol.Failed(id, code, message))

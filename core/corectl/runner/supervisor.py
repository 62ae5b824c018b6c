"""Starts runner processes and speaks to them, in the server's event loop."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import signal
import socket
import sys
from collections import deque
from collections.abc import Callable, Coroutine, Sequence
from contextlib import suppress
from typing import Any, TypeVar

from corectl import flood, trace
from corectl.errors import CorectlError, DoesNotFit, LoadFailed, RunnerDied, from_code
from corectl.flood import Flood
from corectl.messages import (
    Completion,
    Detokenize,
    Embedding,
    Event,
    Question,
    Rendered,
    Rerank,
    Scores,
    Text,
    Tokenize,
    Tokens,
    Vectors,
)
from corectl.runner import protocol
from corectl.runner.engine import EngineInfo
from corectl.runner.environment import runner_environment
from corectl.runner.intake import ALARM, PREPARE_SECONDS
from corectl.runner.stats import StepStats
from corectl.runner.stream import EventStream
from corectl.runner.watchdog import PATIENCE, Patience, Watchdog

log = logging.getLogger("corectl.runner")

A = TypeVar("A", Rendered, Vectors, Scores, Tokens, Text)

STOP_GRACE = 5.0
"""Seconds that a runner may take to end by itself before it is killed."""

LOG_PAUSE = 0.001
"""Seconds that a line of a process which writes too many costs that process."""

LOG_GRACE = 1.0
"""Seconds that the last lines of a dead process's log are waited for."""

DIED = (
    "model runner has unexpectedly stopped, this may be due to resource limitations or an internal error, "
    "check the server's log for details"
)

_FOREIGN = (
    ": the engine was built for another processor, with instructions that this one does not have; "
    "build it on this machine, 'corectl hardware' says how"
)

_SLOW = f": a prompt took more than {PREPARE_SECONDS} seconds to be rendered and tokenised"


class _Link(asyncio.Protocol):
    """Cuts the byte stream from a runner into frames."""

    def __init__(self, runner: Runner) -> None:
        self._runner = runner
        self._buffer = bytearray()

    def data_received(self, data: bytes) -> None:
        if self._buffer:
            self._buffer += data
            del self._buffer[: self._cut(self._buffer)]
        elif (end := self._cut(data)) < len(data):
            self._buffer += data[end:]

    def _cut(self, data: bytes | bytearray) -> int:
        """Hands over the whole frames; returns where they end."""
        start = 0
        with memoryview(data) as view:
            while len(data) - start >= protocol.HEADER:
                body = start + protocol.HEADER
                length = int.from_bytes(view[start:body], "big")
                if length > protocol.MAX_FRAME:
                    raise ValueError(f"frame of {length} bytes")  # asyncio closes the connection
                if len(data) < body + length:
                    break
                start = body + length
                self._runner.received(protocol.to_server.decode(view[body:start]))
        return start

    def connection_lost(self, exc: Exception | None) -> None:
        self._runner.disconnected()


class Runner:
    """One runner process and the streams that it serves. Made by `start`; all methods belong to the event loop."""

    def __init__(self, patience: Patience = PATIENCE) -> None:
        self.info: EngineInfo
        self.stats = StepStats()
        self.progress = 0.0
        self.ended: asyncio.Future[str] = asyncio.get_running_loop().create_future()
        """Done when the process is gone; says why."""
        self.lost: asyncio.Future[None] = asyncio.get_running_loop().create_future()
        """Done when the process no longer speaks to us: it takes no more requests, and `ended` follows."""
        self._ready: asyncio.Future[EngineInfo] = asyncio.get_running_loop().create_future()
        self._moved = asyncio.Event()
        self._streams: dict[int, EventStream] = {}
        self._next_id = 1
        self._log: deque[str] = deque(maxlen=20)
        self._stopping = False
        self._transport: asyncio.Transport
        self._process: asyncio.subprocess.Process
        self._log_task: asyncio.Task[None]
        self._tasks: set[asyncio.Task[None]] = set()
        self._watchdog = Watchdog(
            patience,
            busy=lambda: bool(self._streams) and not self._transport.is_closing(),
            ask=lambda: self._send(protocol.Ping()),
            give_up=self._give_up,
        )
        self._hung = ""

    @property
    def pid(self) -> int:
        return self._process.pid

    @classmethod
    async def start(
        cls, load: protocol.Load, *, load_timeout: float, patience: Patience = PATIENCE
    ) -> Runner:
        """Starts a process and loads a model in it. `load_timeout` is in seconds without progress.

        `patience` is how long it may hang before it is killed. Raises `LoadFailed` with the reason. A cancelled start
        leaves no process behind.
        """
        runner = cls(patience)
        try:
            await runner._spawn()
            runner._send(load)
            runner.info = await runner._wait_ready(load_timeout)
        except BaseException:
            await runner.stop(grace=0)
            raise
        return runner

    async def _spawn(self) -> None:
        ours, theirs = socket.socketpair()
        try:
            self._process = await asyncio.create_subprocess_exec(
                sys.executable,
                "-P",  # the folder that the server was started in is no place for modules
                "-m",
                "corectl.runner",
                str(theirs.fileno()),
                str(log.getEffectiveLevel()),
                pass_fds=[theirs.fileno()],
                env=runner_environment(os.environ),
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.DEVNULL,
                stderr=asyncio.subprocess.PIPE,
                # Ctrl-C in a terminal is for the server, which then ends its runners in order.
                start_new_session=True,
            )
        except BaseException:
            ours.close()
            raise
        finally:
            theirs.close()
        self._log_task = self._background(self._read_log())
        ours.setblocking(False)
        loop = asyncio.get_running_loop()
        self._transport, _ = await loop.create_connection(lambda: _Link(self), sock=ours)

    async def _wait_ready(self, load_timeout: float) -> EngineInfo:
        while True:
            self._moved.clear()
            moved = asyncio.ensure_future(self._moved.wait())
            waited: set[asyncio.Future[Any]] = {moved, self._ready}
            limit = None if load_timeout == float("inf") else load_timeout
            try:
                done, _ = await asyncio.wait(waited, timeout=limit, return_when=asyncio.FIRST_COMPLETED)
            finally:
                moved.cancel()
            if self._ready in done:
                return self._ready.result()
            if not done:
                raise LoadFailed(f"timed out waiting for the model to load - progress {self.progress:.2f}")

    async def ready(self) -> None:
        """Returns at once: the model has been loaded."""

    def complete(self, request: Completion) -> EventStream:
        """Starts to generate. Close the stream when done; before its `Finish` that cancels within one step."""
        stream = self._open()
        try:
            self._send(protocol.Complete(stream.id, request))
        except Exception:
            stream.close()
            raise
        return stream

    async def render(self, request: Completion) -> Rendered:
        """The prompt of a request with `render_only`."""
        return await self._answer(lambda id: protocol.Complete(id, request), Rendered)

    async def embed(self, request: Embedding) -> Vectors:
        """One vector per input. Cancelling the caller cancels the work, here and below."""
        answer = await self._ask(request, Vectors)
        trace.current().answered(answer.prompt_tokens, answer.dropped_tokens)
        return answer

    async def rerank(self, request: Rerank) -> Scores:
        """One score per document."""
        answer = await self._ask(request, Scores)
        trace.current().answered(answer.prompt_tokens, answer.dropped_tokens)
        return answer

    async def tokenize(self, request: Tokenize) -> Tokens:
        return await self._ask(request, Tokens)

    async def detokenize(self, request: Detokenize) -> Text:
        return await self._ask(request, Text)

    async def _ask(self, question: Question, kind: type[A]) -> A:
        return await self._answer(lambda id: protocol.Ask(id, question), kind)

    async def _answer(self, make: Callable[[int], protocol.ToRunner], kind: type[A]) -> A:
        stream = self._open()
        try:
            self._send(make(stream.id))
            event = (await stream.take())[0]
        finally:
            stream.close()
        assert isinstance(event, kind)
        return event

    def share(self, cores: int) -> None:
        """Tells the runner how many of the machine's cores are its own, now that so many runners work."""
        if not self._transport.is_closing():
            self._send(protocol.Share(cores))

    async def stop(self, grace: float = STOP_GRACE) -> None:
        """Ends the process: politely first, by force after `grace` seconds. Returns when it is gone."""
        self._stopping = True
        if not hasattr(self, "_process"):
            return
        if hasattr(self, "_transport"):
            self._transport.close()
        if grace > 0:
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), grace)
        await self._kill()

    async def _kill(self) -> None:
        if self._process.returncode is None:
            with suppress(ProcessLookupError):
                self._process.kill()
            # One that hangs in a driver is never gone.
            with suppress(TimeoutError):
                await asyncio.wait_for(self._process.wait(), STOP_GRACE)

    def received(self, value: protocol.ToServer) -> None:
        """Takes one frame from the process."""
        match value:
            case protocol.Steps():
                self._count(value)
                for id, deltas in value.deltas:
                    self._put(id, deltas)
                for id, finish in value.finished:
                    self._put(id, [finish])
            case protocol.Answer():
                self._put(value.id, [value.value])
            case protocol.Failed(id=0):
                if not self._ready.done():
                    self._ready.set_exception(from_code(value.code, value.message))
            case protocol.Failed():
                self._put(value.id, from_code(value.code, value.message))
            case protocol.Progress():
                self.progress = value.fraction
                self._moved.set()
            case protocol.Pong():
                self._watchdog.heard(value.step_seconds)
            case protocol.Ready():
                if not self._ready.done():
                    self._ready.set_result(value.info)

    def disconnected(self) -> None:
        """The process has closed its end: it is gone, or soon will be."""
        if not self.lost.done():
            self.lost.set_result(None)
        self._watchdog.rest()
        self._background(self._bury())

    def _give_up(self, why: str) -> None:
        """The process hangs: it is killed, and what follows is as after a crash.

        Its streams are told at once, and not when it is gone: one that hangs in a driver cannot even be killed.
        """
        self._hung = why
        log.error("runner %d hangs (%s) and is killed", self.pid, why)
        with suppress(ProcessLookupError):
            self._process.kill()
        for stream in list(self._streams.values()):
            stream.put(RunnerDied(f"{DIED} (it hung: {why})"))
        self._transport.abort()

    async def _bury(self) -> None:
        with suppress(TimeoutError):
            await asyncio.wait_for(self._process.wait(), STOP_GRACE)
        await self._kill()
        # The last lines may still be on their way; a child of the process may keep the pipe open for ever.
        await asyncio.wait({self._log_task}, timeout=LOG_GRACE)
        reason = self._reason()
        error = RunnerDied(f"{DIED} ({reason})")
        if not self._stopping:
            log.error("runner %d has died: %s", self.pid, reason)
        if not self._ready.done():
            # Memory that runs out ends a process without a word.
            killed = self._process.returncode == -signal.SIGKILL and not self._hung
            kind = DoesNotFit if killed else LoadFailed
            self._ready.set_exception(kind(f"model runner process has terminated: {reason}"))
        # A failed load that nobody waits for any more is not worth a warning.
        self._ready.exception()
        for stream in self._streams.values():
            stream.put(error)
        if not self.ended.done():
            self.ended.set_result(reason)

    def _reason(self) -> str:
        code = self._process.returncode or 0
        reason = f"killed by {_signal_name(-code)}" if code < 0 else f"exit status {code}"
        reason += _FOREIGN if code == -signal.SIGILL else ""
        reason += _SLOW if code == -ALARM else ""
        reason = f"it hung: {self._hung}" if self._hung else reason
        lines = _without_paths(" | ".join(list(self._log)[-3:]))
        return f"{reason}; last log lines: {lines}" if lines else reason

    async def _read_log(self) -> None:
        stream = self._process.stderr
        assert stream is not None
        lines = Flood(f"runner {self.pid}")
        while True:
            try:
                line = await stream.readline()
            except ValueError:
                continue  # a line longer than the buffer was dropped
            if not line:
                return
            text = line.decode("utf-8", "replace").rstrip()
            self._log.append(text[:500])
            if count := lines.left_out():
                log.warning(flood.ENDS, count, lines.name)
            if lines.admits() or log.isEnabledFor(logging.DEBUG):
                log.info("[%d] %s", self.pid, text)
                continue
            if lines.begins:
                log.warning(flood.BEGINS, lines.name, flood.LINES, flood.SECONDS)
            # The pipe fills up, and whoever writes has to wait: reading all of it would keep this process busy.
            await asyncio.sleep(LOG_PAUSE)

    def _open(self) -> EventStream:
        if self.ended.done() or self._transport.is_closing():
            raise RunnerDied(DIED)
        id, self._next_id = self._next_id, self._next_id + 1
        stream = self._streams[id] = EventStream(id, self._forget)
        self._watchdog.wake()
        return stream

    def _forget(self, id: int, cancel: bool) -> None:
        del self._streams[id]
        if cancel and not self._transport.is_closing():
            self._send(protocol.Cancel(id))

    def _put(self, id: int, events: Sequence[Event] | CorectlError) -> None:
        stream = self._streams.get(id)
        if stream is not None:
            stream.put(events)

    def _count(self, frame: protocol.Steps) -> None:
        stats = self.stats
        stats.state = frame.state
        for step in frame.computed:
            if step.sequences:
                stats.steps += 1
                stats.sequences += step.sequences
                stats.tokens += step.tokens
                stats.largest = max(stats.largest, step.sequences)
                stats.sizes.observe(step.sequences)
            if step.gap:
                stats.gaps.observe(step.gap)

    def _send(self, value: protocol.ToRunner) -> None:
        self._transport.write(protocol.frame(value))

    def _background(self, work: Coroutine[object, object, None]) -> asyncio.Task[None]:
        task: asyncio.Task[None] = asyncio.get_running_loop().create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)
        return task


def _signal_name(number: int) -> str:
    """Real-time signals have no name."""
    try:
        return signal.Signals(number).name
    except ValueError:
        return f"signal {number}"


def _without_paths(text: str) -> str:
    """A log line for clients: where this machine keeps its files is nobody's business."""
    return re.sub(r"(?<![\w.])/(?:[^\s:/]+/)+", "", text)

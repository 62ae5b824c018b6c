"""Turns the tokens of each step into text and sends it: between two steps, or on a thread beside the engine.

Beside is better where the engine leaves a core free. Where its threads are on all of them, whatever runs beside them
holds them all up, and the way to another thread and back costs as much as the work. There pieces of text also travel
together: what a frame wakes up, in the server and in the client, takes a core from the engine each time. They are made
together, too, as the engine drives this code out of the caches with each step.
"""

from __future__ import annotations

import logging
import queue
import socket
import threading
import time
from collections.abc import Callable
from typing import Protocol

import msgspec

from corectl.errors import EngineError
from corectl.messages import Completion, Delta, Finish, Logprob, TokenLogprob
from corectl.output.dialect import Part
from corectl.output.text import TextStream
from corectl.runner import protocol
from corectl.runner.engine import Candidate, Sampled, Tokenizer
from corectl.runner.job import Ended, StepOutput
from corectl.runner.prepare import Prepared
from corectl.runner.state import LoopState

log = logging.getLogger(__name__)

TOGETHER = 0.1
"""Seconds for which text may wait for more, where sending it takes time from the engine. It still reads as one flow."""

WORTHWHILE = 3
"""Pieces of all streams that must come within that time: for fewer no text waits. A frame takes a millisecond from the
engine, and one for eight streams not quite two."""


class Sender:
    """Writes frames to the server; whole frames from any thread."""

    def __init__(self, connection: socket.socket) -> None:
        self._connection = connection
        self._lock = threading.Lock()

    def send(self, value: protocol.ToServer) -> None:
        data = protocol.frame(value)
        with self._lock:
            try:
                self._connection.sendall(data)
            except OSError:
                # The server has gone; the reading thread notices and ends the process.
                log.debug("frame dropped: the server has gone")


class OutputStream:
    """The output side of one sequence."""

    def __init__(self, request: Completion, prepared: Prepared) -> None:
        self.text = TextStream(request.sampling.stop)
        self.stops = bool(request.sampling.stop)
        """Whether a piece of its text may end it."""
        self.reader = prepared.reader
        self.markers = prepared.markers
        self.notices = prepared.notices
        self.constraint = prepared.job.constraint
        self.fit = prepared.fit
        self.context: list[int] | None = list(prepared.job.text) if request.want_context else None
        self.tokens = 0
        self.begun = False
        """Whether any of its text has been sent."""
        self.end = ""
        self.stop = ""


class _Frame(msgspec.Struct):
    """What is to be sent next, and whether it cannot wait."""

    computed: list[protocol.Computed] = []
    deltas: dict[int, list[Delta]] = {}
    finished: list[tuple[int, Finish]] = []
    failed: list[protocol.Failed] = []
    urgent: bool = False

    def finish(self, id: int, finish: Finish) -> None:
        self.finished.append((id, finish))
        self.urgent = True

    def fail(self, id: int, exc: Exception) -> None:
        error = EngineError.of(exc)
        self.failed.append(protocol.Failed(id, error.code, error.message))
        self.urgent = True


class Outlet(Protocol):
    """Where the batch loop's thread puts the output of its steps."""

    def open(self, id: int, stream: OutputStream) -> None:
        """Announces a stream, before its sequence can give any token. Any thread."""
        ...

    def put(self, output: StepOutput) -> None:
        """Takes a step's tokens."""
        ...

    def drop(self, id: int) -> None:
        """Forgets a stream that nobody reads any more, after the steps that were put so far."""
        ...

    def computing(self, long: bool) -> None:
        """The engine is about to compute a step, which may be a `long` one."""
        ...

    def flush(self) -> None:
        """It is not known when the next step comes: no output may be held back."""
        ...


class Emitter:
    """An `Outlet` on the thread that it is called on. `ask_stop` is called when a text says that it is to end.

    A text that has begun and does not end may wait up to `together` seconds for more: it is sent with the last step
    that ends within them. `state` says how the batch loop is, `clock` gives seconds.
    """

    def __init__(
        self,
        tokenizer: Tokenizer,
        sender: Sender,
        ask_stop: Callable[[int], None],
        *,
        state: Callable[[], LoopState],
        together: float = 0.0,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._tokenizer = tokenizer
        self._sender = sender
        self._ask_stop = ask_stop
        self._state = state
        self._together = together
        self._clock = clock
        self._streams: dict[int, OutputStream] = {}
        # Steps of which no text was made yet, and when each was put.
        self._unread: list[tuple[float, StepOutput]] = []
        self._frame = _Frame()
        self._generating = False
        # When the last step was put, the oldest of those that are not sent, and the last one that gave text.
        self._put_at = self._held_since = self._last_output = 0.0

    def open(self, id: int, stream: OutputStream) -> None:
        self._streams[id] = stream

    def put(self, output: StepOutput) -> None:
        now = self._clock()
        if not self._holds:
            self._held_since = now
        self._unread.append((now, output))
        if not self._can_wait(output):
            self._read()
        if self._frame.urgent or self._is_due(output, now - self._put_at, now):
            self.flush()
        self._put_at = now

    def drop(self, id: int) -> None:
        self._streams.pop(id, None)
        self._frame.deltas.pop(id, None)

    def computing(self, long: bool) -> None:
        if long:
            self.flush()

    def flush(self) -> None:
        if not self._holds:
            return
        self._read()
        frame, self._frame = self._frame, _Frame()
        self._sender.send(
            protocol.Steps(frame.computed, list(frame.deltas.items()), frame.finished, self._state())
        )
        # After the steps, so that no text is lost.
        for failure in frame.failed:
            self._sender.send(failure)

    @property
    def _holds(self) -> bool:
        return bool(self._unread or self._frame.computed)

    def _is_due(self, output: StepOutput, step: float, now: float) -> bool:
        """Whether what is held must go now: another step of so many seconds ends too late, or brings too little."""
        late = now + step >= self._held_since + self._together
        return late or WORTHWHILE * step >= self._together * len(output.sampled)

    def _can_wait(self, output: StepOutput) -> bool:
        """Whether no text of a step is the first of its stream, and none may end one."""
        if output.ended or not output.sequences:
            return False
        streams = (self._streams.get(sampled.id) for sampled in output.sampled)
        return all(stream is None or (stream.begun and not stream.stops) for stream in streams)

    def _read(self) -> None:
        """Makes text of what has come since."""
        unread, self._unread = self._unread, []
        for moment, output in unread:
            self._take(output, moment)

    def _take(self, output: StepOutput, moment: float) -> None:
        frame = self._frame
        deltas: list[tuple[int, Delta]] = []
        for sampled in output.sampled:
            stream = self._streams.get(sampled.id)
            if stream is None or stream.end:
                continue
            try:
                self._push(sampled, stream, deltas)
            except Exception as exc:
                # A stream that cannot be written must not silence the others.
                log.exception("a token could not be turned into text")
                del self._streams[sampled.id]
                self._ask_stop(sampled.id)
                frame.fail(sampled.id, exc)
        for ended in output.ended:
            stream = self._streams.pop(ended.id, None)
            if stream is None:
                continue
            try:
                self._finish(ended, stream, deltas)
            except Exception as exc:
                log.exception("the end of an output could not be read")
                frame.fail(ended.id, exc)
        for id, delta in deltas:
            stream = self._streams.get(id)
            if stream is not None and not stream.begun:
                stream.begun = frame.urgent = True
            frame.deltas.setdefault(id, []).append(delta)
        gap = self._gap(output, moment, gives=bool(deltas))
        frame.computed.append(protocol.Computed(output.sequences, output.tokens, gap))
        # Without a step there is something that the server is to know.
        frame.urgent |= not output.sequences

    def _gap(self, output: StepOutput, moment: float, *, gives: bool) -> float:
        """See `protocol.Computed`."""
        gap = 0.0
        if gives:
            if self._generating and self._last_output:
                gap = moment - self._last_output
            self._last_output = moment
        self._generating = output.generating
        if not self._generating:
            # What comes next begins anew.
            self._last_output = 0.0
        return gap

    def _push(self, sampled: Sampled, stream: OutputStream, deltas: list[tuple[int, Delta]]) -> None:
        stream.tokens += 1
        if stream.context is not None:
            stream.context.append(sampled.token)
        piece = stream.text.push(self._visible(sampled.token, stream), self._logprob(sampled))
        if piece.end:
            stream.end, stream.stop = piece.end, piece.stop
            self._ask_stop(sampled.id)
        parts = stream.reader.push(piece.text) if piece.text else []
        _append(deltas, sampled.id, parts, piece.logprobs)

    def _visible(self, token: int, stream: OutputStream) -> bytes:
        """The text of a token as the stream's reader must see it."""
        text = self._tokenizer.piece(token)
        if not text and stream.markers:
            marker = self._tokenizer.piece(token, special=True)
            return marker if marker in stream.markers else b""
        return text

    def _finish(
        self,
        ended: Ended,
        stream: OutputStream,
        deltas: list[tuple[int, Delta]],
    ) -> None:
        if not stream.end:
            piece = stream.text.flush()
            parts = stream.reader.push(piece.text) if piece.text else []
            _append(deltas, ended.id, parts, piece.logprobs)
        _append(deltas, ended.id, stream.reader.finish(), ())
        if ended.error is not None:
            self._frame.fail(ended.id, ended.error)
            return
        usage = ended.usage
        if stream.end:
            # Tokens that were computed while the stop string was on its way are nobody's.
            usage = msgspec.structs.replace(usage, output_tokens=stream.tokens)
        fit = msgspec.structs.replace(
            stream.fit, shifts=ended.shifts, dropped_tokens=stream.fit.dropped_tokens + ended.shifted_tokens
        )
        constrained = () if stream.constraint is None else stream.constraint.notices
        finish = Finish(
            reason=stream.end or ended.reason,
            usage=usage,
            fit=fit,
            context=tuple(stream.context or ()),
            notices=(*stream.notices, *stream.reader.notices, *constrained),
            stop=stream.stop,
        )
        self._frame.finish(ended.id, finish)

    def _logprob(self, sampled: Sampled) -> Logprob | None:
        if sampled.chosen is None:
            return None
        return Logprob(self._named(sampled.chosen), tuple(self._named(item) for item in sampled.top))

    def _named(self, candidate: Candidate) -> TokenLogprob:
        piece = self._tokenizer.piece(candidate.token)
        return TokenLogprob(piece.decode("utf-8", "replace"), candidate.logprob, piece)


class EmitterThread:
    """An `Outlet` that has another do its work on a thread of its own.

    A step's output is handed over right before the engine starts on the next: then the emitter has the interpreter to
    itself, and the engine's thread never waits for it.

    `give_up` ends the process. It is called when the emitter fails: text would be missing, and nobody would know.
    """

    def __init__(self, emitter: Outlet, give_up: Callable[[], None]) -> None:
        self._emitter = emitter
        self._give_up = give_up
        self._held: StepOutput | None = None
        self._items: queue.SimpleQueue[StepOutput | int] = queue.SimpleQueue()
        threading.Thread(target=self._run, name="emitter", daemon=True).start()

    def open(self, id: int, stream: OutputStream) -> None:
        self._emitter.open(id, stream)

    def put(self, output: StepOutput) -> None:
        self.flush()
        self._held = output

    def drop(self, id: int) -> None:
        self.flush()
        self._items.put(id)

    def computing(self, long: bool) -> None:
        self.flush()

    def flush(self) -> None:
        if self._held is not None:
            self._items.put(self._held)
            self._held = None

    def _run(self) -> None:
        while True:
            item = self._items.get()
            try:
                if isinstance(item, int):
                    self._emitter.drop(item)
                else:
                    self._emitter.put(item)
            except Exception:
                log.exception("a frame was lost")
                self._give_up()
                return


def _append(
    deltas: list[tuple[int, Delta]], id: int, parts: list[Part], logprobs: tuple[Logprob, ...]
) -> None:
    """One delta for all that one token gave, if it gave anything."""
    if len(parts) == 1:
        part = parts[0]
        calls = (part.call,) if part.call is not None else ()
        deltas.append((id, Delta(part.text, logprobs, part.thinking, calls)))
    elif parts or logprobs:
        deltas.append(
            (
                id,
                Delta(
                    "".join(part.text for part in parts),
                    logprobs,
                    "".join(part.thinking for part in parts),
                    tuple(part.call for part in parts if part.call is not None),
                ),
            )
        )

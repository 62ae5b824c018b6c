"""The runner process: one loaded model, spoken to over a socket that it inherits.

The main thread runs the batch loop, one reads requests, one prepares them (rendering and tokenising prompts); and where
the engine leaves a core free, one more turns tokens into text and sends it.
"""

from __future__ import annotations

import gc
import logging
import os
import queue
import socket
import sys
import time

import msgspec

from corectl.config import Settings
from corectl.errors import CorectlError, LoadFailed
from corectl.hardware.cores import usable_cores
from corectl.messages import Detokenize, Embedding, Question, Rerank, Started, Tokenize
from corectl.parent import end_with_parent
from corectl.plugins import PluginHost
from corectl.runner import protocol, vocabulary
from corectl.runner.embedding import prepare_embedding
from corectl.runner.emitter import TOGETHER, Emitter, EmitterThread, Outlet, OutputStream, Sender
from corectl.runner.encoding import EncodeJob, EncodeQueue
from corectl.runner.engine import Engine, Placement
from corectl.runner.intake import Deliver, Intake
from corectl.runner.job import Ended, Job, StepOutput
from corectl.runner.loop import BatchLoop
from corectl.runner.prepare import prepare_completion, render_prompt
from corectl.runner.ranking import prepare_rerank
from corectl.runner.threads import ThreadFollower
from corectl.runner.vision import vision_of

log = logging.getLogger("corectl.runner")

TIDY_SECONDS = 0.2
"""After so long without a request a runner does what would hold up a step later, piece by piece; what is quickly done,
at once."""


class _Cancel(msgspec.Struct, frozen=True):
    """Nobody reads a request's stream any more."""

    id: int


class _Stop(msgspec.Struct, frozen=True):
    """The emitter asks the loop to end a sequence: its text has reached a stop string."""

    id: int


class _Shutdown(msgspec.Struct, frozen=True):
    pass


_Item = Job | EncodeJob | _Cancel | _Stop | _Shutdown | protocol.Share


class RunnerProcess:
    """Everything between the socket and the engine."""

    def __init__(self, connection: socket.socket, load: protocol.Load) -> None:
        self._sender = Sender(connection)
        self._inbox: queue.SimpleQueue[_Item] = queue.SimpleQueue()
        self._engine = self._load(load)
        self._vision = vision_of(self._engine)
        self._loop = BatchLoop(self._engine, snapshots=load.placement.snapshots)
        self._intake = Intake(
            connection,
            self._sender,
            prepare=self._prepare,
            cancel=lambda id: self._inbox.put(_Cancel(id)),
            share=self._inbox.put,
            step_seconds=self._step_seconds,
            shutdown=lambda: self._inbox.put(_Shutdown()),
        )
        self._encoding = EncodeQueue(self._engine)
        # Engines whose threads cannot follow the cores may have taken fewer.
        placement = msgspec.structs.replace(load.placement, num_thread=self._engine.info.num_thread)
        self._threads = ThreadFollower(self._engine, placement)
        self._step_began: float | None = None
        # Seconds without a request until there is something to tidy.
        self._patience: float | None = None
        self._outlet = self._open_outlet(beside=leaves_a_core(placement))

    def _load(self, load: protocol.Load) -> Engine:
        host = PluginHost.load(Settings(), only=load.plugins)
        self._dialects = host.dialects
        backend = host.backends.get(load.backend)
        if backend is None:
            reasons = "; ".join(info.reason for info in host.plugins if info.reason) or "it is not installed"
            raise LoadFailed(f"backend {load.backend!r} cannot be used: {reasons}")
        sent = 0.0

        def progress(fraction: float) -> None:
            nonlocal sent
            if fraction - sent >= 0.01:
                sent = fraction
                self._sender.send(protocol.Progress(fraction))

        return backend.load(load.model, load.placement, progress)

    def _open_outlet(self, *, beside: bool) -> Outlet:
        together = 0.0 if beside else TOGETHER
        emitter = Emitter(
            self._engine.tokenizer,
            self._sender,
            lambda id: self._inbox.put(_Stop(id)),
            state=lambda: self._loop.state,
            together=together,
        )
        return EmitterThread(emitter, lambda: os._exit(1)) if beside else emitter

    def run(self) -> None:
        """Serves until the server closes the connection."""
        self._intake.start()
        self._sender.send(protocol.Ready(self._engine.info))
        while self._take_inbox():
            self._step_began = time.monotonic()
            if not self._loop.idle:
                with self._threads as self._loop.threads:
                    output = self._loop.step(self._outlet.computing)
                # A server that does not read may hold this up; that is not the engine's doing.
                self._step_began = None
                self._outlet.put(output)
                self._step_began = time.monotonic()
            if not self._encoding.idle:
                self._outlet.flush()
                with self._threads:
                    replies = self._encoding.step()
                for reply in replies:
                    self._sender.send(reply)
            self._step_began = None
        # It may be in the midst of a call into the engine's code.
        self._intake.join()
        self._engine.close()

    def _step_seconds(self) -> float:
        """For any thread: how long the current step has been going on, 0.0 if there is none."""
        began = self._step_began
        return 0.0 if began is None else time.monotonic() - began

    def _take_inbox(self) -> bool:
        """Takes what has arrived; waits for something if there is nothing to compute. False at the end."""
        while True:
            # This thread alone takes things out. Asked first, as an exception for each step would be dear.
            if not self._loop.idle:
                if self._inbox.empty():
                    return True
            else:
                self._outlet.flush()
                if not self._encoding.idle and self._inbox.empty():
                    return True
            try:
                item = self._inbox.get(timeout=self._patience)
            except queue.Empty:
                self._tidy()
                continue
            self._patience = 0.0
            match item:
                case Job():
                    self._loop.add(item)
                case EncodeJob():
                    self._encoding.add(item)
                case _Cancel(id=id):
                    self._loop.cancel(id)
                    self._encoding.cancel(id)
                    self._outlet.drop(id)
                    self._outlet.put(self._told([]))
                case _Stop(id=id):
                    ended = self._loop.stop(id)
                    if ended is not None:
                        self._outlet.put(self._told([ended]))
                case protocol.Share(cores=cores):
                    self._threads.share(cores)
                case _Shutdown():
                    return False

    def _tidy(self) -> None:
        if self._patience == 0.0:
            if not self._loop.tidy(quick=True):
                self._patience = TIDY_SECONDS
        elif not self._loop.tidy():
            self._patience = None

    def _told(self, ended: list[Ended]) -> StepOutput:
        """What the server is to know although no step was computed."""
        return StepOutput(
            sequences=0, tokens=0, sampled=[], ended=ended, generating=self._loop.state.generating > 0
        )

    def _prepare(self, item: protocol.Complete | protocol.Ask) -> Deliver:
        """On the preparing thread; what it returns hands the request on."""
        if isinstance(item, protocol.Ask):
            return self._prepare_answer(item.id, item.question)
        tokenizer, info, vision = self._engine.tokenizer, self._engine.info, self._vision
        if item.request.render_only:
            answer = protocol.Answer(item.id, value=render_prompt(item.request, tokenizer, info, vision))
            return lambda: self._sender.send(answer)
        prepared = prepare_completion(item.id, item.request, tokenizer, info, self._dialects, vision)
        stream = OutputStream(item.request, prepared)

        def deliver() -> None:
            started = Started(prompt_tokens=len(prepared.job.tokens), fit=prepared.fit)
            self._sender.send(protocol.Answer(item.id, value=started))
            self._outlet.open(item.id, stream)
            self._inbox.put(prepared.job)

        return deliver

    def _prepare_answer(self, id: int, question: Question) -> Deliver:
        tokenizer = self._engine.tokenizer
        match question:
            case Embedding():
                job = prepare_embedding(id, question, tokenizer, self._engine.info)
                return lambda: self._inbox.put(job)
            case Rerank():
                job = prepare_rerank(id, question, self._engine)
                return lambda: self._inbox.put(job)
            case Tokenize():
                answer = protocol.Answer(id, vocabulary.tokenize(question, tokenizer))
            case Detokenize():
                answer = protocol.Answer(id, vocabulary.detokenize(question, tokenizer))
        return lambda: self._sender.send(answer)


def leaves_a_core(placement: Placement) -> bool:
    """Whether an engine with this placement leaves a core on which text can be made while it computes."""
    return any(placement.layers) or placement.num_thread < usable_cores()


def main(descriptor: int, log_level: int) -> int:
    """Runs on the socket with this file descriptor; the exit status is 0 unless the model could not be loaded.

    The log goes to stderr, which the server reads; `log_level` is one of `logging`'s numbers.
    """
    logging.basicConfig(
        level=log_level,
        stream=sys.stderr,
        format="%(levelname)s %(message)s",
    )
    end_with_parent()
    connection = socket.socket(fileno=descriptor)
    try:
        load = protocol.receive(connection)
    except EOFError:
        return 0
    if not isinstance(load, protocol.Load):
        return 2
    try:
        runner = RunnerProcess(connection, load)
    except Exception as exc:
        code, message = LoadFailed.code, str(exc) or type(exc).__name__
        if isinstance(exc, CorectlError):
            code, message = exc.code, exc.message
        Sender(connection).send(protocol.Failed(0, code, message))
        if not isinstance(exc, CorectlError):
            log.exception("the model could not be loaded")
        return 1
    # What has been made so far stays; the collector need not look at it in the midst of a step.
    gc.freeze()
    runner.run()
    return 0

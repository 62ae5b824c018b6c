"""The batch loop: keeps sequences in step with one engine. Shared by all engines; runs on one thread of a runner.

It owns which sequences wait, run and end; the engine only computes. Text is made elsewhere: the loop deals in tokens.
"""

from __future__ import annotations

import logging
import time
from collections import deque
from collections.abc import Callable

from corectl.errors import CorectlError, EngineError
from corectl.runner.engine import Engine, Sampled, SequenceSpec, Work
from corectl.runner.job import Ended, Job, Running, StepOutput
from corectl.runner.pace import Pace
from corectl.runner.plan import Plan, plan_step
from corectl.runner.pool import NO_MATCH, WORTH_A_STEP, WORTHWHILE, CellPool
from corectl.runner.prefix import Match, common
from corectl.runner.state import LoopState
from corectl.runner.vision import vision_of

log = logging.getLogger(__name__)

PREDICT_FACTOR = 10
"""A generation ends after this many contexts of output, whatever `num_predict` says."""

RECENT = 16
"""Prompts that are remembered to see where new ones branch off."""

NO_CELLS = "the model's key-value memory is too small for this request"

_NO_STEP = Plan(())


def _nothing(_: bool) -> None:
    pass


class BatchLoop:
    """Continuous batching over one engine. One thread calls all methods; `state` is for any.

    `snapshots` is the host memory for states of sequences in bytes; `clock` gives seconds.
    """

    def __init__(
        self, engine: Engine, *, snapshots: int = 0, clock: Callable[[], float] = time.perf_counter
    ) -> None:
        self._engine = engine
        self._vision = vision_of(engine)
        self._pool = CellPool(engine, snapshots)
        self._pace = Pace()
        self._clock = clock
        self._waiting: deque[Running] = deque()
        # In order of arrival.
        self._running: dict[int, Running] = {}
        # How many of those have given a token.
        self._generating = 0
        # Nobody can start before some sequence has ended.
        self._full = False
        # Salts and prompts.
        self._recent: deque[tuple[str, list[int]]] = deque(maxlen=RECENT)
        self._turn = 0
        self._prompt_tokens = self._cached_tokens = 0
        self._preempted = self._restored = self._shifts = 0
        self.threads = engine.info.num_thread
        """How many CPU threads compute. Whoever changes that says so here."""

    @property
    def idle(self) -> bool:
        return not self._waiting and not self._running

    @property
    def state(self) -> LoopState:
        """How the loop is now. Any thread may ask; while this one works, the numbers may be of different moments."""
        return LoopState(
            running=len(self._running),
            generating=self._generating,
            waiting=len(self._waiting),
            cells=self._engine.info.cells,
            cells_used=self._pool.used,
            cells_idle=max(0, self._pool.idle),
            threads=self.threads,
            prompt_tokens=self._prompt_tokens,
            cached_tokens=self._cached_tokens,
            preempted=self._preempted,
            restored=self._restored,
            evicted_tokens=self._pool.evicted_tokens,
            shifts=self._shifts,
            snapshot_bytes=self._pool.snapshot_bytes,
        )

    def add(self, job: Job) -> None:
        """Queues a sequence; it starts when a slot and cells for its prompt are free, in order of arrival."""
        num_ctx = job.num_ctx or self._engine.info.num_ctx
        most = PREDICT_FACTOR * num_ctx
        wanted = job.sampling.num_predict
        limit = wanted if 0 < wanted < most else most
        self._waiting.append(
            Running(
                id=job.id, tokens=list(job.tokens), spans=job.spans, job=job, limit=limit, num_ctx=num_ctx
            )
        )

    def cancel(self, id: int) -> None:
        """Drops a sequence, wherever it is. An id that is not known any more is none of our business."""
        self._drop(id)

    def stop(self, id: int) -> Ended | None:
        """Ends a running sequence whose text has reached a stop string; None if it has ended by itself."""
        seq = self._drop(id)
        return seq.ended("stop", time.monotonic_ns()) if seq is not None else None

    def _drop(self, id: int) -> Running | None:
        seq = self._running.get(id)
        if seq is not None:
            self._finish(seq)
            return seq
        seq = next((seq for seq in self._waiting if seq.id == id), None)
        if seq is not None:
            self._waiting.remove(seq)
            self._full = False
            if seq.started_ns:
                self._pool.remove(seq.id)
            if seq.state is not None:
                self._pool.take_back(seq.state)
        return seq

    def step(self, before_compute: Callable[[bool], None] = _nothing) -> StepOutput:
        """Computes one step for all running sequences. Call it while not `idle`.

        `before_compute` is called when the step is decided, right before the engine starts on it (not at all if there
        is nothing to compute); it is told whether the step may take longer than one token of each sequence does. It is
        called before states are saved or restored, too.
        """
        refused = self._admit(before_compute)
        # While prompts are read, newcomers wait for their first word.
        large = all(seq.pending == 1 for seq in self._running.values())
        if self._pool.crowded(large=large):
            before_compute(True)
            self._pool.trim(large=large)
        plan = self._plan(before_compute)
        if refused or not plan.work:
            # What cannot be computed now never can: nothing else holds cells that could become free.
            stuck = [] if plan.work else [self._fail(seq, EngineError(NO_CELLS)) for seq in self._all()]
            return self._output(ended=refused + stuck)
        before_compute(plan.reads)
        blind = self._encode_images(plan.work)
        if blind is not None:
            return self._output(ended=[blind])
        self._pool.make_room(plan.tokens)
        started = self._clock()
        try:
            sampled = self._engine.step(plan.work)
        except Exception as exc:
            # The running sequences are lost; those that wait get their chance.
            ended = [self._fail(seq, EngineError.of(exc)) for seq in self._all()]
            self._pool.forget_kept()
            return self._output(ended=ended)
        seconds = self._clock() - started
        self._note(plan, seconds)
        return self._take_all(plan, sampled)

    def tidy(self, *, quick: bool = False) -> bool:
        """Call it while `idle`: does a piece of work that would hold up a step later; False if there is none.

        A `quick` one takes no longer than a client takes to ask for more.
        """
        return self._pool.tidy(quick=quick)

    def _all(self) -> list[Running]:
        return list(self._running.values())

    def _plan(self, before_preempting: Callable[[bool], None]) -> Plan:
        num_batch = self._engine.info.num_batch
        self._turn += 1
        while True:
            plan = plan_step(
                self._all(),
                free_cells=self._pool.free,
                num_batch=num_batch,
                chunk=self._pace.prompt_tokens,
                turn=self._turn,
            )
            if plan.preempt is None:
                return plan
            before_preempting(True)
            self._preempt(self._running[plan.preempt])

    def _output(
        self, plan: Plan = _NO_STEP, *, ended: list[Ended], sampled: list[Sampled] | None = None
    ) -> StepOutput:
        return StepOutput(
            sequences=len(plan.work),
            tokens=plan.tokens,
            sampled=sampled or [],
            ended=ended,
            generating=self._generating > 0,
        )

    def _encode_images(self, work: tuple[Work, ...]) -> Ended | None:
        """Readies the step's image; the end of its sequence, if that fails. The others are not to suffer from it."""
        if self._vision is None:
            return None
        for item in work:
            if item.image is None:
                continue
            try:
                self._vision.encode(item.image)
            except Exception as exc:
                return self._fail(self._running[item.id], EngineError.of(exc))
        return None

    def _note(self, plan: Plan, seconds: float) -> None:
        """Takes note of what a step has computed, and of how long it took."""
        images = False
        for item in plan.work:
            seq = self._running[item.id]
            count = len(item.tokens)
            seq.computed += count
            self._pool.extend(item.id, item.tokens)
            images = images or item.image is not None
            if seq.pauses and seq.computed in seq.pauses:
                self._pool.snapshot(seq.id, seq.salt, seq.tokens[: seq.computed])
        if not images:
            self._pace.took(seconds, generating=plan.generating, prompt_tokens=plan.tokens - plan.generating)

    def _take_all(self, plan: Plan, sampled: list[Sampled]) -> StepOutput:
        now = time.monotonic_ns()
        visible: list[Sampled] = []
        ended: list[Ended] = []
        for token in sampled:
            seq = self._running[token.id]
            try:
                reason = self._take(seq, token, now)
            except Exception as exc:
                ended.append(self._fail(seq, EngineError.of(exc)))
                continue
            if reason != "stop":
                visible.append(token)
            if reason:
                self._finish(seq)
                ended.append(seq.ended(reason, now))
        return self._output(plan, ended=ended, sampled=visible)

    def _take(self, seq: Running, token: Sampled, now: int) -> str:
        """Adds a drawn token to its sequence; the reason to end, if there is one."""
        if not seq.generated:
            seq.first_ns = now
            self._generating += 1
        seq.generated += 1
        seq.tokens.append(token.token)
        if seq.job.constraint is not None:
            seq.job.constraint.accept(token.token)
        if self._engine.tokenizer.is_end(token.token):
            return "stop"
        if seq.generated >= seq.limit:
            return "length"
        if len(seq.tokens) >= seq.num_ctx and not self._shift(seq):
            return "length"
        return ""

    def _shift(self, seq: Running) -> bool:
        """Makes room in a full context by forgetting the older half after the kept tokens, if that is allowed.

        A sequence with images is never shifted: the images would be what is forgotten.
        """
        info = self._engine.info
        if seq.spans or not (seq.job.shift and info.can_shift):
            return False
        wanted = seq.job.sampling.num_keep
        keep = len(seq.job.tokens) if wanted < 0 else wanted + self._engine.tokenizer.adds_bos
        keep = min(keep, seq.num_ctx - 4)
        discard = (seq.computed - keep) // 2
        if discard < 1:
            return False
        computed = seq.tokens[: seq.computed]
        moved = self._pool.shift(seq.id, seq.salt, computed, keep, discard, shifted=seq.shifted)
        seq.shifted = moved
        del seq.tokens[keep : keep + discard]
        seq.computed -= discard
        seq.shifts += 1
        seq.shifted_tokens += discard
        self._shifts += 1
        # What it computes from here on is not what its tokens alone would give.
        seq.pauses = ()
        if moved:
            # Its cells are free again, for those that wait as well.
            self._full = False
        else:
            self._requeue(seq)
        return True

    def _preempt(self, seq: Running) -> None:
        """Takes a sequence's cells away; it goes to the head of the queue."""
        self._preempted += 1
        seq.state = self._pool.put_aside(seq.id, seq.computed, savable=not seq.spans)
        self._requeue(seq)

    def _requeue(self, seq: Running) -> None:
        self._leave(seq)
        self._waiting.appendleft(seq)

    def _leave(self, seq: Running) -> None:
        """A sequence runs no more; its place and its cells may be another's."""
        del self._running[seq.id]
        self._generating -= seq.generated > 0
        self._full = False

    def _finish(self, seq: Running) -> None:
        """Ends a running sequence; what it has computed is kept for others."""
        self._leave(seq)
        if seq.shifted:
            self._pool.remove(seq.id)
        else:
            self._pool.finish(seq.id, seq.salt, seq.tokens[: seq.computed])

    def _fail(self, seq: Running, error: CorectlError) -> Ended:
        self._leave(seq)
        self._pool.remove(seq.id)
        return Ended(id=seq.id, error=error)

    def _admit(self, before_starting: Callable[[bool], None]) -> list[Ended]:
        """Starts waiting sequences, in order, as long as slots and cells for their whole prompts are free.

        `before_starting` is called as `step` says. Returns those that the engine refused.
        """
        refused: list[Ended] = []
        most = self._engine.info.max_sequences
        if self._full or not self._waiting or len(self._running) >= most:
            return refused
        free = self._pool.free - sum(seq.pending for seq in self._running.values())
        followers = 0
        for seq in list(self._waiting):
            if len(self._running) + followers >= most:
                break
            # One cell more, so that its first token has room as well. The only sequence always fits.
            cells = len(seq.tokens) + 1
            if self._follows(seq):
                followers += 1
                free -= cells
                continue
            match = NO_MATCH if seq.state else self._pool.match(seq.salt, seq.tokens, seq.shareable)
            cells -= match.running
            if cells > free and (self._running or followers):
                self._full = not followers
                break
            self._waiting.remove(seq)
            # A state may have to be saved or restored.
            before_starting(True)
            try:
                self._start(seq, match)
            except Exception as exc:
                if seq.started_ns:
                    self._pool.remove(seq.id)
                refused.append(Ended(id=seq.id, error=EngineError.of(exc)))
                continue
            self._running[seq.id] = seq
            self._generating += seq.generated > 0
            free -= cells
        return refused

    def _follows(self, seq: Running) -> bool:
        """Whether a sequence had better wait, since another one is about to compute what both begin with."""
        if seq.leader is not None:
            leader, length = seq.leader
            runs = self._running.get(leader.id) is leader and not leader.shifted
            if runs and leader.computed < length:
                return True
            seq.leader = None
        if seq.started_ns or not (self._pool.shares or self._pool.saves):
            return False
        best: tuple[Running | None, int] = (None, 0)
        for other in self._running.values():
            if other.salt == seq.salt and other.pending > 1:
                length = common(other.tokens, seq.tokens, 0, seq.shareable)
                if length > max(other.computed, best[1]):
                    best = (other, length)
        leader_found, length = best
        if leader_found is None or length < WORTHWHILE:
            return False
        if length - self._pool.known(seq.salt, seq.tokens, seq.shareable) < WORTHWHILE:
            return False
        if self._pool.saves:
            leader_found.pauses = tuple(sorted({*leader_found.pauses, length}))
        seq.leader = (leader_found, length)
        return True

    def _start(self, seq: Running, match: Match) -> None:
        first = not seq.started_ns
        if first:
            self._add(seq, match)
        state, seq.state = seq.state, None
        if state is not None:
            try:
                known = self._pool.restore(
                    seq.id, seq.salt, seq.tokens[: seq.computed], state, shifted=seq.shifted
                )
            finally:
                self._pool.take_back(state)
            if known:
                self._restored += 1
                return
        seq.shifted = False
        seq.computed = self._pool.begin(seq.id, seq.salt, seq.tokens, seq.shareable, match)
        if first:
            self._count(seq)

    def _add(self, seq: Running, match: Match) -> None:
        job = seq.job
        spec = SequenceSpec(
            id=seq.id,
            prompt=tuple(job.text),
            sampling=job.sampling,
            top_logprobs=job.top_logprobs,
            constraint=job.constraint,
        )
        self._pool.add(spec, match)
        seq.started_ns = time.monotonic_ns()

    def _count(self, seq: Running) -> None:
        """Takes note of what a new sequence did not have to compute, and of where its state is worth saving."""
        seq.cached = seq.computed
        self._prompt_tokens += len(seq.tokens)
        self._cached_tokens += seq.cached
        if log.isEnabledFor(logging.DEBUG):
            why = self._pool.why_missed(seq.salt, seq.tokens, seq.shareable, seq.cached)
            log.debug("prompt %d: %d of %d tokens cached: %s", seq.id, seq.cached, len(seq.tokens), why)
        if self._pool.saves:
            branches = (
                common(tokens, seq.tokens, 0, seq.shareable)
                for salt, tokens in self._recent
                if salt == seq.salt
            )
            places = {max(branches, default=0)}
            if seq.shareable - seq.computed >= WORTH_A_STEP:
                places.add(seq.shareable)
            seq.pauses = tuple(sorted(place for place in places if place - seq.computed >= WORTHWHILE))
            self._recent.append((seq.salt, seq.job.tokens))

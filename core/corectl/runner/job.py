"""What a batch loop is given, what it gives, and what it knows of a sequence in between."""

from __future__ import annotations

import msgspec

from corectl.errors import CorectlError
from corectl.messages import SamplingOptions, Usage
from corectl.runner.engine import Constraint, Sampled
from corectl.runner.plan import Progress
from corectl.runner.vision import IMAGE, ImageSpan


class Job(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt that is ready to be computed. Its length is 1 to `num_ctx` - 1 tokens.

    `num_ctx` is how long the sequence may become, in tokens; 0 stands for the engine's, which is the most. `spans` are
    its images; the last token is none of theirs. It shares what is computed with jobs of the same `cache_salt` only.
    """

    id: int
    tokens: list[int]
    num_ctx: int = 0
    spans: tuple[ImageSpan, ...] = ()
    sampling: SamplingOptions
    shift: bool = True
    top_logprobs: int = -1
    constraint: Constraint | None = None
    cache_salt: str = ""

    @property
    def text(self) -> list[int]:
        """The tokens without the cells of images."""
        return [token for token in self.tokens if token != IMAGE] if self.spans else self.tokens


class Ended(msgspec.Struct, frozen=True, kw_only=True):
    """A sequence's last word: `reason` is `stop` or `length`, or `error` says why it failed."""

    id: int
    reason: str = ""
    usage: Usage = Usage()
    shifts: int = 0
    shifted_tokens: int = 0
    error: CorectlError | None = None


class StepOutput(msgspec.Struct, frozen=True, kw_only=True):
    """What one step gave. `sampled` holds visible tokens only; a sequence's end follows its last token.

    `generating` says whether any sequence that has given tokens goes on.
    """

    sequences: int
    tokens: int
    sampled: list[Sampled]
    ended: list[Ended]
    generating: bool = False


class Running(Progress, kw_only=True, eq=False):
    """A job on its way through the loop.

    It ends after `limit` tokens of output, and is full with `num_ctx` tokens in all. Of its prompt, `cached` tokens
    were not computed for it. It waits for `leader`, as (sequence, tokens), to compute the beginning that both have.
    `state` is what was saved of one that is preempted. If it is `shifted`, its cells hold something else than its
    tokens alone would give.
    """

    job: Job
    limit: int
    num_ctx: int
    cached: int = 0
    generated: int = 0
    shifts: int = 0
    shifted_tokens: int = 0
    shifted: bool = False
    started_ns: int = 0
    first_ns: int = 0
    leader: tuple[Running, int] | None = None
    state: bytearray | None = None

    @property
    def salt(self) -> str:
        return self.job.cache_salt

    @property
    def shareable(self) -> int:
        """How many of its tokens others may have computed: not the last, whose logits are wanted, and no images."""
        return self.spans[0].start if self.spans else len(self.tokens) - 1

    def ended(self, reason: str, now: int) -> Ended:
        """Its last word at a time of `time.monotonic_ns`."""
        first = self.first_ns or now
        usage = Usage(
            prompt_tokens=len(self.job.tokens),
            cached_tokens=self.cached,
            prompt_ns=max(first - self.started_ns, 1),
            output_tokens=self.generated,
            output_ns=max(now - first, 1),
        )
        return Ended(
            id=self.id, reason=reason, usage=usage, shifts=self.shifts, shifted_tokens=self.shifted_tokens
        )

"""What a batch loop says of itself with each frame, for metrics and for whoever looks."""

from __future__ import annotations

import msgspec


class LoopState(msgspec.Struct, frozen=True, array_like=True, kw_only=True):
    """How a runner is doing now, and counts over its life.

    Of those `running`, `generating` have given a token. `cells_used` hold tokens of sequences that run or are kept,
    `cells_idle` of those that are only kept. `threads` is how many CPU threads the last step had. Of `prompt_tokens`,
    `cached_tokens` were not computed but taken from earlier sequences. `preempted` sequences gave up their cells; of
    those, `restored` came back without being computed again. `evicted_tokens` were kept and had to go, `shifts` counts
    contexts of which the oldest half was forgotten. `snapshot_bytes` is the host memory of saved states.
    """

    running: int = 0
    generating: int = 0
    waiting: int = 0
    cells: int = 0
    cells_used: int = 0
    cells_idle: int = 0
    threads: int = 0
    prompt_tokens: int = 0
    cached_tokens: int = 0
    preempted: int = 0
    restored: int = 0
    evicted_tokens: int = 0
    shifts: int = 0
    snapshot_bytes: int = 0

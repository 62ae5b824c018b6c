"""What an engine must refuse before its library sees it. For engines that do not check it otherwise."""

from __future__ import annotations

from collections.abc import Callable, Sequence

from corectl.errors import EngineError
from corectl.runner.engine import EngineInfo, Work


def check_places(info: EngineInfo, *, drawing: int, kept: int) -> None:
    """Raises `EngineError` if one more sequence is too many, with so many that draw tokens and so many only kept."""
    if drawing >= info.max_sequences:
        raise EngineError(f"more than {info.max_sequences} sequences at once")
    if drawing + kept >= info.max_sequences + info.idle_sequences:
        raise EngineError(
            f"more than {info.max_sequences + info.idle_sequences} sequences with those that are kept"
        )


def check_step(
    work: Sequence[Work], info: EngineInfo, *, vocabulary: int, length_of: Callable[[int], int]
) -> None:
    """Raises `EngineError` for a step that cannot be: of text only, with `length_of` each sequence so far."""
    if not work:
        raise EngineError("a step of no tokens")
    if sum(len(item.tokens) for item in work) > info.num_batch:
        raise EngineError(f"a step of more than {info.num_batch} tokens")
    for item in work:
        if item.image is not None:
            raise EngineError("an image for a model that cannot see")
        if not item.tokens or not 0 <= min(item.tokens) <= max(item.tokens) < vocabulary:
            raise EngineError(f"tokens must be 1 or more numbers below {vocabulary}")
        if item.position != length_of(item.id):
            raise EngineError(f"tokens for position {item.position}; next is {length_of(item.id)}")
        if item.position + len(item.tokens) > info.num_ctx:
            raise EngineError(f"a sequence of more than {info.num_ctx} tokens")

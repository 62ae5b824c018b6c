"""What an engine or its tokenizer may be able to do besides: optional protocols, found with `isinstance`.

As with `Engine`, all methods of an engine's are called by the batch loop's thread only.
"""

from __future__ import annotations

from typing import Protocol, runtime_checkable


@runtime_checkable
class SequenceMemory(Protocol):
    """An engine whose sequences can share what was computed, and can be put aside."""

    @property
    def can_cut(self) -> bool:
        """Whether a copy can end anywhere, and its cells be shared.

        Where it is false (recurrent layers, sliding windows), a copy may be refused, and its source must be removed
        before the next step.
        """
        ...

    def keep(self, id: int) -> None:
        """Ends a sequence but not its tokens: its sampler goes, and it takes part in no step any more.

        It still takes one of `info.max_sequences` + `info.idle_sequences` places until it is removed.
        """
        ...

    def copy(self, source: int, target: int, tokens: int) -> bool:
        """Makes the first `tokens` of one sequence the beginning of another, empty one; nothing is computed.

        The cells are shared: each is freed when the last sequence that has it forgets it. False, and nothing done, if
        the model's memory cannot be taken at that length (recurrent layers, a window that has moved on).
        """
        ...

    def state_size(self, id: int) -> int:
        """The bytes that `save` would give for a sequence; 0 if it cannot be saved."""
        ...

    def save(self, id: int) -> bytearray | None:
        """The state of a sequence, to be restored into a sequence of this engine; None if that fails.

        Copies all of its cells. A sequence with images cannot be saved.
        """
        ...

    def restore(self, id: int, state: bytearray) -> bool:
        """Gives an empty sequence a saved state, in cells of its own. False, and nothing done, if there is no room."""
        ...

    def cut(self, id: int, tokens: int) -> None:
        """Forgets all of a sequence but its first `tokens`. Called only where `can_cut` is true."""
        ...


@runtime_checkable
class ThreadControl(Protocol):
    """An engine that computes on CPU threads, whose number can change between steps."""

    def set_threads(self, count: int) -> None:
        """From the next step on, compute on so many threads (at least 1). Costs microseconds."""
        ...


@runtime_checkable
class PromptRecall(Protocol):
    """A tokenizer that has less work with a text that begins as one before did.

    As all of a `Tokenizer`, it is safe to use from any thread of the runner.
    """

    def encode_prompt(self, text: str, *, salt: str, add_special: bool = True) -> list[int]:
        """What `Tokenizer.encode` gives. Only texts with the same `salt` may save each other time."""
        ...

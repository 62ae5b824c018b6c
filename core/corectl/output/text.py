"""From token bytes to text that may be shown: UTF-8 put together, stop strings held back."""

from __future__ import annotations

import codecs

import msgspec

from corectl.messages import Logprob

REPEAT_LIMIT = 30
"""A generation that says the same non-blank piece more often than this in a row is cut off."""


class Piece(msgspec.Struct, frozen=True):
    """Text that is ready, the probabilities of the tokens that begin in it, and whether the output ends here.

    `end` is `stop` after a stop string, which is `stop`, `length` after endless repetition, else empty.
    """

    text: str = ""
    logprobs: tuple[Logprob, ...] = ()
    end: str = ""
    stop: str = ""


class TextStream:
    """One sequence's output. Feed it token by token, then `flush` it once."""

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stop = tuple(text for text in stop if text)
        self._held = ""
        # Each with the place in the held text where its token begins.
        self._held_logprobs: list[tuple[int, Logprob]] = []
        self._last_piece = ""
        self._repeats = 0

    def push(self, token: bytes, logprob: Logprob | None = None) -> Piece:
        """Takes the bytes of one token. Text that may be the start of a stop string is held back."""
        if logprob is not None:
            self._held_logprobs.append((len(self._held), logprob))
        piece = self._decoder.decode(token)
        if not piece:
            return Piece()
        self._held += piece
        position, stop = self._find_stop()
        if stop:
            self._held = self._held[:position]
            self._held_logprobs = [held for held in self._held_logprobs if held[0] < position]
            return self._release(position, "stop", stop)
        end = self._repetition(piece)
        return self._release(len(self._held) - (0 if end else self._partial_stop()), end)

    def flush(self) -> Piece:
        """What is still held back at the end: it was no stop string after all."""
        self._held += self._decoder.decode(b"", final=True)
        return self._release(len(self._held), "")

    def _release(self, count: int, end: str, stop: str = "") -> Piece:
        text, self._held = self._held[:count], self._held[count:]
        ready = [logprob for start, logprob in self._held_logprobs if start < count or not self._held]
        self._held_logprobs = [
            (start - count, logprob) for start, logprob in self._held_logprobs[len(ready) :]
        ]
        return Piece(text, tuple(ready), end, stop)

    def _find_stop(self) -> tuple[int, str]:
        """The first stop string in the held text, and where it begins; an empty one if there is none."""
        found = [(position, stop) for stop in self._stop if (position := self._held.find(stop)) >= 0]
        return min(found, default=(-1, ""))

    def _partial_stop(self) -> int:
        """How many characters at the end may be the start of a stop string."""
        longest = 0
        for stop in self._stop:
            for length in range(min(len(stop) - 1, len(self._held)), longest, -1):
                if self._held.endswith(stop[:length]):
                    longest = length
                    break
        return longest

    def _repetition(self, piece: str) -> str:
        trimmed = piece.strip()
        self._repeats = self._repeats + 1 if trimmed and trimmed == self._last_piece else 0
        self._last_piece = trimmed
        return "length" if self._repeats >= REPEAT_LIMIT else ""

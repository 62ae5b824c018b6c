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


class _Stop:
    """One stop string, and how much of its beginning a text ends with: Knuth, Morris and Pratt's automaton."""

    def __init__(self, text: str) -> None:
        self.text = text
        self.matched = 0
        # For each beginning but the empty one, how much of it stands at its own end as well.
        self._falls = [0]
        matched = 0
        for character in text[1:]:
            matched = self._after(matched, character)
            self._falls.append(matched)

    def _after(self, matched: int, character: str) -> int:
        while matched and self.text[matched] != character:
            matched = self._falls[matched - 1]
        return matched + (self.text[matched] == character)

    def read(self, piece: str) -> None:
        """Takes what the text goes on with. The whole stop string is not in it."""
        for character in piece:
            self.matched = self._after(self.matched, character)


class TextStream:
    """One sequence's output. Feed it token by token, then `flush` it once."""

    def __init__(self, stop: tuple[str, ...]) -> None:
        self._decoder = codecs.getincrementaldecoder("utf-8")("replace")
        self._stops = tuple(_Stop(text) for text in stop if text)
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
        partial = self._partial_stop(piece)
        end = self._repetition(piece)
        return self._release(len(self._held) - (0 if end else partial), end)

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
        found = [(at, stop.text) for stop in self._stops if (at := self._held.find(stop.text)) >= 0]
        return min(found, default=(-1, ""))

    def _partial_stop(self, piece: str) -> int:
        """How many characters at the end may be the start of a stop string, now that the text goes on with a piece."""
        for stop in self._stops:
            stop.read(piece)
        return max((stop.matched for stop in self._stops), default=0)

    def _repetition(self, piece: str) -> str:
        trimmed = piece.strip()
        self._repeats = self._repeats + 1 if trimmed and trimmed == self._last_piece else 0
        self._last_piece = trimmed
        return "length" if self._repeats >= REPEAT_LIMIT else ""

"""Finding texts in an output that comes token by token, and the tokens that would run over them in a wrong way."""

from __future__ import annotations

import copy
from collections.abc import Callable, Iterator, Sequence

import msgspec
import numpy as np

from corectl.constrain.masking import Tokens
from corectl.constrain.vocabulary import Vocabulary

BLANKS = b" \t\r\n"
_NONE = np.array([], np.intp)


class Mark(msgspec.Struct, frozen=True):
    """A text that is looked for. With `first` it only counts where nothing but blanks came before.

    `refuses(rest)` says that the token which completes the mark must not go on with `rest`.
    """

    text: bytes
    first: bool = False
    refuses: Callable[[bytes], bool] | None = None


class Marks:
    """Marks that are looked for together, in one vocabulary. Shared by all outputs: it only depends on the grammar.

    `hidden` are control tokens that whoever reads the output never sees: they stand between no two texts.
    """

    def __init__(
        self, vocabulary: Vocabulary, marks: Sequence[Mark], hidden: frozenset[int] = frozenset()
    ) -> None:
        self._vocabulary = vocabulary
        self._hidden = hidden
        self.first = [mark.text for mark in marks if mark.first]
        self.anywhere = [mark.text for mark in marks if not mark.first]
        self.beginnings = {text[:length] for text in self.anywhere for length in range(1, len(text))}
        self.longest = max(map(len, self.anywhere), default=0)
        self._bans: dict[tuple[bytes, bytes | None], Tokens] = {}
        # For each beginning of a mark, the tokens that complete it wrongly from there.
        self._completing = [
            (mark.text[:length], mark.first, [*_completing(vocabulary, mark, length)])
            for mark in marks
            for length in range(len(mark.text))
        ]

    def text(self, token: int) -> bytes:
        """The bytes of a token, as they are seen."""
        return b"" if token in self._hidden else self._vocabulary.text(token)

    def with_first(self, text: bytes) -> Marks:
        """These marks, and a text in front of which only blanks may stand; nothing that follows it is refused."""
        more = copy.copy(self)
        more.first = [*self.first, text]
        more._bans = {}
        return more

    def banned(self, tail: bytes, lead: bytes | None) -> Tokens:
        """Tokens that complete a mark and go on in a way that it refuses.

        `tail` is the end of the output, as far as it may be the beginning of a mark. `lead` is all of the output,
        without blanks in front, as long as a `first` mark can still come, else None.
        """
        key = (tail, lead)
        if key not in self._bans:
            found = [
                token
                for beginning, first, tokens in self._completing
                if (lead == beginning if first else tail.endswith(beginning))
                for token in tokens
            ]
            self._bans[key] = np.unique(np.array(found, np.intp)) if found else _NONE
        return self._bans[key]


def _completing(vocabulary: Vocabulary, mark: Mark, length: int) -> Iterator[int]:
    if mark.refuses is None:
        return
    if length:
        missing = mark.text[length:]
        for token, piece in vocabulary.starting(missing):
            if mark.refuses(piece[len(missing) :]):
                yield token
        return
    for token, piece in vocabulary.containing(mark.text):
        before, _, rest = piece.partition(mark.text)
        if not (mark.first and before.strip(BLANKS)) and mark.refuses(rest):
            yield token


class Watch:
    """Looks for marks in one output."""

    def __init__(self, marks: Marks) -> None:
        self._marks = marks
        self._tail = b""
        self._lead: bytes | None = b"" if marks.first else None

    @property
    def banned(self) -> Tokens:
        """Tokens that must not come next."""
        return self._marks.banned(self._tail, self._lead)

    def feed(self, piece: bytes) -> bytes | None:
        """Takes the text of the next token. What there is from the first mark on, once one is complete."""
        if self._lead is not None:
            lead = (self._lead + piece).lstrip(BLANKS)
            if any(lead.startswith(text) for text in self._marks.first):
                return lead
            self._lead = lead if any(text.startswith(lead) for text in self._marks.first) else None
        window = self._tail + piece
        places = [place for text in self._marks.anywhere if (place := window.find(text)) >= 0]
        if places:
            return window[min(places) :]
        longest = min(len(window), max(self._marks.longest - 1, 0))
        ends = (window[len(window) - length :] for length in range(longest, 0, -1))
        self._tail = next((end for end in ends if end in self._marks.beginnings), b"")
        return None

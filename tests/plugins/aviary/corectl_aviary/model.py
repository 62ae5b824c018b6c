"""The engine: after a `>` it says its phrase. In the runner process."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np

from corectl.runner.byte_tokenizer import END, ByteTokenizer
from corectl.runner.engine import Placement
from corectl.runner.logits import as_placed
from corectl.runner.sampling import Logits

SURE = 50.0
"""The logit of what it wants to say. Where a grammar forbids that, it would rather end, and not fill up with blanks."""


class Beak:
    def __init__(self, phrase: bytes) -> None:
        self._phrase = [*phrase, END]
        self._said = 0

    def feed(self, tokens: Sequence[int]) -> Logits:
        self._said = 0 if tokens[-1] == ord(">") else min(self._said + 1, len(self._phrase) - 1)
        logits = np.linspace(0, 1, END + 1, dtype=np.float32)
        logits[self._phrase[self._said]] = SURE
        return logits

    def close(self) -> None:
        """There is nothing to free."""


class Parrot:
    tokenizer = ByteTokenizer()

    def __init__(self, phrase: bytes, placement: Placement) -> None:
        self._phrase = phrase
        self.info = as_placed(placement, memory=len(phrase))

    def open(self) -> Beak:
        return Beak(self._phrase)

    def close(self) -> None:
        """There is nothing to free."""

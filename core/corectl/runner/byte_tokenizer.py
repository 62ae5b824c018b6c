"""The vocabulary of models that read bytes. In the runner process."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

END: Final = 256
"""The one control token, after the 256 bytes."""


class ByteTokenizer:
    """See `corectl.runner.engine.Tokenizer`. A token is a byte, or the end, which no text can name."""

    bos_token = ""
    eos_token = ""
    adds_bos = False
    size = END + 1

    def encode(self, text: str, *, special: bool = True, add_special: bool = True) -> list[int]:
        return list(text.encode("utf-8", "replace"))

    def decode(self, tokens: Sequence[int]) -> str:
        return b"".join(map(self.piece, tokens)).decode("utf-8", "replace")

    def piece(self, token: int, *, special: bool = False) -> bytes:
        return b"" if token == END else bytes([token])

    def is_end(self, token: int) -> bool:
        return token == END

"""A table of 257 times 257 logits: for each byte, and for the end, how likely each byte is to follow it, or the end."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

import numpy as np
import numpy.typing as npt

from corectl.errors import LoadFailed
from corectl.runner.engine import EngineInfo, MemoryUse, Placement

END = 256
SIZE = END + 1
NAME = "<end>"


class ByteTokenizer:
    """See `corectl.runner.engine.Tokenizer`."""

    bos_token = ""
    eos_token = NAME
    adds_bos = False
    size = SIZE

    def encode(self, text: str, *, special: bool = True, add_special: bool = True) -> list[int]:
        parts = text.split(NAME) if special else [text]
        tokens = [token for part in parts for token in (*part.encode("utf-8", "replace"), END)]
        return tokens[:-1]

    def decode(self, tokens: Sequence[int]) -> str:
        return b"".join(self.piece(token, special=True) for token in tokens).decode("utf-8", "replace")

    def piece(self, token: int, *, special: bool = False) -> bytes:
        if token < END:
            return bytes([token])
        return NAME.encode() if special else b""

    def is_end(self, token: int) -> bool:
        return token == END


class BigramStream:
    """See `corectl.runner.logits.TokenStream`. Only the last token counts, so going back costs nothing."""

    def __init__(self, table: npt.NDArray[np.float32]) -> None:
        self._table = table

    def feed(self, tokens: Sequence[int]) -> npt.NDArray[np.float32]:
        logits: npt.NDArray[np.float32] = self._table[tokens[-1]].copy()
        return logits

    def rewind(self, length: int) -> None: ...

    def close(self) -> None: ...


class BigramModel:
    """See `corectl.runner.logits.LogitsModel`."""

    tokenizer = ByteTokenizer()

    def __init__(self, weights: Path, placement: Placement) -> None:
        try:
            data = np.fromfile(weights, np.float32)
        except OSError as exc:
            raise LoadFailed(f"{weights.name} cannot be read: {exc.strerror}") from exc
        if data.size != SIZE * SIZE or weights.stat().st_size != data.nbytes or not np.isfinite(data).all():
            raise LoadFailed(f"{weights.name} is no table of {SIZE} times {SIZE} numbers")
        self._table = data.reshape(SIZE, SIZE)
        self.info = EngineInfo(
            num_ctx=placement.num_ctx,
            cells=placement.cells,
            num_batch=placement.num_batch,
            max_sequences=placement.max_sequences,
            num_thread=1,
            memory=data.nbytes,
            measured=(MemoryUse(device="cpu", weights=data.nbytes),),
            idle_sequences=2,
            description="bigram",
        )

    def open(self) -> BigramStream:
        return BigramStream(self._table)

    def close(self) -> None: ...


def train(text: str) -> bytes:
    """The weights of a model that has read a text."""
    # Never two equal ones, so that there always is a likeliest.
    counts = np.tile(np.linspace(0.01, 0.02, SIZE), (SIZE, 1))
    data = [*text.encode(), END]
    np.add.at(counts, (data[:-1], data[1:]), 1.0)
    logits: npt.NDArray[np.float32] = np.log(counts / counts.sum(axis=1, keepdims=True)).astype(np.float32)
    return logits.tobytes()

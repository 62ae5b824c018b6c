"""A loaded model as core's adapter wants it: a `Generator` for each sequence that has tokens, used again and again."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np

from corectl.errors import EngineError
from corectl.runner.engine import EngineInfo, Tokenizer
from corectl.runner.logits import TokenStream
from corectl.runner.sampling import Logits
from corectl_onnx.native import Generator, NativeModel


class OnnxStream:
    """A sequence in a generator, which goes back to `give_back`. See `corectl.runner.logits.TokenStream`."""

    def __init__(self, generator: Generator, piece: int, give_back: Callable[[Generator], None]) -> None:
        """`piece` is how many tokens are computed together."""
        self._generator, self._piece, self._give_back = generator, piece, give_back

    def feed(self, tokens: Sequence[int]) -> Logits:
        values = np.array(tokens, np.int32)
        for begin in range(0, len(values), self._piece):
            self._generator.append(values[begin : begin + self._piece])
        return self._generator.logits()

    def close(self) -> None:
        self._give_back(self._generator)


class RewindingStream(OnnxStream):
    """One of a model that remembers nothing but keys and values. See `corectl.runner.logits.Rewinds`."""

    def rewind(self, length: int) -> None:
        self._generator.rewind(length)


class OnnxModel:
    """See `corectl.runner.logits.LogitsModel`."""

    def __init__(
        self,
        native: NativeModel,
        tokenizer: Tokenizer,
        info: EngineInfo,
        *,
        piece: int,
        free: Sequence[Generator],
    ) -> None:
        """`free` are generators for all streams; none if one of this model is of use for a single sequence only."""
        self.info, self.tokenizer = info, tokenizer
        self._native, self._piece = native, piece
        self._free = list(free)
        self._rewinds = bool(free)

    def open(self) -> TokenStream:
        generator = self._free.pop() if self._free else self._native.generator(self.info.num_ctx)
        if self._rewinds:
            return RewindingStream(generator, self._piece, self._take_back)
        return OnnxStream(generator, self._piece, Generator.close)

    def _take_back(self, generator: Generator) -> None:
        try:
            generator.rewind(0)
        except EngineError:
            # It has failed before; the next one begins with another.
            generator.close()
        else:
            self._free.append(generator)

    def close(self) -> None:
        for generator in self._free:
            generator.close()
        self._native.close()

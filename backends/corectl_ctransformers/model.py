"""A model in the library as core's adapter wants it: one sequence at a time. In the runner process."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from typing import Any

import numpy as np

from corectl.errors import EngineError
from corectl.runner.engine import EngineInfo
from corectl.runner.logits import LogitsEngine, TokenStream
from corectl.runner.sampling import Logits
from corectl_ctransformers.memory import Graph
from corectl_ctransformers.tokenizer import GgmlTokenizer


class GgmlModel:
    """See `corectl.runner.logits.LogitsModel`. `native` is the library's object; `rewinds` says whether its memory can
    be used again up to any token.
    """

    def __init__(
        self, native: Any, info: EngineInfo, tokenizer: GgmlTokenizer, graph: Graph, *, rewinds: bool
    ) -> None:
        self._native: Any | None = native
        self._graph = graph
        self._rewinds = rewinds
        self.info = info
        self.tokenizer = tokenizer
        self.threads = info.num_thread

    def open(self) -> TokenStream:
        return RewindingStream(self) if self._rewinds else GgmlStream(self)

    def compute(self, tokens: Sequence[int], position: int) -> Logits:
        """The logits after `tokens`, which follow `position` others."""
        native = self._native
        assert native is not None, "closed"
        done = 0
        while done < len(tokens):
            count = min(self._graph.batch(position + done), len(tokens) - done)
            part = (ctypes.c_int * count)(*tokens[done : done + count])
            if not native.ctransformers_llm_batch_eval(part, count, position + done, count, self.threads):
                raise EngineError("ctransformers could not compute; the log may have more")
            done += count
        size = native.ctransformers_llm_logits_size()
        values = np.ctypeslib.as_array(native.ctransformers_llm_logits_data(), shape=(size,))
        return values.astype(np.float32)

    def close(self) -> None:
        # The library frees a model when its object goes.
        self._native = None


class GgmlStream:
    """The one sequence. What it forgets is overwritten by what comes next."""

    def __init__(self, model: GgmlModel) -> None:
        self._model = model
        self._length = 0

    def feed(self, tokens: Sequence[int]) -> Logits:
        logits = self._model.compute(tokens, self._length)
        self._length += len(tokens)
        return logits

    def close(self) -> None:
        pass


class RewindingStream(GgmlStream):
    """One that can go back."""

    def rewind(self, length: int) -> None:
        self._length = length


class GgmlEngine(LogitsEngine):
    """See `corectl.runner.engine.Engine` and `corectl.runner.abilities.ThreadControl`."""

    def __init__(self, model: GgmlModel) -> None:
        super().__init__(model)
        self._threaded = model

    def set_threads(self, count: int) -> None:
        self._threaded.threads = count

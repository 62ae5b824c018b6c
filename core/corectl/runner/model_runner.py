"""What a lease gives: something that answers requests for one model, here in a process or elsewhere."""

from __future__ import annotations

from typing import Protocol

from corectl.messages import (
    Completion,
    Detokenize,
    Embedding,
    Rendered,
    Rerank,
    Scores,
    Text,
    Tokenize,
    Tokens,
    Vectors,
)
from corectl.runner.stream import EventStream


class ModelRunner(Protocol):
    """Answers for one model. All methods belong to the server's event loop, and raise `corectl.errors`.

    Cancelling the caller of a coroutine cancels the work, wherever it is done.
    """

    async def ready(self) -> None:
        """Returns when the model could answer at once."""
        ...

    def complete(self, request: Completion) -> EventStream:
        """Starts to generate: `Started`, any number of `Delta`, and `Finish`, or an error.

        Close the stream when done; before its `Finish` that cancels the work.
        """
        ...

    async def render(self, request: Completion) -> Rendered:
        """The prompt of a request with `render_only`."""
        ...

    async def embed(self, request: Embedding) -> Vectors:
        """One vector per input."""
        ...

    async def rerank(self, request: Rerank) -> Scores:
        """One score per document."""
        ...

    async def tokenize(self, request: Tokenize) -> Tokens: ...

    async def detokenize(self, request: Detokenize) -> Text: ...

"""What a converter is: it makes models of one format from those of another."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Protocol

from corectl.model.files import ModelFiles

Done = Callable[[int, int], None]
"""Is told how many bytes of how many have been written."""


class Converter(Protocol):
    """See `corectl.hookspecs.corectl_converters` for when it is called. Formats are names of `ModelFormat`s."""

    @property
    def name(self) -> str: ...

    @property
    def source(self) -> str:
        """The format that it reads, such as `safetensors`."""
        ...

    @property
    def target(self) -> str:
        """The format that it writes, such as `gguf`."""
        ...

    def why_not(self, files: ModelFiles) -> str:
        """Why it cannot convert this model; empty if it can. Reads no more than headers and configurations.

        In the server process, on a worker thread. Raises `BadModelFile`.
        """
        ...

    def convert(self, files: ModelFiles, folder: Path, done: Done) -> None:
        """Writes the model into an empty folder. In a process of its own, with nothing else loaded.

        Warnings that its package logs reach the client that creates the model, with the code `conversion_warning`.
        Raises `BadModelFile`, and `NotSupported` for an architecture or a part that it does not know.
        """
        ...

    def convert_adapter(self, adapter: ModelFiles, base: ModelFiles, folder: Path, done: Done) -> None:
        """The same for an adapter; `base` is the model that it is for, in the format `target`."""
        ...

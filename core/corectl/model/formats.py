"""What a model format is: how files of a kind are described."""

from __future__ import annotations

from typing import Any, Protocol, runtime_checkable

import msgspec

from corectl.model.files import ModelFiles


class ModelDescription(msgspec.Struct, frozen=True, kw_only=True):
    """What a header says about a model. Lengths are in tokens, 0 where the file does not say.

    `capabilities` are those of the weights alone (completion, embedding, vision ...); templates add others.
    `chat_template` is the Jinja template that comes with the weights, or empty.
    """

    architecture: str
    parameter_count: int = 0
    quantization: str = ""
    context_length: int = 0
    embedding_length: int = 0
    capabilities: tuple[str, ...] = ()
    chat_template: str = ""


class TensorSummary(msgspec.Struct, frozen=True):
    """A tensor, its dimensions in the order in which its format has them."""

    name: str
    type: str
    shape: tuple[int, ...]


class ModelDetails(msgspec.Struct, frozen=True, kw_only=True):
    """All that is told of a model to who wants to know everything: metadata by GGUF's names for it, and all tensors."""

    metadata: dict[str, Any] = {}
    tensors: tuple[TensorSummary, ...] = ()


class ModelFormat(Protocol):
    """A file format; see `corectl.hookspecs.corectl_model_formats` for when it is called."""

    @property
    def name(self) -> str: ...

    def claims(self, files: ModelFiles) -> bool:
        """Whether these files are a model of this format, as far as their names and first bytes tell. Never raises.

        Asked when a model is created from files; the first format by name that claims them has them.
        """
        ...

    def describe(self, files: ModelFiles) -> ModelDescription:
        """Raises `corectl.errors.BadModelFile` for a damaged or hostile file."""
        ...


@runtime_checkable
class DetailedFormat(ModelFormat, Protocol):
    """A format that tells of metadata and tensors, too."""

    def details(self, files: ModelFiles) -> ModelDetails:
        """Called by /api/show, on a worker thread. Values must be such as JSON has.

        Raises `corectl.errors.BadModelFile` for a damaged or hostile file.
        """
        ...

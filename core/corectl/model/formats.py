"""What a model format is: how files of a kind are described."""

from __future__ import annotations

from typing import Protocol

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

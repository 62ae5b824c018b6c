"""One model as the rest of the program sees it, wherever it is stored."""

from __future__ import annotations

from datetime import datetime
from functools import cached_property
from pathlib import Path
from typing import Any, TypeVar

import msgspec

from corectl.errors import BadModelFile
from corectl.messages import Message
from corectl.model.files import ModelFiles, read_small
from corectl.model.manifest import MediaType, ModelConfig
from corectl.model.name import ModelName
from corectl.model.split import part_name

T = TypeVar("T")

MAX_TEXT = 64 * 2**20
"""Bytes. No template, licence or conversation is larger; a file that claims to be one is hostile."""


class StoredLayer(msgspec.Struct, frozen=True, kw_only=True):
    """A layer and where its bytes lie on this machine. `digest` is `sha256:<hex>`, `size` is in bytes.

    `from_` is the short name of the model that it was taken from, if it was; `name` is what the file is called where a
    format is a folder of files. `problem` says why a file that is used where it lies cannot be used any more.
    """

    media_type: str
    digest: str
    size: int
    path: Path
    from_: str = ""
    name: str = ""
    problem: str = ""


class ModelRecord(msgspec.Struct, frozen=True, kw_only=True, dict=True):
    """A model that can be shown, copied and run. Values are read once, when they are first asked for.

    Reading raises `BadModelFile` for a layer that is missing, too large, or not what its media type says.

    `digest` is the bare hex SHA-256 of the manifest's bytes, `size` the sum of all layers in bytes, `origin` is
    `store`, or says which registry offers the model in place (then it cannot be deleted here).
    """

    name: ModelName
    digest: str
    size: int
    modified_at: datetime
    config: ModelConfig
    layers: tuple[StoredLayer, ...]
    origin: str = "store"

    @property
    def problem(self) -> str:
        """Why the model cannot be used: a file that it uses where it lies has changed or is gone. Mostly empty."""
        return next((layer.problem for layer in self.layers if layer.problem), "")

    def check(self) -> None:
        """Raises `BadModelFile` if there is a problem."""
        if self.problem:
            raise BadModelFile(f"{self.name.short} cannot be used: {self.problem}")

    def paths(self, media_type: MediaType) -> list[Path]:
        """Where the layers of one kind lie, in manifest order."""
        return [layer.path for layer in self.layers if layer.media_type == media_type]

    def _text(self, media_type: MediaType) -> str | None:
        paths = self.paths(media_type)
        return _read_text(paths[-1]) if paths else None

    @property
    def weights(self) -> Path | None:
        """The first weights file, or None for a stub of a remote model."""
        paths = self.paths(MediaType.MODEL)
        return paths[0] if paths else None

    @property
    def files(self) -> ModelFiles | None:
        """All files of the weights, or None for a stub of a remote model."""
        weights = self.paths(MediaType.MODEL)
        if not weights:
            return None
        named = self.named(MediaType.MODEL, MediaType.JSON)
        if len(weights) > 1 and not named:
            # The parts of a split model, in their order, as others may have stored them.
            names = (part_name("model", number, len(weights)) for number in range(1, len(weights) + 1))
            named = dict(zip(names, weights, strict=True))
        return ModelFiles(weights=weights[0], named=named)

    def named(self, *media_types: MediaType) -> dict[str, Path]:
        """Where the layers of some kinds lie that have a name."""
        return {
            layer.name: layer.path for layer in self.layers if layer.name and layer.media_type in media_types
        }

    @cached_property
    def template(self) -> str | None:
        """The TEMPLATE (Go template text), or None."""
        return self._text(MediaType.TEMPLATE)

    @cached_property
    def system(self) -> str | None:
        return self._text(MediaType.SYSTEM)

    @cached_property
    def licenses(self) -> list[str]:
        return [_read_text(path) for path in self.paths(MediaType.LICENSE)]

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """PARAMETER values as stored: JSON types, `stop` always a list."""
        text = self._text(MediaType.PARAMS)
        return _decode(text, dict[str, Any]) if text else {}

    @cached_property
    def messages(self) -> list[Message]:
        text = self._text(MediaType.MESSAGES)
        return _decode(text, list[Message]) if text else []


def _read_text(path: Path) -> str:
    try:
        return read_small(path, MAX_TEXT).decode("utf-8")
    except OSError as exc:
        raise BadModelFile(f"a layer cannot be read: {exc.strerror}") from exc
    except UnicodeDecodeError as exc:
        raise BadModelFile(f"a text layer is not UTF-8: {exc.reason}") from exc


def _decode(text: str, kind: type[T]) -> T:
    try:
        return msgspec.json.decode(text, type=kind)
    except (msgspec.DecodeError, RecursionError) as exc:
        raise BadModelFile(f"a layer is damaged: {exc}") from exc

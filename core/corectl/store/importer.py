"""What making a model needs to know of formats, converters and backends, and has them do."""

from __future__ import annotations

from pathlib import Path
from typing import Protocol

import msgspec

from corectl.jobs.messages import Made
from corectl.model.files import ModelFiles
from corectl.model.formats import ModelDescription
from corectl.model.name import ModelName
from corectl.progress import Report
from corectl.store.ways import Way


class Recognised(msgspec.Struct, frozen=True):
    """Files that are a model: the name of their format, and what it says of them."""

    format: str
    description: ModelDescription


class Wish(msgspec.Struct, frozen=True, kw_only=True):
    """What somebody wants of a model that is made: its name, the `backend` of its PARAMETERs, how it is quantised."""

    name: ModelName
    backend: str = ""
    target: str = ""


class Quantizing(msgspec.Struct, frozen=True):
    """Which backend makes weights smaller, and what it calls the kind that was asked for."""

    backend: str
    target: str


class Importer(Protocol):
    """What is known here of models that are made of files. Its methods block; those with a folder take minutes.

    A folder is empty, and for the result. `report` hears how far the work is.
    """

    def recognise(self, files: ModelFiles) -> Recognised | None:
        """What a set of files is. Raises `BadModelFile`."""
        ...

    def way(self, format: str, files: ModelFiles, wish: Wish) -> Way:
        """What is to become of a model's files. Raises `NotSupported`, `BadRequest` and `BadModelFile`."""
        ...

    def quantizing(self, format: str, wish: Wish) -> Quantizing:
        """Who makes a model of this format smaller. Raises `BadRequest` for an unknown target, and `NotSupported`."""
        ...

    def convert(self, way: Way, files: ModelFiles, folder: Path, report: Report) -> Made:
        """Makes the model of another format. Raises `BadModelFile`, `NotSupported`, `LoadFailed`."""
        ...

    def convert_adapter(
        self, adapter: ModelFiles, base: ModelFiles, format: str, folder: Path, report: Report
    ) -> Made:
        """Makes a safetensors adapter one of the format of its base. Raises `BadModelFile`, `NotSupported`."""
        ...

    def quantize(self, how: Quantizing, kind: str, files: ModelFiles, folder: Path, report: Report) -> Made:
        """Makes the weights smaller, which are of this kind (such as F16). Raises `BadRequest`, `LoadFailed`."""
        ...

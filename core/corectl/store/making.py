"""What takes long when a model is made: reading its files, converting and quantising them. The store is not locked."""

from __future__ import annotations

from collections.abc import Iterable, Mapping
from contextlib import ExitStack
from pathlib import Path

from corectl.errors import BadRequest
from corectl.jobs.messages import Made
from corectl.model.files import ModelFiles
from corectl.progress import Report
from corectl.store.adapter import read_adapter
from corectl.store.catalog import Catalog
from corectl.store.folder import made_folder, read_folder
from corectl.store.importer import Importer, Wish
from corectl.store.parts import Part
from corectl.store.weights import (
    GGUF,
    NOT_UNQUANTIZED,
    UNQUANTIZED,
    GgufFiles,
    Weights,
    check_files,
    is_gguf,
    made_gguf,
    read_files,
)


class Maker:
    """Makes weights, in scratch folders that last as long as `stack`."""

    def __init__(self, catalog: Catalog, importer: Importer, report: Report, stack: ExitStack) -> None:
        self._catalog = catalog
        self._importer = importer
        self._report = report
        self._stack = stack
        self._held = stack.enter_context(ExitStack())

    def hold(self, digests: Iterable[str]) -> None:
        """Keep blobs from being removed, if they are here. Raises `BadRequest` for what is no digest."""
        wanted = [digest.replace("-", ":", 1) for digest in digests]
        for digest in wanted:
            self._catalog.blobs.path_of(digest)
        self._held.enter_context(self._catalog.holding(wanted))

    def let_go(self) -> None:
        """Hold nothing any more: with the store locked, nobody removes anything."""
        self._held.close()

    def read(self, files: Mapping[str, str]) -> GgufFiles:
        """What uploaded files are. Raises `BadRequest`, `BadModelFile` and `NotSupported`."""
        blobs = self._catalog.blobs
        check_files(blobs, files)
        if not is_gguf(blobs, files):
            folder = read_folder(blobs, files, self._importer)
            if folder is not None:
                return GgufFiles(folder, ())
        return read_files(blobs, files, self._report)

    def finished(self, weights: Weights, wish: Wish) -> Weights:
        """The weights in the format and of the kind in which the model is stored.

        Raises `NotSupported`, `BadRequest`, `BadModelFile`, `LoadFailed`, `Canceled` and `OSError`.
        """
        if weights.format != GGUF:
            weights = self._converted(weights, wish)
        return self._quantized(weights, wish) if wish.target else weights

    def _converted(self, weights: Weights, wish: Wish) -> Weights:
        way = self._importer.way(weights.format, weights.files, wish)
        if not way.converter:
            return weights
        folder = self._scratch()
        made = self._importer.convert(way, weights.files, folder, self._report)
        return self._made(made, folder, way.format)

    def _quantized(self, weights: Weights, wish: Wish) -> Weights:
        how = self._importer.quantizing(weights.format, wish)
        if how.target.lower() == weights.kind.lower():
            return weights
        if weights.format == GGUF and weights.kind not in UNQUANTIZED:
            raise BadRequest(NOT_UNQUANTIZED)
        folder = self._scratch()
        made = self._importer.quantize(how, weights.kind, weights.files, folder, self._report)
        return self._made(made, folder, weights.format)

    def adapter(
        self, adapters: Mapping[str, str], base: ModelFiles | None, base_format: str
    ) -> tuple[Part, ...]:
        """The layers of an adapter for this base. Raises as `finished` does."""
        check_files(self._catalog.blobs, adapters)

        def convert(files: ModelFiles) -> tuple[Made, Path]:
            assert base is not None, "a model of this format has weights"
            folder = self._scratch()
            return self._importer.convert_adapter(files, base, base_format, folder, self._report), folder

        return read_adapter(self._catalog.blobs, adapters, base_format, self._report, convert)

    def _made(self, made: Made, folder: Path, format: str) -> Weights:
        return (
            made_gguf(made, folder) if format == GGUF else made_folder(made, folder, format, self._importer)
        )

    def _scratch(self) -> Path:
        return self._stack.enter_context(self._catalog.blobs.scratch())

"""Files of the server that a create request names by their paths, where the operator has allowed that."""

from __future__ import annotations

from collections.abc import Iterable
from pathlib import Path

import msgspec

from corectl.errors import BadRequest, Forbidden
from corectl.progress import Progress, Report
from corectl.store.catalog import Catalog
from corectl.store.create import CreateSpec
from corectl.store.local_file import LocalFile


class Imports:
    """Takes files from some `folders` into a store.

    All of it blocks: links are resolved, and files are read as a whole.
    """

    def __init__(self, catalog: Catalog, folders: Iterable[str]) -> None:
        self.created: list[str] = []
        """Blobs that were not in the store before: for whom they were taken has to discard them if it fails."""
        self._catalog = catalog
        self._folders = [Path(folder).expanduser().resolve() for folder in folders]

    def take(self, spec: CreateSpec, report: Report, *, in_place: bool) -> CreateSpec:
        """The same request, with the digest of a blob in the place of each absolute path.

        With `in_place` such a blob refers to its file, otherwise it is a link or a copy. Raises `Forbidden` for a path
        in no allowed folder, whether there is a file or not, `BadRequest` and `OSError`.
        """
        return msgspec.structs.replace(
            spec,
            files=self._files(spec.files, report, in_place),
            adapters=self._files(spec.adapters, report, in_place),
        )

    def _files(self, files: dict[str, str] | None, report: Report, in_place: bool) -> dict[str, str] | None:
        if files is None:
            return None
        places = {name: self._allowed(name, text) for name, text in files.items() if Path(text).is_absolute()}
        return {
            **files,
            **{name: self._take(*place, report, in_place) for name, place in places.items()},
        }

    def _allowed(self, name: str, text: str) -> tuple[Path, Path]:
        """The folder that the file of this name lies in, and where it really lies."""
        try:
            real = Path(text).resolve()
        except (OSError, RuntimeError, ValueError):  # a loop of links, or a path that cannot be one
            real = None
        for folder in self._folders:
            if real is not None and real != folder and real.is_relative_to(folder):
                return folder, real
        raise Forbidden(
            f'the path of "{name[:200]}" lies in no folder that this server takes files from; '
            "its operator may allow that folder in the setting import_folders (CORECTL_IMPORT_FOLDERS)"
        )

    def _take(self, folder: Path, path: Path, report: Report, in_place: bool) -> str:
        try:
            file = LocalFile.open_inside(folder, path)
        except OSError as exc:
            raise BadRequest(f"the file {path} cannot be read: {exc.strerror}") from exc

        def read(count: int) -> None:
            report(Progress(f"reading {path.name}", "", file.size, count))

        with file:
            digest = file.digest(read)
            if in_place:
                stored = self._catalog.refer(file, digest)
            else:
                blobs = self._catalog.blobs
                stored = blobs.link(file, digest) or blobs.copy(file, digest, read)
        if stored.created:
            self.created.append(digest)
        return digest

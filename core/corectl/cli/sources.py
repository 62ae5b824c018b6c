"""The files that a Modelfile's FROM, ADAPTER and DRAFT lines name, and how they get to the server."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING, Final

from corectl.cli.failure import CliError

if TYPE_CHECKING:
    from corectl.cli.client import Client
    from corectl.cli.progress import Progress
    from corectl.store.local_file import LocalFile

_WEIGHTS: Final = (
    "model*.safetensors",
    "consolidated*.safetensors",
    "pytorch_model*.bin",
    "consolidated*.pth",
    "adapter_model*.safetensors",
    "adapters.safetensors",
    "*.onnx*",
    "*.gguf",
    "*.bin",
)
"""What a model folder's weights may be called; the first pattern that matches anything decides."""

_EXTRAS: Final = (
    "*.json",
    "**/*.json",
    "tokenizer.model",
    "vocab.txt",
    "merges.txt",
    "chat_template.jinja",
)
"""What belongs to weights that are not one self-contained file."""

_DIGEST: Final = re.compile(r"sha256:[0-9a-f]{64}")
_GGUF: Final = b"GGUF"
_GGML_MAGICS: Final = (_GGUF, b"lmgg", b"fmgg", b"tjgg", b"ccgg")
"""How a `.bin` file with weights begins: GGUF, and what there was before it."""


def find_source(text: str, base: Path) -> Path | None:
    """The existing file or folder that a line names, relative to the Modelfile's folder `base`; else None."""
    path = Path(text).expanduser()
    path = path if path.is_absolute() else base / path
    return path if path.exists() else None


def files_of(source: Path) -> dict[str, Path]:
    """The files to send by the name they have in the request: one file, or what matters in a folder."""
    if source.is_file():
        return {path.name: path for path in _parts(source)}
    for pattern in _WEIGHTS:
        found = sorted(source.glob(pattern))
        if pattern == "*.bin":
            found = [path for path in found if _magic(path) in _GGML_MAGICS]
        if not found:
            continue
        if not _self_contained(pattern, found):
            found += [path for extra in _EXTRAS for path in sorted(source.glob(extra))]
        return {path.relative_to(source).as_posix(): _inside(path, source) for path in found}
    raise CliError("no Modelfile or safetensors files found")


def _parts(source: Path) -> list[Path]:
    """The file; or all files of the split model that it is a part of, as far as they are there."""
    from corectl.model.split import MOST_PARTS, part_name, split_name

    found = split_name(source.name)
    if found is None:
        return [source]
    stem, _, count = found
    paths = [
        source.with_name(part_name(stem, number, count)) for number in range(1, min(count, MOST_PARTS) + 1)
    ]
    # Only what is GGUF: nobody has pointed at the others, and one may be a link to anything.
    others = [path for path in paths if path == source or (path.is_file() and _magic(path) == _GGUF)]
    return others if source in others else [source]


def _inside(path: Path, folder: Path) -> Path:
    """`path`, unless it is a link out of the folder: what is sent must be what the user pointed at."""
    if not path.resolve().is_relative_to(folder.resolve()):
        raise CliError(f"insecure path: {path}")
    return path


def _self_contained(pattern: str, found: list[Path]) -> bool:
    return pattern == "*.gguf" or (pattern == "*.bin" and all(_magic(path) == _GGUF for path in found))


def _magic(path: Path) -> bytes:
    with path.open("rb") as file:
        return file.read(4)


class Sender:
    """Makes sure that the server holds files. On this machine they are linked into its store rather than sent.

    With `in_place` they are used where they lie, or not at all.
    """

    def __init__(self, client: Client, progress: Progress, *, in_place: bool = False) -> None:
        from corectl.cli.local_store import local_store

        self._client = client
        self._progress = progress
        self._in_place = in_place
        self._store = local_store(client)
        if in_place and not client.host.loopback:
            raise CliError(f"--in-place is for a server on this machine, not for {client.host.label}")

    def send(self, files: dict[str, Path]) -> dict[str, str]:
        """The digest of each file by name; or its path, where only the server can say whether it may use that."""
        return {name: self._send(path) for name, path in files.items()}

    def _send(self, path: Path) -> str:
        from corectl.store.local_file import LocalFile

        if (known := self._blob(path)) is not None:
            return known
        try:
            with LocalFile.open(path) as file:
                digest = file.digest(self._bar(path, "reading file", path.name, file.size))
                show = self._bar(path, "copying file", digest, file.size)
                if not self._client.has_blob(digest) and not self._place(file, digest):
                    if self._in_place:
                        return str(file.path)  # the server has the last word
                    self._client.upload(digest, file.path, show)
                show(file.size)
        except OSError as exc:
            raise CliError(f"cannot read {path}: {exc.strerror}") from exc
        self._progress.finish(str(path))
        return digest

    def _blob(self, path: Path) -> str | None:
        """The digest of a blob of the server's own store, as `show --modelfile` names them: it is not read again."""
        digest = path.name.replace("-", ":", 1)
        if self._store is None or path.parent != self._store.blobs.folder or not _DIGEST.fullmatch(digest):
            return None
        return digest if self._client.has_blob(digest) else None

    def _place(self, file: LocalFile, digest: str) -> bool:
        from corectl.cli.local_store import place

        return self._store is not None and place(
            self._client, self._store, file, digest, in_place=self._in_place
        )

    def _bar(self, path: Path, what: str, name: str, size: int) -> Callable[[int], None]:
        def show(done: int) -> None:
            share = done * 100 // size if size else 100
            self._progress.status(f"{what} {name} {share}%", key=str(path))

        return show

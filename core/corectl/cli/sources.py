"""The files that a Modelfile's FROM, ADAPTER and DRAFT lines name, and how they get to the server."""

from __future__ import annotations

import hashlib
from pathlib import Path
from typing import TYPE_CHECKING, Final

from corectl.cli.failure import CliError

if TYPE_CHECKING:
    from corectl.cli.client import Client
    from corectl.cli.progress import Progress

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

_EXTRAS: Final = ("*.json", "**/*.json", "tokenizer.model", "chat_template.jinja")
"""What belongs to weights that are not one self-contained file."""

_GGUF: Final = b"GGUF"
_GGML_MAGICS: Final = (_GGUF, b"lmgg", b"fmgg", b"tjgg", b"ccgg")
"""How a `.bin` file with weights begins: GGUF, and what there was before it."""
_HASH_CHUNK: Final = 1 << 20


def find_source(text: str, base: Path) -> Path | None:
    """The existing file or folder that a line names, relative to the Modelfile's folder `base`; else None."""
    path = Path(text).expanduser()
    path = path if path.is_absolute() else base / path
    return path if path.exists() else None


def files_of(source: Path) -> dict[str, Path]:
    """The files to send by the name they have in the request: one file, or what matters in a folder."""
    if source.is_file():
        return {source.name: source}
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


def send_files(client: Client, files: dict[str, Path], progress: Progress) -> dict[str, str]:
    """Makes sure that the server holds each file; returns name → digest."""
    return {name: _send(client, path, progress) for name, path in files.items()}


def _send(client: Client, path: Path, progress: Progress) -> str:
    digest = _digest(path)
    size = max(path.stat().st_size, 1)

    def show(sent: int) -> None:
        progress.status(f"copying file {digest} {sent * 100 // size}%", key=digest)

    show(0)
    if not client.has_blob(digest):
        client.upload(digest, path, show)
    show(size)
    progress.finish(digest)
    return digest


def _digest(path: Path) -> str:
    digest = hashlib.sha256()
    try:
        with path.open("rb") as file:
            while chunk := file.read(_HASH_CHUNK):
                digest.update(chunk)
    except OSError as exc:
        raise CliError(f"cannot read {path}: {exc.strerror}") from exc
    return f"sha256:{digest.hexdigest()}"

"""What the hub says about a revision of a repository, checked."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from corectl.errors import BadModelFile, RemoteError
from corectl.model.files import check_file_name
from corectl.model.hf import whole_number

MAX_BYTES = 16 << 20
"""Of the hub's answer: several times what the largest repositories have."""

MAX_FILES = 10_000
MAX_NAME = 1024
MAX_SIZE = 1 << 44
"""Bytes of one file."""

_COMMIT = re.compile(r"[0-9a-f]{40,64}")
_SHA256 = re.compile(r"[0-9a-f]{64}")
_GIT = re.compile(r"[0-9a-f]{40}")


class RepoFile(msgspec.Struct, frozen=True):
    """A file of a revision. `sha256` (hex) is that of a large file, `git` what git calls a small one; one is empty.

    `size` is in bytes.
    """

    path: str
    size: int
    sha256: str
    git: str


class Listing(msgspec.Struct, frozen=True, kw_only=True):
    """A revision: the commit, and its files by path. The rest is 0, empty or False where the hub does not say it.

    `parameters` counts the weights' numbers. `gated` is whether its owner decides who may have the files.
    """

    commit: str
    files: dict[str, RepoFile]
    gated: bool = False
    architecture: str = ""
    parameters: int = 0
    context_length: int = 0


class _Lfs(msgspec.Struct):
    sha256: str
    size: int


class _Sibling(msgspec.Struct, rename="camel"):
    rfilename: str
    size: int | None = None
    blob_id: str | None = None
    lfs: _Lfs | None = None


class _Info(msgspec.Struct):
    """The keys of the hub's answer that are read. Those with descriptions may be anything."""

    sha: str
    siblings: list[_Sibling]
    gated: Any = False
    gguf: Any = None
    safetensors: Any = None


def read_listing(body: bytes) -> Listing:
    """Raises `RemoteError` for whatever is not as it should be."""
    try:
        info = msgspec.json.decode(body, type=_Info)
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise RemoteError(f"Hugging Face gives no list of files that can be read: {exc}") from exc
    if not _COMMIT.fullmatch(info.sha):
        raise RemoteError("Hugging Face names no commit for the revision")
    if len(info.siblings) > MAX_FILES:
        raise RemoteError(f"the repository has more than {MAX_FILES} files")
    files: dict[str, RepoFile] = {}
    for sibling in info.siblings:
        if sibling.size is None and sibling.blob_id is None and sibling.lfs is None:
            continue  # Another repository inside this one.
        file = _checked(sibling)
        if file.path in files:
            raise RemoteError(f"Hugging Face lists a file twice: {file.path}")
        files[file.path] = file
    gguf = info.gguf if isinstance(info.gguf, dict) else {}
    safetensors = info.safetensors if isinstance(info.safetensors, dict) else {}
    architecture = gguf.get("architecture")
    return Listing(
        commit=info.sha,
        files=files,
        gated=info.gated not in (False, None),
        architecture=architecture if isinstance(architecture, str) else "",
        parameters=whole_number(gguf.get("total")) or whole_number(safetensors.get("total")),
        context_length=whole_number(gguf.get("context_length")),
    )


def _checked(sibling: _Sibling) -> RepoFile:
    path = sibling.rfilename
    shown = ascii(path[:80])
    try:
        check_file_name(path)
    except BadModelFile:
        raise RemoteError(f"Hugging Face lists a file with a name that is none: {shown}") from None
    parts = path.split("/")
    if len(path) > MAX_NAME or not path.isprintable() or "\\" in path or not {"", "."}.isdisjoint(parts):
        raise RemoteError(f"Hugging Face lists a file with a name that is none: {shown}")
    size = sibling.size
    if size is None or not 0 <= size <= MAX_SIZE or (sibling.lfs is not None and sibling.lfs.size != size):
        raise RemoteError(f"Hugging Face lists a file with a size that is none: {shown}")
    if sibling.lfs is not None:
        if not _SHA256.fullmatch(sibling.lfs.sha256):
            raise RemoteError(f"Hugging Face lists a file with a digest that is none: {shown}")
        return RepoFile(path, size, sibling.lfs.sha256, "")
    git = sibling.blob_id or ""
    if not _GIT.fullmatch(git):
        raise RemoteError(f"Hugging Face lists a file with a digest that is none: {shown}")
    return RepoFile(path, size, "", git)

"""Records of stored models, kept for as long as their files stay as they are: each request asks for one."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from corectl.model.manifest import MediaType
from corectl.model.name import ModelName
from corectl.model.record import ModelRecord

_MOST = 64
_MAX_TEXT = 1 << 20
"""Bytes. A record has its texts in memory once they have been read; one with more of them is not kept."""

_TEXTS = frozenset(
    (MediaType.TEMPLATE, MediaType.SYSTEM, MediaType.PARAMS, MediaType.MESSAGES, MediaType.LICENSE)
)


class FileState(msgspec.Struct, frozen=True):
    """A file as it was: its number, bytes, and time of change in nanoseconds; all 0 if it was not there."""

    path: str
    number: int = 0
    size: int = 0
    changed: int = 0

    @classmethod
    def of(cls, path: str) -> FileState:
        try:
            status = os.stat(path)  # noqa: PTH116 - each request asks, for each file
        except OSError:
            return cls(path)
        return cls(path, status.st_ino, status.st_size, status.st_mtime_ns)


def file_states(record: ModelRecord, manifest: Path) -> list[FileState]:
    """What a record was made of, as it is now: its manifest, and its layers in their order."""
    return [FileState.of(str(path)) for path in (manifest, *(layer.path for layer in record.layers))]


class KeptRecords:
    """Some records, by their names in the store. For any thread of the server process."""

    def __init__(self) -> None:
        self._kept: dict[ModelName, tuple[ModelRecord, list[FileState]]] = {}

    def find(self, name: ModelName) -> ModelRecord | None:
        """The record of that very name, if none of its files has been changed, replaced or removed meanwhile."""
        record, states = self._kept.get(name, (None, []))
        return record if all(FileState.of(state.path) == state for state in states) else None

    def keep(self, record: ModelRecord, states: list[FileState]) -> None:
        """Keeps a record, if it has no problem and is not too large; `states` are those of `file_states`."""
        layers = zip(record.layers, states[1:], strict=True)
        text = sum(state.size for layer, state in layers if layer.media_type in _TEXTS)
        if record.problem or text > _MAX_TEXT:
            return
        if len(self._kept) >= _MOST:
            self._kept.clear()
        self._kept[record.name] = (record, states)

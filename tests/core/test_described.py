"""What formats say is remembered while files stay as they are."""

from __future__ import annotations

import os
from pathlib import Path

import msgspec

from corectl.model.described import Descriptions
from corectl.model.files import ModelFiles
from corectl.model.formats import ModelDescription


class Counting:
    """A format that counts how often it was asked."""

    name = "counting"

    def __init__(self, template: str = "") -> None:
        self.asked = 0
        self._answer = ModelDescription(architecture="a", chat_template=template)

    def claims(self, files: ModelFiles) -> bool:
        return True

    def describe(self, files: ModelFiles) -> ModelDescription:
        self.asked += 1
        return self._answer


def files_in(folder: Path) -> ModelFiles:
    named = {name: folder / name for name in ("a", "b")}
    for path in named.values():
        path.write_text("x")
    return ModelFiles(weights=named["a"], named=named)


def test_a_model_is_described_once(tmp_path: Path) -> None:
    kind, known, files = Counting(), Descriptions(), files_in(tmp_path)
    assert known.of(kind, files) is known.of(kind, files)
    assert kind.asked == 1


def test_any_file_that_changes_is_looked_at(tmp_path: Path) -> None:
    kind, known, files = Counting(), Descriptions(), files_in(tmp_path)
    known.of(kind, files)
    os.utime(tmp_path / "b", (1, 1))
    known.of(kind, files)
    (tmp_path / "b").write_text("longer")
    known.of(kind, files)
    known.of(kind, msgspec.structs.replace(files, named={"a": tmp_path / "a"}))
    assert kind.asked == 4


def test_another_format_is_asked_itself(tmp_path: Path) -> None:
    first, second, known, files = Counting(), Counting(), Descriptions(), files_in(tmp_path)
    second.name = "other"
    for kind in (first, second, first):
        known.of(kind, files)
    assert (first.asked, second.asked) == (1, 1)


def test_what_is_remembered_is_bounded(tmp_path: Path) -> None:
    kind, known = Counting(), Descriptions()
    models = []
    for number in range(257):
        path = tmp_path / str(number)
        path.write_text("x")
        models.append(ModelFiles(weights=path))
        known.of(kind, models[-1])
    known.of(kind, models[-1])
    assert kind.asked == 257
    known.of(kind, models[0])
    assert kind.asked == 258


def test_a_very_long_template_is_not_kept(tmp_path: Path) -> None:
    kind, known, files = Counting("x" * (2 << 20)), Descriptions(), files_in(tmp_path)
    for _ in range(2):
        known.of(kind, files)
    assert kind.asked == 2

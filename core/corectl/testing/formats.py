"""The conformance suite for model formats."""

from __future__ import annotations

import os
import random
import time
from collections.abc import Iterator
from pathlib import Path

import pytest

from corectl.deadline import Deadline
from corectl.errors import BadModelFile
from corectl.model.files import ModelFiles
from corectl.model.formats import ModelDescription, ModelFormat
from corectl.testing.suite import Suite

SECONDS = 2.0
"""Processor time that a description may take. The promise is under a second; machines are slow and busy."""

HEAD = 2048
"""Bytes at the beginning of a file that are damaged one by one."""

DAMAGES = 60


class FormatSuite(Suite):
    """Everything that a model format promises. A subclass gives `format`, and `sample`, a small sound model."""

    kind = "model format"

    def format(self) -> ModelFormat:
        raise NotImplementedError

    def sample(self, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
        """Called once for each test; may write the model there."""
        raise NotImplementedError

    def subject(self) -> str:
        return self.format().name

    def _describe(self, files: ModelFiles) -> ModelDescription:
        before = time.process_time()
        try:
            found = Deadline("describe").call(self.format().describe, files)
        finally:
            spent = time.process_time() - before
            assert spent < SECONDS, f"a description took {spent:.1f} s of processor time"
        assert isinstance(found, ModelDescription)
        return found

    def test_description(self, tmp_path_factory: pytest.TempPathFactory) -> None:
        """A sound model is claimed and described, always in the same way."""
        files = self.sample(tmp_path_factory)
        assert self.format().claims(files) is True
        found = self._describe(files)
        assert found == self._describe(files)
        assert found.architecture and found.capabilities
        assert min(found.parameter_count, found.context_length, found.embedding_length) >= 0

    def test_other_files(self, tmp_path: Path) -> None:
        """Files of other kinds are not claimed, and described with no other error than `BadModelFile`."""
        for name, content in {
            "empty": b"",
            "text.txt": b"Once upon a time",
            "page.html": b"<!doctype html><html></html>",
            "archive.zip": b"PK\x03\x04" + bytes(100),
            "noise.bin": random.Random(1).randbytes(5000),
            "zeros.bin": bytes(5000),
        }.items():
            path = tmp_path / name
            path.write_bytes(content)
            self._not_a_model(ModelFiles(weights=path))
            self._not_a_model(ModelFiles(weights=path, named={name: path}))
        self._not_a_model(ModelFiles(weights=tmp_path / "missing"))
        self._not_a_model(ModelFiles(weights=tmp_path))
        pipe = tmp_path / "pipe"
        os.mkfifo(pipe)
        self._not_a_model(ModelFiles(weights=pipe))

    def _not_a_model(self, files: ModelFiles) -> None:
        assert Deadline("claims").call(self.format().claims, files) is False, f"claims {files.weights.name}"
        with pytest.raises((BadModelFile, OSError)):
            self._describe(files)

    def test_damaged_files(self, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        """A file that is cut short or lies about anything is described or refused in bounded time, never believed."""
        files = self.sample(tmp_path_factory)
        for number, damaged in enumerate(self._damaged(files, tmp_path)):
            assert self.format().claims(damaged) in (True, False)
            try:
                self._describe(damaged)
            except BadModelFile as exc:
                assert exc.message
            except Exception as exc:
                raise AssertionError(f"damage {number}: {type(exc).__name__}: {exc}") from exc

    def _damaged(self, files: ModelFiles, folder: Path) -> Iterator[ModelFiles]:
        """The model with one of its files cut short or changed."""
        choose = random.Random(1)
        for path in dict.fromkeys((files.weights, *files.named.values())):
            data = path.read_bytes()
            contents = [data[:size] for size in (0, 1, 4, 8, 20, 100, len(data) // 2, len(data) - 1)]
            for _ in range(DAMAGES):
                place, width = choose.randrange(min(len(data), HEAD)), choose.choice((1, 2, 4, 8))
                value = choose.choice((b"\xff", b"\x00", b"\x7f", choose.randbytes(1)))
                contents.append(data[:place] + value * width + data[place + width :])
            for number, content in enumerate(contents):
                # Each in a folder of its own: descriptions may be remembered by a file's path.
                target = folder / f"{path.name}-{number}" / path.name
                target.parent.mkdir()
                target.write_bytes(content)
                yield ModelFiles(
                    weights=target if path == files.weights else files.weights,
                    named={name: target if other == path else other for name, other in files.named.items()},
                )

    def test_truncated_header(self, tmp_path: Path, tmp_path_factory: pytest.TempPathFactory) -> None:
        """Weights of which only the first bytes are there are refused."""
        files = self.sample(tmp_path_factory)
        data = files.weights.read_bytes()
        for size in (0, 1, 8, 16):
            target = tmp_path / str(size) / files.weights.name
            target.parent.mkdir()
            target.write_bytes(data[:size])
            named = {name: target if path == files.weights else path for name, path in files.named.items()}
            with pytest.raises(BadModelFile):
                self._describe(ModelFiles(weights=target, named=named))

"""A plugin whose converter behaves as a file says: for jobs in processes of their own."""

from __future__ import annotations

import logging
import os
import sys
import time
from collections.abc import Callable
from pathlib import Path

import msgspec

from corectl import hookimpl
from corectl.errors import BadModelFile, NotSupported, OutOfMemory
from corectl.model.conversion import Converter
from corectl.model.files import ModelFiles

corectl_api = 1

ERRORS = {kind.code: kind for kind in (BadModelFile, NotSupported, OutOfMemory)}


class Told(msgspec.Struct):
    """What the converter is to do, in this order."""

    prints: str = ""
    complains: str = ""
    warns: list[str] = []
    steps: int = 0
    error: str = ""
    kills: int = 0
    raises: bool = False
    hangs: bool = False
    full: bool = False
    files: dict[str, str] = {}


class Obedient:
    """Writes its process id to `pid` beside the file that tells it what to do."""

    name = "obedient"
    source = "told"
    target = "done"

    def why_not(self, files: ModelFiles) -> str:
        return ""

    def convert(self, files: ModelFiles, folder: Path, done: Callable[[int, int], None]) -> None:
        told = msgspec.json.decode(files.weights.read_bytes(), type=Told)
        files.weights.with_name("pid").write_text(str(os.getpid()))
        sys.stdout.write(told.prints)
        sys.stdout.flush()
        sys.stderr.write(told.complains)
        sys.stderr.flush()
        for text in told.warns:
            logging.getLogger(__name__).warning("%s", text)
            logging.getLogger("library").warning("%s", text)
        for step in range(1, told.steps + 1):
            done(step, told.steps)
        if told.error:
            raise ERRORS[told.error]("as told")
        if told.raises:
            raise ValueError("not as told")
        if told.full:
            raise OSError(28, "No space left on device", str(folder))
        if told.kills:
            os.kill(os.getpid(), told.kills)
        while told.hangs:
            time.sleep(0.1)
        for name, text in told.files.items():
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            place.write_text(text)

    def convert_adapter(
        self, adapter: ModelFiles, base: ModelFiles, folder: Path, done: Callable[[int, int], None]
    ) -> None:
        (folder / "adapter").write_bytes(adapter.weights.read_bytes() + base.weights.read_bytes())


@hookimpl
def corectl_converters() -> list[Converter]:
    return [Obedient()]

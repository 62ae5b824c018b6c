"""What a job is told on its standard input, and the lines that it writes: one object of JSON on each."""

from __future__ import annotations

from pathlib import Path

import msgspec

from corectl.messages import Notice
from corectl.model.files import ModelFiles


class Conversion(msgspec.Struct, frozen=True, kw_only=True, tag="convert"):
    """Makes a model of another format. `plugin` offers `converter`; `folder` is empty, and for the result."""

    plugin: str
    converter: str
    files: ModelFiles
    folder: Path

    verb = "converts"


class AdapterConversion(msgspec.Struct, frozen=True, kw_only=True, tag="convert_adapter"):
    """The same for an adapter; `base` is the model that it is for."""

    plugin: str
    converter: str
    adapter: ModelFiles
    base: ModelFiles
    folder: Path

    verb = "converts the adapter"


class Quantization(msgspec.Struct, frozen=True, kw_only=True, tag="quantize"):
    """Makes a model's weights smaller. `target` is one of the `quantizations` of the backend."""

    plugin: str
    backend: str
    files: ModelFiles
    target: str
    folder: Path

    verb = "quantises"


Job = Conversion | AdapterConversion | Quantization


class Step(msgspec.Struct, frozen=True, tag="step"):
    """How many bytes of how many are done."""

    completed: int
    total: int


class MadeFile(msgspec.Struct, frozen=True):
    """A file of the result: its name in the job's folder, its digest (`sha256:<hex>`), and its size in bytes."""

    name: str
    digest: str
    size: int


class Made(msgspec.Struct, frozen=True, tag="made"):
    """The end of a job: all files, which are on the disk, and what went another way than one may think."""

    files: tuple[MadeFile, ...]
    notices: tuple[Notice, ...] = ()


class Failed(msgspec.Struct, frozen=True, tag="failed"):
    """The end of a job that could not be done; `code` is one of `corectl.errors`."""

    code: str
    message: str


Event = Step | Made | Failed


def encode(message: Job | Event) -> bytes:
    """One line."""
    return msgspec.json.encode(message, enc_hook=str) + b"\n"


def _decode_path(kind: type, text: object) -> object:
    return kind(text)


decode_job = msgspec.json.Decoder(Job, dec_hook=_decode_path).decode
decode_event = msgspec.json.Decoder(Event).decode

"""GGUF models that are split into several files: which parts belong together, and the header of the whole."""

from __future__ import annotations

import re
from collections import Counter
from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

import msgspec

from corectl.errors import BadModelFile
from corectl.model.files import ModelFiles
from corectl.model.gguf import Header, header_of

SUFFIX = ".gguf"
MOST_PARTS = 1024

_PART = re.compile(r"(.+)-(\d{5})-of-(\d{5})\.gguf")


def split_name(name: str) -> tuple[str, int, int] | None:
    """The common part, the number (from 1) and the count in a name such as `model-00002-of-00003.gguf`."""
    found = _PART.fullmatch(name)
    return (found[1], int(found[2]), int(found[3])) if found else None


def part_name(stem: str, number: int, count: int) -> str:
    """The name of one part, as programs that look for the others want it; `number` counts from 1."""
    return f"{stem}-{number:05d}-of-{count:05d}{SUFFIX}"


def is_part(header: Header) -> bool:
    """Whether the file is one of several."""
    return header.metadata.get("split.count", 1) not in (0, 1)


def parts_of(files: ModelFiles) -> tuple[Path, ...]:
    """All files of a GGUF model, in their order: the store has them by names that say it."""
    names = sorted(name for name in files.named if name.endswith(SUFFIX))
    return tuple(files.named[name] for name in names) if len(names) > 1 else (files.weights,)


def whole_header(files: ModelFiles) -> Header:
    """The header of a model of one file or several. Raises `BadModelFile` and `OSError`."""
    return joined([header_of(path) for path in parts_of(files)])


def joined(headers: Sequence[Header]) -> Header:
    """The header of the first part, with the tensors of all. Offsets are those inside each part."""
    first, *others = headers
    if not others:
        return first
    return msgspec.structs.replace(
        first,
        tensors=tuple(tensor for header in headers for tensor in header.tensors),
        file_size=sum(header.file_size for header in headers),
        parameter_count=sum(header.parameter_count for header in headers),
    )


def ordered(headers: Mapping[str, Header]) -> list[str]:
    """The names of the parts in their order. Raises `BadModelFile` unless each part is here once, and they fit.

    Names say nothing; the files do.
    """
    counts = {_number(name, header, "split.count") for name, header in headers.items()}
    if len(counts) > 1:
        raise BadModelFile(f"the files are parts of different models: of {_listed(counts)} files each")
    count = counts.pop()
    if count > MOST_PARTS:
        raise BadModelFile(f"the model is split into {count} files, at most {MOST_PARTS} are allowed")
    numbers = {name: _number(name, header, "split.no") for name, header in headers.items()}
    beyond = [number + 1 for number in numbers.values() if number >= count]
    if beyond:
        raise BadModelFile(f"the model is split into {count} files, but one of them is number {max(beyond)}")
    missing = set(range(count)) - set(numbers.values())
    if missing:
        raise BadModelFile(
            f"the model is split into {count} files, and not all of them are here: "
            f"missing {_listed(number + 1 for number in missing)}"
        )
    if len(numbers) > count:
        twice = [number + 1 for number, times in Counter(numbers.values()).items() if times > 1]
        raise BadModelFile(
            f"the model is split into {count} files, and some are here twice: {_listed(twice)}"
        )
    names = sorted(numbers, key=numbers.__getitem__)
    _check_tensors([headers[name] for name in names])
    return names


def _check_tensors(headers: Sequence[Header]) -> None:
    tensors = [tensor.name for header in headers for tensor in header.tensors]
    promised = headers[0].metadata.get("split.tensors.count", len(tensors))
    if promised != len(tensors):
        raise BadModelFile(f"the parts of the model hold {len(tensors)} tensors, not {promised} as they say")
    if len(set(tensors)) < len(tensors):
        raise BadModelFile("the parts of the model hold a tensor twice")


def _number(name: str, header: Header, key: str) -> int:
    value = header.metadata.get(key)
    if type(value) is not int or value < 0:
        raise BadModelFile(f"{name} does not say which part of a model it is: {key} is {value!r}")
    return value


def _listed(numbers: Iterable[int]) -> str:
    return ", ".join(map(str, sorted(numbers)))

"""The GGUF files of a repository: which of them are one model, what it is called, and which one a tag means.

Nothing but the names of the files is known here. By convention they say how the weights are quantised, and so do the
folders around them; large models are split, and `<name>-00001-of-00003.gguf` is the first of three shards.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from pathlib import PurePosixPath

import msgspec

from corectl.errors import NotFound

SUFFIX = ".gguf"

_SHARD = re.compile(r"(?P<stem>.+)-(?P<number>\d{5})-of-(?P<count>\d{5})")
_QUANT = re.compile(
    r"(?<![A-Z0-9])"
    r"((?:UD-)?(?:I?Q\d_[0-9A-Z]+(?:_(?:XXS|XS|S|M|L|XL|XXL|[48]_[48]))?|TQ[12]_0|(?:BF|FP?)(?:16|32)"
    r"|MXFP4(?:_MOE)?|NVFP4))"
    r"(?![A-Z0-9])",
    re.IGNORECASE,
)
_DEFAULTS = (
    *(
        "Q4_K_M",
        "Q4_K_XL",
        "Q4_K_L",
        "Q4_K_S",
        "Q4_K",
        "IQ4_NL",
        "IQ4_XS",
        "Q4_1",
        "Q4_0",
        "MXFP4",
        "MXFP4_MOE",
    ),
    *("NVFP4", "Q5_K_M", "Q5_K_XL", "Q5_K_L", "Q5_K_S", "Q5_K", "Q5_1", "Q5_0", "Q6_K", "Q6_K_XL", "Q6_K_L"),
    *("Q8_0", "Q8_K_XL", "Q3_K_L", "Q3_K_XL", "Q3_K_M", "Q3_K_S", "IQ3_M", "IQ3_S", "BF16", "F16", "F32"),
)
"""What the tag `latest` means, best first: 4 bits, then a little more, then a little less, then no quantisation."""
_PROJECTORS = ("F16", "BF16", "F32", "Q8_0")
_LISTED = 40
"""Labels that an error names."""


class Variant(msgspec.Struct, frozen=True):
    """One model among the GGUF files of a repository.

    `label` is what a tag calls it: its quantisation in upper case or, where that is not known or taken by another
    one, the name of its file. `files` are the paths of its shards in their order; mostly there is just one.
    """

    label: str
    files: tuple[str, ...]
    quant: str = ""


def variants(paths: Iterable[str]) -> list[Variant]:
    """The models that are complete; files closer to the top come first. No two have the same label."""
    found: dict[str, Variant] = {}
    for files in _together(path for path in paths if _is_weights(path)):
        name = _stem(files[0])
        quant = quant_of(files[0])
        for label in (quant, name):
            if label and label.casefold() not in found:
                found[label.casefold()] = Variant(label, files, quant)
                break
    return list(found.values())


def choose(offered: Sequence[Variant], tag: str) -> Variant:
    """The model that a tag means, whatever its case: a label, or the name of a file.

    For `latest` it is the best by default. Raises `NotFound`, which names all there are.
    """
    wanted = tag.casefold()
    if wanted == "latest":
        ranks = {quant: rank for rank, quant in enumerate(_DEFAULTS)}
        return min(offered, key=lambda variant: ranks.get(_plain(variant.quant), len(ranks)))
    for fits in (_is_called, _is_file, _is_plainly):
        for variant in offered:
            if fits(variant, wanted):
                return variant
    labels = [variant.label for variant in offered]
    more = f" and {len(labels) - _LISTED} more" if len(labels) > _LISTED else ""
    raise NotFound(f'the repository has no quantization "{tag}"; it has {", ".join(labels[:_LISTED])}{more}')


def projector(paths: Iterable[str]) -> str | None:
    """The file that makes images into vectors, the one of 16 bits first; None if there is none."""
    found = sorted((path for path in paths if _is_gguf(path) and "mmproj" in _name(path)), key=_order)
    ranks = {quant: rank for rank, quant in enumerate(_PROJECTORS)}
    return min(found, key=lambda path: ranks.get(_plain(quant_of(path)), len(ranks)), default=None)


def quant_of(path: str) -> str:
    """What the name of a file, or else that of its folder, says of its weights, in upper case; or an empty text."""
    for text in (_stem(path), PurePosixPath(path).parent.name):
        if found := _QUANT.findall(text):
            return str(found[-1]).upper()
    return ""


def shard(stem: str) -> tuple[str, int, int] | None:
    """The name that shards of one file share, the number of this one (from 1) and their count; None if it is none."""
    found = _SHARD.fullmatch(stem)
    return (found["stem"], int(found["number"]), int(found["count"])) if found else None


def _together(paths: Iterable[str]) -> list[tuple[str, ...]]:
    """Shards that belong together, in their order, and files that stand alone. Incomplete sets are left out."""
    sets: dict[tuple[str, int], dict[int, str]] = {}
    for path in sorted(paths, key=_order):
        stem, number, count = shard(path[: -len(SUFFIX)]) or (path, 1, 1)
        sets.setdefault((stem, count), {})[number] = path
    return [
        tuple(path for _, path in sorted(shards.items()))
        for (_, count), shards in sets.items()
        if len(shards) == count and min(shards) == 1 and max(shards) == count
    ]


def _is_gguf(path: str) -> bool:
    return path.endswith(SUFFIX)


def _is_weights(path: str) -> bool:
    return _is_gguf(path) and not any(word in _name(path) for word in ("mmproj", "imatrix"))


def _name(path: str) -> str:
    return PurePosixPath(path).name.lower()


def _stem(path: str) -> str:
    """The name of a file without its suffix and the number of its shard."""
    stem = PurePosixPath(path).name[: -len(SUFFIX)]
    return (shard(stem) or (stem,))[0]


def _order(path: str) -> tuple[int, str]:
    return path.count("/"), path


def _plain(quant: str) -> str:
    """One spelling for what is the same."""
    return quant.removeprefix("UD-").replace("FP16", "F16").replace("FP32", "F32")


def _is_called(variant: Variant, wanted: str) -> bool:
    return variant.label.casefold() == wanted


def _is_file(variant: Variant, wanted: str) -> bool:
    name = PurePosixPath(variant.files[0]).name.casefold()
    return wanted in (name, name.removesuffix(SUFFIX), _stem(name))


def _is_plainly(variant: Variant, wanted: str) -> bool:
    return bool(variant.quant) and _plain(variant.quant) == _plain(wanted.upper())

"""What becomes of a model's files: kept in their format, or converted to another one. An explicit rule.

The format that a backend loads decides, if somebody has named that backend; else a kind of quantisation that only one
way knows. Otherwise files are kept where they can be computed with on an accelerator. They are converted where that
cannot be, because the backends of formats that are made for it compute faster on processors.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence

import msgspec

from corectl.errors import BadRequest, NotSupported


class Way(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that can become of the files.

    `format` is what the model is then in, `converter` the name of what makes it so (empty: the files are kept).
    `backends` are all that load the format; `problem` says why it cannot be done or used here, and is empty if it can.
    `accelerated` says that what is best for it computes on an accelerator. `quantizations` are what its backends know.
    """

    format: str
    converter: str = ""
    backends: tuple[str, ...] = ()
    problem: str = ""
    accelerated: bool = False
    quantizations: tuple[str, ...] = ()


def choose_way(ways: Sequence[Way], *, backend: str = "", target: str = "") -> Way:
    """The way for a model; `ways` begins with that of keeping the files.

    `backend` is the one that somebody has named, `target` the kind of quantisation that was asked for. Raises
    `NotSupported` with the reason, and `BadRequest` for a target that no way knows.
    """
    if backend:
        ways = [way for way in ways if backend in way.backends] or ways
    usable = [way for way in ways if not way.problem]
    if not usable:
        raise NotSupported(_problem(ways))
    if target:
        usable = [way for way in usable if meant(target, way.quantizations)] or _refuse(target, usable)
    kept = [way for way in usable if not way.converter]
    converted = [way for way in usable if way.converter]
    faster = [way for way in kept if way.accelerated]
    return (faster or converted or kept)[0]


def _problem(ways: Sequence[Way]) -> str:
    """Why none of them can be gone: the reason of a converter, which is about this very model, comes first."""
    ordered = sorted(ways, key=lambda way: not way.converter)
    return "; ".join(dict.fromkeys(way.problem for way in ordered))


def _refuse(target: str, ways: Iterable[Way]) -> list[Way]:
    raise unknown_kind(target, [name for way in ways for name in way.quantizations])


def meant(target: str, names: Iterable[str]) -> str:
    """The one of `names` that `target` means, in any mix of upper and lower case; empty if it means none.

    What comes in several sizes may be asked for without one, and the middle is meant: Q4_K is Q4_K_M.
    """
    known = {name.lower(): name for name in names}
    return known.get(target.lower()) or known.get(f"{target.lower()}_m", "")


def unknown_kind(target: str, names: Iterable[str]) -> BadRequest:
    """The error for a kind of quantisation that is none of `names`."""
    known = ", ".join(dict.fromkeys(names))
    return BadRequest(f"unsupported quantization type {target[:32].upper()} - supported types are {known}")

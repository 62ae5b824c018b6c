"""Go's `Sprintf`, for the verbs that templates use."""

from __future__ import annotations

import json
import re
from typing import Any

from corectl.prompt.gotemplate.values import MAX_OUTPUT, Fault, kind, show

_VERB = re.compile(
    r"%(?P<flags>[-+# 0]*)(?P<width>\*|\d*)(?:\.(?P<precision>\*|\d*))?(?P<verb>.)?", re.DOTALL
)
# Templates count by the length of a text that is padded to the number of a message.
_MAX_WIDTH = 100_000
# The kinds that a verb takes; it prints a value of another kind as a complaint.
_TAKES = {
    "s": ("string", "nil", "slice", "map", "struct"),
    "q": ("string", "nil", "slice", "map", "struct", "int"),
    "d": ("int",),
    "x": ("int", "string"),
    "X": ("int", "string"),
    "c": ("int",),
    "t": ("bool",),
    "e": ("float64",),
    "f": ("float64",),
    "g": ("float64",),
}


def sprintf(template: Any, *arguments: Any) -> str:
    """The text of a format string with its verbs filled in."""
    if not isinstance(template, str):
        raise Fault(f"error calling printf: wrong type for value; expected string; got {kind(template)}")
    values = list(arguments)
    made = 0

    def fill(match: re.Match[str]) -> str:
        nonlocal made
        verb = match["verb"]
        if verb is None:
            return "%!(NOVERB)"
        if verb == "%":
            return "%"
        width = _size(match["width"], values)
        precision = None if match["precision"] is None else abs(_size(match["precision"], values))
        if not values:
            return f"%!{verb}(MISSING)"
        text = _pad(match, width, _verb(match, precision, values.pop(0)))
        # A format of few characters can ask for gigabytes of blanks.
        made += len(text)
        if made > MAX_OUTPUT:
            raise Fault("the template makes too much text")
        return text

    text = _VERB.sub(fill, template)
    if values:
        text += "%!(EXTRA " + ", ".join(f"{kind(value)}={show(value)}" for value in values) + ")"
    return text


def _size(written: str, values: list[Any]) -> int:
    """A width or precision: digits, nothing, or `*` for the next value."""
    if written == "*":
        size: Any = values.pop(0) if values else None
        if kind(size) != "int":
            raise Fault("error calling printf: a width is no number")
    else:
        size = int(written[:10] or 0)
    if abs(size) > _MAX_WIDTH:
        raise Fault("error calling printf: a width is too large")
    return int(size)


def _verb(match: re.Match[str], precision: int | None, value: Any) -> str:
    verb = match["verb"]
    if verb != "v" and kind(value) not in _TAKES.get(verb, ()):
        return f"%!{verb}({kind(value)}={show(value)})"
    plus = "+" if "+" in match["flags"] else ""
    match verb:
        case "q":
            return f"'{chr(value)}'" if kind(value) == "int" else json.dumps(show(value), ensure_ascii=False)
        case "d":
            return f"{value:{plus}d}"
        case "x" | "X":
            text = f"{value:x}" if isinstance(value, int) else value.encode().hex()
            return text.upper() if verb == "X" else text
        case "c":
            return chr(value) if 0 <= value <= 0x10FFFF else "\ufffd"
        case "e" | "f":
            return f"{value:{plus}.{6 if precision is None else precision}{verb}}"
        case "s" if precision is not None:
            return show(value)[:precision]
        case "g" if precision is not None:
            return f"{value:{plus}.{precision}g}"
        case _:
            return show(value)


def _pad(match: re.Match[str], width: int, text: str) -> str:
    if "-" in match["flags"] or width < 0:
        return text.ljust(abs(width))
    return text.zfill(width) if "0" in match["flags"] and match["verb"] in "dfegxX" else text.rjust(width)

"""Values of a JSON object that somebody else has written: each is checked, and an error names file and field."""

from __future__ import annotations

import math
from collections.abc import Mapping
from typing import Any

from corectl.errors import BadModelFile

MOST = 1 << 24
"""Above what any model has of anything that is counted, and small enough to multiply."""


class Fields:
    """An object of a file. What is absent or null has the default, or is an error where there is none."""

    def __init__(self, file: str, values: Mapping[str, Any], path: str = "") -> None:
        self.file = file
        self._values = values
        self._path = path

    def bad(self, key: str, what: str) -> BadModelFile:
        """The error for a field."""
        return BadModelFile(f"{self.file}: {self._path}{key} {what}")

    def has(self, key: str) -> bool:
        return self._values.get(key) is not None

    def says_null(self, key: str) -> bool:
        """Whether null is there. In configurations it often says that there is none of something."""
        return key in self._values and self._values[key] is None

    def names(self) -> list[str]:
        return list(self._values)

    def get(self, key: str) -> Any:
        """The value as it is, or None."""
        return self._values.get(key)

    def whole(self, key: str, default: int | None = None, *, least: int = 1, most: int = MOST) -> int:
        value = self._value(key, default)
        if type(value) is not int or not least <= value <= most:
            raise self.bad(key, f"is {value!r:.80}, not a whole number from {least} to {most}")
        return value

    def real(
        self, key: str, default: float | None = None, *, least: float = 0.0, most: float = 1e12
    ) -> float:
        value = self._value(key, default)
        if type(value) not in (int, float) or not math.isfinite(value) or not least <= value <= most:
            raise self.bad(key, f"is {value!r:.80}, not a number from {least:g} to {most:g}")
        return float(value)

    def text(self, key: str, default: str | None = None) -> str:
        value = self._value(key, default)
        if not isinstance(value, str):
            raise self.bad(key, f"is {value!r:.80}, not a text")
        return value

    def flag(self, key: str, default: bool | None = None) -> bool:
        value = self._value(key, default)
        if not isinstance(value, bool):
            raise self.bad(key, f"is {value!r:.80}, not true or false")
        return value

    def section(self, key: str) -> Fields:
        """An object inside this one; an empty one where there is none."""
        value = self._value(key, {})
        if not isinstance(value, dict):
            raise self.bad(key, f"is {value!r:.80}, not an object")
        return Fields(self.file, value, f"{self._path}{key}.")

    def reals(self, key: str, count: int) -> list[float]:
        """A list of so many numbers above 0."""
        value = self._value(key, None)
        if not isinstance(value, list) or len(value) != count:
            raise self.bad(key, f"is not a list of {count} numbers")
        items = Fields(
            self.file, {str(index): item for index, item in enumerate(value)}, f"{self._path}{key}."
        )
        return [items.real(str(index), least=1e-9) for index in range(count)]

    def texts(self, key: str, most: int = 4096) -> list[str]:
        """A list of texts; empty where there is none."""
        value = self._value(key, [])
        if (
            not isinstance(value, list)
            or len(value) > most
            or not all(isinstance(item, str) for item in value)
        ):
            raise self.bad(key, f"is not a list of at most {most} texts")
        return value

    def over(self, other: Fields) -> Fields:
        """These fields, and those of another object that these do not have."""
        return Fields(self.file, {**other._values, **self._values}, self._path)

    def _value(self, key: str, default: Any) -> Any:
        value = self._values.get(key)
        if value is None:
            value = default
        if value is None:
            raise self.bad(key, "is missing")
        return value

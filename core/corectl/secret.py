"""A text that must not be seen: it is shown as three asterisks wherever it is printed."""

from __future__ import annotations


class Secret:
    """An API key. Only `reveal` gives it away; empty is false."""

    __slots__ = ("_value",)

    def __init__(self, value: str = "") -> None:
        self._value = value

    def reveal(self) -> str:
        """The text itself: for the one place that sends it."""
        return self._value

    def removed_from(self, text: str) -> str:
        """A text of somebody else's without the secret, should it be in there."""
        return text.replace(self._value, str(self)) if self._value else text

    def __bool__(self) -> bool:
        return bool(self._value)

    def __eq__(self, other: object) -> bool:
        return isinstance(other, Secret) and other._value == self._value

    def __hash__(self) -> int:
        return hash(self._value)

    def __repr__(self) -> str:
        return "***" if self._value else ""

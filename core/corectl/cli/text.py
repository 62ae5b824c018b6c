"""Text from terminals and command lines, whose bytes need not be UTF-8."""

from __future__ import annotations


def as_text(words: str) -> str:
    """The same as text that can be sent: what Python has kept of bytes that are no UTF-8 becomes U+FFFD."""
    return words.encode("utf-8", "surrogateescape").decode("utf-8", "replace")

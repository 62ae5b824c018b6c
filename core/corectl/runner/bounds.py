"""How much text one request may bring to be tokenised: that takes a second for each million characters or so."""

from __future__ import annotations

from collections.abc import Sequence

from corectl.errors import BadRequest

MAX_CHARACTERS = 4 * 2**20
"""Of all texts of a request together."""

MAX_TEXTS = 2**16

MAX_TOKENS = 2**20
"""In a request to turn tokens into text."""

MAX_PAIR_TOKENS = 4 * 2**20
"""In all pairs of a request to rank, before any is cut: no text has many more tokens than characters."""


def check_texts(field: str, texts: Sequence[str]) -> None:
    """Raises `BadRequest` that names the field."""
    if len(texts) > MAX_TEXTS:
        raise BadRequest(f"{field}: {len(texts)} texts in one request; at most {MAX_TEXTS} are taken")
    check_characters(field, sum(map(len, texts)))


def check_characters(field: str, count: int) -> None:
    """Raises `BadRequest` that names the field."""
    if count > MAX_CHARACTERS:
        raise BadRequest(f"{field}: {count} characters in one request; at most {MAX_CHARACTERS} are taken")


def check_pair_tokens(field: str, count: int) -> None:
    """Raises `BadRequest` that names the field."""
    if count > MAX_PAIR_TOKENS:
        raise BadRequest(f"{field}: {count} tokens in one request; at most {MAX_PAIR_TOKENS} are taken")

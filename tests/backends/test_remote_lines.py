"""Bodies into lines, however they are cut."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corectl.errors import RemoteError
from corectl_remote import lines as module
from corectl_remote.lines import Lines

WORDS = st.binary(min_size=1, max_size=12).map(lambda data: data.replace(b"\n", b"").strip()).filter(bool)


def cut(*parts: bytes) -> list[bytes]:
    found: list[bytes] = []
    lines = Lines("lab", found.append)
    for part in parts:
        lines.feed(part)
    lines.end()
    return found


@given(st.lists(WORDS), st.lists(st.integers(1, 9), min_size=1), st.sampled_from([b"\n", b"\r\n", b"\n\n"]))
def test_the_cuts_do_not_matter(words: list[bytes], sizes: list[int], end: bytes) -> None:
    body = end.join(words)
    parts: list[bytes] = []
    for number in range(len(body) + 1):
        size = sizes[number % len(sizes)]
        parts.append(body[:size])
        body = body[size:]
    assert cut(*parts) == words


def test_the_last_line_needs_no_end() -> None:
    assert cut(b"a\nb") == [b"a", b"b"]
    assert cut(b"\n\n \n") == []


@pytest.mark.parametrize("limit", ["MAX_LINE", "MAX_REPLY"])
def test_a_line_or_a_reply_that_does_not_end(monkeypatch: pytest.MonkeyPatch, limit: str) -> None:
    monkeypatch.setattr(module, limit, 100)
    end = b"\n" if limit == "MAX_REPLY" else b""
    with pytest.raises(RemoteError, match="does not end"):
        cut(*[b"x" * 9 + end] * 20)

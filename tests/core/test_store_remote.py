"""The addresses of models that run elsewhere."""

from __future__ import annotations

import pytest

from corectl.errors import BadRequest
from corectl.store.remote import remote_url


@pytest.mark.parametrize(
    ("text", "url"),
    [
        ("", "http://localhost:11434"),
        ("/foo/bar", "http://localhost:11434/foo/bar"),
        ("/foo/../bar", "http://localhost:11434/bar"),
        ("example.com", "http://example.com:11434"),
        ("example.com:8080", "http://example.com:8080"),
        ("http://example.com/", "http://example.com:11434"),
        ("https://example.com:8080/path/../other", "https://example.com:8080/other"),
        ("ollama.com", "https://ollama.com:443"),
        ("http://ollama.com", "https://ollama.com:443"),
        ("http://[::1]:8080", "http://[::1]:8080"),
    ],
)
def test_addresses_of_remote_models_are_completed(text: str, url: str) -> None:
    assert remote_url(text) == url
    assert remote_url(url) == url


@pytest.mark.parametrize(
    "text", ["http://[::1]:namedport", "ftp://x", "http://", "http://u:p@x", "http://x?y", "http://[z"]
)
def test_other_addresses_are_refused(text: str) -> None:
    with pytest.raises(BadRequest, match="bad remote"):
        remote_url(text)

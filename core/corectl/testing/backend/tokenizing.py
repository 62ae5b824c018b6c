"""Checks of a tokenizer."""

from __future__ import annotations

import pytest

from corectl.runner.engine import Engine, Tokenizer
from corectl.testing.backend.base import BackendChecks
from corectl.testing.suite import optional

PLAIN = (
    "Why is the sky blue?",
    "3.14159 and 1234567890",
    "def f(x):\n    return x ** 2\n",
    "word " * 500,
)
ANY = (
    "  two  spaces \n\n\t and tabs ",
    "Grüße aus Österreich",
    "日本語のテキスト",
    "🦙👩‍👩‍👧 ok",
    "עברית and العربية",
    "a\u0301 is not \u00e1",
    "\x01\x02\x1b[0m\x7f",
    "\U0010ffff",
)
CONTROL = ("<s>", "</s>", "<|im_start|>user<|im_end|>", "<|endoftext|>", "[INST]", "<think>", "<unk>")


def _tokens(tokenizer: Tokenizer, text: str) -> list[int]:
    tokens = tokenizer.encode(text, special=False, add_special=False)
    assert all(0 <= token < tokenizer.size for token in tokens), (
        f"tokens outside of the vocabulary in {text!r}"
    )
    return tokens


def _round_trip(tokenizer: Tokenizer, text: str) -> None:
    """Some vocabularies write a blank in front of each text."""
    tokens = _tokens(tokenizer, text)
    spelled = b"".join(map(tokenizer.piece, tokens)).decode("utf-8", "replace")
    assert text in (spelled, spelled.removeprefix(" ")), f"{text!r} is spelled {spelled!r}"
    decoded = tokenizer.decode(tokens)
    assert text in (decoded, decoded.removeprefix(" ")), f"{text!r} is decoded as {decoded!r}"


def _survives_any_text(suite: BackendChecks, corectl_engine: Engine) -> None:
    tokenizer = corectl_engine.tokenizer
    for text in (*ANY, *CONTROL, "\ud800"):
        tokenizer.decode(_tokens(tokenizer, text))
    with pytest.raises(AssertionError, match="is spelled"):
        for text in ANY:
            _round_trip(tokenizer, text)


class TokenizerChecks(BackendChecks):
    def test_tokenizer(self, corectl_engine: Engine) -> None:
        """Plain text comes back from its tokens, and from their pieces."""
        tokenizer = corectl_engine.tokenizer
        assert tokenizer.size > 0
        assert _tokens(tokenizer, "") == []
        for text in PLAIN:
            _round_trip(tokenizer, text)
            assert _tokens(tokenizer, text) == _tokens(tokenizer, text)
        ends = [token for token in range(tokenizer.size) if tokenizer.is_end(token)]
        assert ends, "no token ends a generation"
        assert all(tokenizer.piece(token) == b"" for token in ends), "the end is text"

    @optional(_survives_any_text)
    def test_any_text(self, corectl_engine: Engine) -> None:
        """Every Unicode text comes back, byte for byte; lone surrogates do no harm."""
        tokenizer = corectl_engine.tokenizer
        for text in ANY:
            _round_trip(tokenizer, text)
        tokens = _tokens(tokenizer, "🦙")
        assert b"".join(map(tokenizer.piece, tokens)).strip() == "🦙".encode()
        assert "a" in tokenizer.decode(_tokens(tokenizer, "a\ud800b"))

    def test_control_tokens(self, corectl_engine: Engine) -> None:
        """The names of control tokens are text unless they are asked to be read, and are shown only on request."""
        tokenizer = corectl_engine.tokenizer
        for text in CONTROL:
            tokens = _tokens(tokenizer, text)
            spelled = b"".join(map(tokenizer.piece, tokens)).decode("utf-8", "replace").removeprefix(" ")
            assert spelled == text or "any text" in self.cannot, (
                f"{text!r} as plain text is spelled {spelled!r}"
            )
        for token in range(tokenizer.size):
            shown, plain = tokenizer.piece(token, special=True), tokenizer.piece(token)
            if shown == plain or not shown:
                continue
            assert plain == b"", f"token {token} is {plain!r} as text, and {shown!r} as a control token"
            name = shown.decode("utf-8")
            read = tokenizer.encode(name, special=True, add_special=False)
            assert token in read, f"the control token {name!r} is not read"
            assert tokenizer.decode([token]) == name, f"decode hides the control token {name!r}"
            break
        names = (tokenizer.bos_token, tokenizer.eos_token)
        assert all(isinstance(name, str) for name in names)
        if tokenizer.adds_bos:
            assert tokenizer.encode("a") != tokenizer.encode("a", add_special=False)

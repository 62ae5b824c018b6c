"""What the tests of constraints share: small vocabularies, and a model that writes what the test says."""

from __future__ import annotations

import random
from collections.abc import Sequence

import numpy as np

from corectl.constrain.build import build_constraint
from corectl.messages import Grammar, ToolChoice
from corectl.output.dialect import OutputShape, Tags
from corectl.runner.engine import Constraint

END, FIRST = 0, 1


class KitTokenizer:
    """An end token, a token per byte, `words`, and `controls`, which are control tokens with these names."""

    bos_token, eos_token, adds_bos = "", "<end>", False

    def __init__(self, words: Sequence[str] = (), controls: Sequence[str] = ()) -> None:
        self._pieces = [b"", *(bytes([byte]) for byte in range(256)), *(word.encode() for word in words)]
        self._pieces += [b""] * len(controls)
        self._names = {END: b"<end>"}
        self._names |= {
            len(self._pieces) - len(controls) + i: name.encode() for i, name in enumerate(controls)
        }
        self.size = len(self._pieces)

    def encode(self, text: str, *, special: bool = True, add_special: bool = True) -> list[int]:
        return self.spell(text.encode())

    def decode(self, tokens: Sequence[int]) -> str:
        return b"".join(self.piece(token, special=True) for token in tokens).decode("utf-8", "replace")

    def spell(self, text: bytes) -> list[int]:
        """The longest token that fits, again and again."""
        found = []
        while text:
            fitting = [
                token
                for token in range(self.size)
                if self._text(token) and text.startswith(self._text(token))
            ]
            found.append(max(fitting, key=lambda token: len(self._text(token))))
            text = text[len(self._text(found[-1])) :]
        return found

    def piece(self, token: int, *, special: bool = False) -> bytes:
        return self._pieces[token] or (self._names.get(token, b"") if special else b"")

    def _text(self, token: int) -> bytes:
        return self.piece(token, special=True)

    def is_end(self, token: int) -> bool:
        return token == END


class Writer:
    """A model under a constraint, which writes what it is told to, as long as that is allowed."""

    def __init__(self, tokenizer: KitTokenizer, constraint: Constraint | None) -> None:
        self._tokenizer = tokenizer
        self.constraint = constraint
        self.text = b""

    def allowed(self, liked: str = "") -> set[int]:
        """The tokens that may come next, to a model that likes the first token of `liked` best."""
        logits = np.zeros(self._tokenizer.size, np.float32)
        if liked:
            logits[self._tokenizer.spell(liked.encode())[0]] = 1
        if self.constraint is not None:
            self.constraint.mask(logits)
        return set(np.flatnonzero(np.isfinite(logits)).tolist())

    def take(self, token: int) -> bool:
        """Draws a token, if it is allowed."""
        if token not in self.allowed():
            return False
        if self.constraint is not None:
            self.constraint.accept(token)
        self.text += self._tokenizer.piece(token, special=True)
        return True

    def write(self, text: str | Sequence[str]) -> None:
        """Writes a text, or pieces that are a token each."""
        pieces = [text] if isinstance(text, str) else text
        for piece in pieces:
            tokens = self._tokenizer.spell(piece.encode())
            assert isinstance(text, str) or len(tokens) == 1, f"{piece!r} is no token"
            for token in tokens:
                name = self._tokenizer.piece(token, special=True)
                assert self.take(token), f"{name!r} is refused after {self.text!r}"

    def may_write(self, text: str) -> bool:
        """True if the first token of a text may come next."""
        return self._tokenizer.spell(text.encode())[0] in self.allowed()

    def may_end(self) -> bool:
        return END in self.allowed()

    def must_end(self) -> bool:
        """True if the output is complete."""
        return self.allowed() == {END}


def constrain(
    shape: OutputShape,
    tokenizer: KitTokenizer,
    *,
    grammar: Grammar | None = None,
    choice: ToolChoice | None = None,
    think_budget: int = -1,
) -> Writer:
    """A model that has yet to write, under the constraint for a request."""
    constraint = build_constraint(
        shape, tokenizer, grammar=grammar, choice=choice or ToolChoice(), think_budget=think_budget
    )
    return Writer(tokenizer, constraint)


def walk(writer: Writer, seed: int, longest: int = 2000) -> str:
    """A random output that the constraint allows, to its end. After a while it makes for the end."""
    choose = random.Random(seed)
    for step in range(longest):
        hurry = step > longest // 8
        allowed = writer.allowed()
        if END in allowed and (len(allowed) == 1 or hurry or choose.random() < 0.3):
            return writer.text.decode()
        printable = sorted(token for token in allowed if 32 <= token - FIRST < 127) or sorted(allowed - {END})
        closing = [token for char in b'"}]' if (token := FIRST + char) in allowed]
        token = (
            closing[0] if closing and choose.random() < (0.8 if hurry else 0.2) else choose.choice(printable)
        )
        assert writer.take(token)
    raise AssertionError(f"no end after {longest} tokens: {writer.text[:500]!r}")


# Shapes of outputs, and vocabularies that have their tags as text, or as control tokens.

THINK = Tags("<think>", "</think>")
JSON = Grammar(kind="json")
REQUIRED = ToolChoice(mode="required")
ONE_CALL = ToolChoice(parallel=False)
WORDS = (
    *(
        "<think>",
        "</think>",
        "</",
        "think",
        ">\n",
        ">\n\n",
        ">no",
        "\n\n",
        '{"',
        '{"a',
        "<tool_call>",
        "call>{",
    ),
    *("call>\n", "call>x", '"}', "ü", '["'),
)
PLAIN = KitTokenizer(WORDS)
SPECIAL = KitTokenizer(
    ("\n\n", '{"'), ("<think>", "</think>", "<tool_call>", "</tool_call>", "<|channel|>", "<|message|>")
)
CALL = 'call: "{\\"city\\": " %json {"type": "string", "maxLength": 8} "}"\n'
TOOLS = OutputShape(
    call_openers=("<tool_call>",),
    calls=f'calls: one (WS one)*\none: "<tool_call>" WS call WS "</tool_call>"\nWS: /\\n?/\n{CALL}',
    markers=("<tool_call>", "</tool_call>"),
)
BARE_TOOLS = OutputShape(first_openers=("{",), calls=f'calls: call (";" call)*\n{CALL}')
PARIS = '<tool_call>\n{"city": "Paris"}\n</tool_call>'


def with_thought(shape: OutputShape = TOOLS, *, begun: bool = False) -> OutputShape:
    fields = {name: getattr(shape, name) for name in shape.__struct_fields__}
    markers = (*shape.markers, THINK.open, THINK.close)
    return OutputShape(**{**fields, "thought": THINK, "in_thought": begun, "markers": markers})


def codes(writer: Writer) -> list[str]:
    assert writer.constraint is not None
    return [notice.code for notice in writer.constraint.notices]

"""The conformance suite for dialects."""

from __future__ import annotations

import random
from collections.abc import Sequence
from typing import Any

from corectl.messages import Template, Tool
from corectl.output.dialect import Dialect, OutputRequest, OutputShape
from corectl.testing.outputs import CallGrammar, Output, read
from corectl.testing.suite import Suite, optional


def _tool(name: str, properties: dict[str, Any], required: Sequence[str] = ()) -> Tool:
    parameters = {
        "type": "object",
        "properties": properties,
        "required": list(required),
        "additionalProperties": False,
    }
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}


WEATHER = _tool(
    "get_weather",
    {
        "city": {"type": "string", "maxLength": 12},
        "days": {"type": "integer", "minimum": 1, "maximum": 9},
        "unit": {"enum": ["celsius", "fahrenheit"]},
        "hours": {"type": "array", "items": {"type": "integer"}, "maxItems": 3},
    },
    ["city", "unit"],
)
TOOLS = (WEATHER, _tool("get_time", {}))

TEMPLATES = (
    "",
    "plain text",
    "{{ messages[-1]['content'] }}",
    "{{ .Prompt }}",
    "{% for message in messages %}{{ message.role }}: {{ message.content }}\n{% endfor %}",
    "{% unclosed",
    "{{" * 1000,
    "x" * 100_000,
    "日本語 🦙 \x00",
)
TEXTS = (
    "The sky is blue because of Rayleigh scattering.",
    "  First line\n\nsecond line, with {braces}, [brackets] and <angles>.\n",
    "def f(x):\n    return x < 2 and x > 1\n",
    "日本語と🦙",
    '{"name": "no such tool", "arguments": 5',
)
WORDS = ("alpha", "bravo", "charlie", "delta", "echo", "foxtrot")
WALKS = 12
SPLITS = 6


class DialectSuite(Suite):
    """Everything that a dialect promises. A subclass gives `dialect`."""

    kind = "dialect"

    def dialect(self) -> Dialect:
        raise NotImplementedError

    def subject(self) -> str:
        return self.dialect().name

    def _request(self, **changes: Any) -> OutputRequest:
        return OutputRequest(**{"template": None, **changes})

    def _shape(self, **changes: Any) -> OutputShape:
        return self.dialect().shape(self._request(**changes))

    def _read(self, text: str, **changes: Any) -> Output:
        """Reads a text whole, and checks that chunks change nothing."""
        choose = random.Random(len(text))

        def once(chunks: Sequence[str]) -> Output:
            return read(self.dialect().reader(self._request(**changes)), chunks)

        whole = once([text])
        assert once(list(text)) == whole, f"character by character {text!r} is read in another way"
        for _ in range(SPLITS):
            cuts = sorted(choose.randrange(len(text) + 1) for _ in range(choose.randrange(1, 5)))
            chunks = [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
            assert once(chunks) == whole, f"{chunks} are read in another way than the whole"
        return whole

    def test_claims(self) -> None:
        """It says of any template whether it is its own, always the same, and claims none that is for nobody."""
        dialect = self.dialect()
        for text in TEMPLATES:
            for kind in ("jinja", "go"):
                template = Template(kind=kind, text=text)
                assert dialect.claims(template) is dialect.claims(template) is False, f"claims {text[:60]!r}"
        assert dialect.name == dialect.name.lower()
        assert dialect.name not in dialect.aliases and len(set(dialect.aliases)) == len(dialect.aliases)

    def test_plain_text(self) -> None:
        """Text without thoughts and calls is content, all of it, however it is cut into chunks."""
        shape = self._shape()
        for text in TEXTS:
            found = self._read(shape.content_open + text)
            assert (found.content.strip(), found.thinking, found.calls) == (text.strip(), "", ()), found

    def test_thoughts(self) -> None:
        """A thought between its tags is thinking, also where the prompt has opened it; what follows is content."""
        shape = self._shape()
        if shape.thought is None:
            return
        thought, text = "First I think.", "Then I answer."
        found = self._read(f"{shape.thought.open}{thought}{shape.thought.close}{shape.content_open}{text}")
        assert (found.thinking.strip(), found.content.strip()) == (thought, text), found
        opened = self._shape(prompt=f"question{shape.thought.open}")
        if opened.in_thought:
            found = self._read(
                f"{thought}{shape.thought.close}{shape.content_open}{text}",
                prompt=f"question{shape.thought.open}",
            )
            assert (found.thinking.strip(), found.content.strip()) == (thought, text), found

    def test_nothing_is_lost(self) -> None:
        """Whatever a model writes between, inside and instead of tags and calls reaches the client, once."""
        shape = self._shape(tools=TOOLS)
        tags = [shape.thought.open, shape.thought.close] if shape.thought else []
        openers = (*shape.call_openers, *shape.first_openers)
        pieces = [*tags, *openers, *shape.markers, '{"name": "get_weather"', "}", "\n", "[", "]"]
        for seed in range(WALKS):
            choose = random.Random(seed)
            text = "".join(f" {word} {choose.choice(pieces)}" for word in WORDS)
            found = self._read(text, tools=TOOLS)
            told = f"{found.thinking} {found.content} {found.calls}"
            for word in WORDS:
                assert told.count(word) == 1, f"{word!r} of {text!r} comes {told.count(word)} times: {found}"

    def _has_no_grammar(self) -> None:
        assert self._shape(tools=TOOLS).calls == "", "there is a grammar of calls"

    @optional(_has_no_grammar)
    def test_calls(self) -> None:
        """Whatever its grammar of calls allows is read as calls of the tools, with arguments that fit."""
        shape = self._shape(tools=TOOLS)
        grammar = CallGrammar(shape, shape.markers)
        openers = (*shape.call_openers, *shape.first_openers)
        assert openers, "a grammar of calls without texts that open them"
        for seed in range(WALKS):
            text = grammar.walk(seed)
            assert any(opener in text for opener in openers), f"{text!r} opens otherwise"
            found = self._read(text, tools=TOOLS)
            assert found.calls and not found.content.strip() and not found.notices, (
                f"{text!r} is read as {found}"
            )
            for name, arguments in found.calls:
                self._fits(name, arguments)

    def _fits(self, name: str, arguments: dict[str, Any]) -> None:
        assert name in ("get_weather", "get_time")
        if name == "get_time":
            assert arguments == {}
            return
        assert isinstance(arguments["city"], str) and arguments["unit"] in ("celsius", "fahrenheit")
        assert set(arguments) <= {"city", "unit", "days", "hours"}
        assert type(arguments.get("days", 1)) is int
        assert all(type(hour) is int for hour in arguments.get("hours", []))

    def test_no_tools(self) -> None:
        """Without tools that may be called, text that looks like a call is content."""
        shape = self._shape(tools=TOOLS)
        if not shape.calls:
            return
        assert self._shape().calls == ""
        text = CallGrammar(shape, shape.markers).walk(1)
        found = self._read(self._shape().content_open + text)
        assert found.calls == () and (found.content or found.thinking), found

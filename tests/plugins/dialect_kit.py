"""What the tests of dialects share besides `corectl.testing.outputs`: reading in chunks, and tools."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from hypothesis import strategies as st

from corectl.messages import Tool
from corectl.output.dialect import OutputReader
from corectl.testing.outputs import CallGrammar as Grammar
from corectl.testing.outputs import Output, read

__all__ = ["Grammar", "Output", "chunked", "read", "read_alike", "tool"]


def chunked(text: str) -> st.SearchStrategy[list[str]]:
    """A text in chunks."""
    places = st.lists(st.integers(0, len(text)), max_size=12).map(sorted)
    return places.map(
        lambda cuts: [text[start:end] for start, end in zip([0, *cuts], [*cuts, len(text)], strict=True)]
    )


def read_alike(new_reader: Callable[[], OutputReader], text: str) -> Output:
    """Reads a text whole, and checks that any two chunks, and single characters, give the same."""
    whole = read(new_reader(), [text])
    for place in range(1, len(text)):
        assert read(new_reader(), [text[:place], text[place:]]) == whole
    assert read(new_reader(), list(text)) == whole
    return whole


def tool(name: str, properties: dict[str, Any], required: Sequence[str] = (), **schema: Any) -> Tool:
    """A tool as clients define it."""
    parameters = {"type": "object", "properties": properties, "required": list(required), **schema}
    return {"type": "function", "function": {"name": name, "description": "", "parameters": parameters}}

"""The tutorial shows all code that its backend has, which is as little as it says. Its commands run in test_blocks."""

from __future__ import annotations

import ast

import pytest

from tests.docs.blocks import read_page
from tests.docs.conftest import TUTORIAL

LIMIT = 80


def code_lines(source: str) -> int:
    """Lines that are not blank, not a comment, and not of a docstring."""
    texts: set[int] = set()
    for node in ast.walk(ast.parse(source)):
        if isinstance(node, ast.Module | ast.ClassDef | ast.FunctionDef) and ast.get_docstring(node):
            first = node.body[0]
            texts.update(range(first.lineno, (first.end_lineno or first.lineno) + 1))
    lines = enumerate(source.split("\n"), 1)
    return sum(
        bool(line.strip()) and not line.strip().startswith("#") and no not in texts for no, line in lines
    )


def test_the_backend_has_fewer_lines_of_code_than_the_page_says() -> None:
    assert f"fewer than {LIMIT} lines of code" in TUTORIAL.read_text("utf-8")
    shown = [block.text for block in read_page(TUTORIAL) if block.language == "python"]
    assert len(shown) == 2
    assert sum(map(code_lines, shown)) < LIMIT


@pytest.mark.parametrize(
    ("source", "count"),
    [("", 0), ('"""Text\n\nmore"""\n\nx = 1  # why\n# because\n', 1), ("a = '''\nb\n'''", 3)],
)
def test_lines_are_counted_right(source: str, count: int) -> None:
    assert code_lines(source) == count

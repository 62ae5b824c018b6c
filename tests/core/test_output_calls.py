"""Calls in pieces, and the content around them."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corectl.messages import ToolCallDelta
from corectl.output.calls import Calls, as_object, call_object, read_content
from corectl.output.dialect import Part
from corectl.output.lark import as_json, as_written, atoms
from corectl.output.reading import Feed, FeedReader, Literals, NotACall, Reading
from tests.plugins.dialect_kit import Output, chunked, read, read_alike, tool

TOOLS = (tool("add", {"a": {"type": "integer"}}), tool("add_all", {}))
OPENER, CLOSER = Literals("<c>"), Literals("</c>")


def new_reader(opener: Literals = OPENER, first: tuple[str, ...] = ()) -> FeedReader:
    """Reads calls between tags that can hold one object each."""

    def start(feed: Feed) -> Reading[None]:
        calls = Calls(feed, TOOLS, new_id=lambda: "id")

        def read_block(opener: str) -> Reading[None]:
            yield from call_object(feed, calls)
            yield from feed.skip_blanks()
            yield from feed.starts(CLOSER)

        return read_content(feed, opener, read_block, first=first)

    return FeedReader(start)


ADD = '<c>{"name": "add", "arguments": {"a": 1}}</c>'
ADDED = ("add", {"a": 1})


def test_a_call_comes_in_pieces() -> None:
    pieces = [part.call for part in new_reader().push(ADD) if part.call]
    assert pieces == [
        ToolCallDelta(0, id="id", name="add"),
        ToolCallDelta(0, arguments='{"a": 1}'),
        ToolCallDelta(0, done=True),
    ]


def test_a_call_that_breaks_off_never_ends_and_the_next_has_its_own_number() -> None:
    reader = new_reader()
    parts = [*reader.push(f'<c>{{"name": "add", "arguments": {{"a": 1]}}</c>{ADD}'), *reader.finish()]
    ends = [part.call.index for part in parts if part.call and part.call.done]
    assert ends == [1]
    assert "".join(part.text for part in parts) == '<c>{"name": "add", "arguments": {"a": 1]}</c>'


@pytest.mark.parametrize(
    ("text", "content", "calls"),
    [
        (ADD, "", 1),
        (f"{ADD}\n\n{ADD}\n", "", 2),
        (f" \n{ADD}", "", 1),
        (f"So.\n{ADD}", "So.\n", 1),
        (f"{ADD}\nSo.", "\nSo.", 1),
        (f"{ADD} So. {ADD}", " So. ", 2),
        (ADD.removesuffix("</c>"), "", 1),
        (f"{ADD.removesuffix('</c>')} So.", " So.", 1),
        (f"{ADD.removesuffix('</c>')} {ADD}", "", 2),
        (" \n", " \n", 0),
        ("<c", "<c", 0),
        ("", "", 0),
    ],
)
def test_content_around_calls(text: str, content: str, calls: int) -> None:
    assert read_alike(new_reader, text) == Output(content=content, calls=(ADDED,) * calls)


@pytest.mark.parametrize(
    ("text", "code"),
    [
        (' <c>{"name": "sub"}</c>', "unknown_tool"),
        (' <c>{"name": "ad"}</c>', "unknown_tool"),
        ("\n<c>", "tool_call_not_parsed"),
        ("<c>And so on", "tool_call_not_parsed"),
        ("<c>{}", "tool_call_not_parsed"),
        ('<c>{"name": "add"', "tool_call_not_parsed"),
        ('<c>{"arguments": {"a": 1}}</c>', "tool_call_not_parsed"),
        ('<c>{"name": 1}</c>', "tool_call_not_parsed"),
        ('<c>{name: "add"}</c>', "tool_call_not_parsed"),
        ('<c>{"name": "add", "arguments": {"a": 01}}</c>', "tool_call_not_parsed"),
    ],
)
def test_what_is_no_call_comes_as_it_was_written(text: str, code: str) -> None:
    assert read_alike(new_reader, text) == Output(content=text, notices=(code,))
    assert read_alike(new_reader, f"{text}{ADD}") == Output(content=text, calls=(ADDED,), notices=(code,))


def test_only_the_beginning_counts_where_calls_come_first() -> None:
    def new() -> FeedReader:
        return new_reader(Literals(), ("<c>",))

    assert read_alike(new, f" {ADD} {ADD}So {ADD}") == Output(content=f"So {ADD}", calls=(ADDED, ADDED))
    assert read_alike(new, f"So {ADD}") == Output(content=f"So {ADD}")
    assert read_alike(new, f"<c>[]{ADD}") == Output(content=f"<c>[]{ADD}", notices=("tool_call_not_parsed",))


def test_behind_other_calls_a_first_opener_counts_only_without_content() -> None:
    def new() -> FeedReader:
        return new_reader(Literals("<drop>"), ("<c>",))

    assert read_alike(new, f"{ADD} {ADD}").calls == (ADDED, ADDED)
    found = read_alike(new, f"So {ADD}<drop>{ADD}")
    assert found.calls == () and found.content.startswith(f"So {ADD}")


@given(
    st.lists(st.sampled_from([ADD, "<c>", "</c>", "{", "}", '"', '{"name": "add"', " ", "\n", "x", "é"])).map(
        "".join
    ),
    st.data(),
)
def test_chunks_do_not_matter(text: str, data: st.DataObject) -> None:
    assert read(new_reader(), data.draw(chunked(text))) == read(new_reader(), [text])


@pytest.mark.parametrize(
    ("written", "text"),
    [
        ('{"a": 1}', '{"a": 1}'),
        ("", "{}"),
        ("null", "{}"),
        ('""', "{}"),
        ('"{\\"a\\": 1}"', '{"a": 1}'),
        ('"null"', "{}"),
    ],
)
def test_arguments_as_models_write_them(written: str, text: str) -> None:
    assert as_object(written) == text


@pytest.mark.parametrize("written", ["[]", "1", '"x"', '"\\"{}\\""', "{", '"[1]"'])
def test_arguments_that_are_no_object(written: str) -> None:
    with pytest.raises(NotACall):
        as_object(written)


def test_without_openers_everything_is_content_at_once() -> None:
    def start(feed: Feed) -> Reading[None]:
        return read_content(feed, Literals(), lambda opener: call_object(feed, Calls(feed, ())), blanks=" ")

    reader = FeedReader(start)
    assert reader.push(" \n") == [Part(" "), Part(" \n")]
    assert reader.push(ADD) == [Part(ADD)]


def test_texts_in_parts() -> None:
    text = "[TOOL_CALLS] [<|a|><function=x\n```json é"
    assert atoms(text) == ["[TOOL_CALLS]", " ", "[", "<|a|>", "<function=x", "\n", "```json", " ", "é"]
    assert as_written("<a>\n]") == '"<a>" ws "]"'
    assert as_json('{"id": "12", ') == r'"{" ws "\"id\"" ws ":" ws "\"" NUMBER "\"" ws ","'

"""Modelfiles: what is read, what is refused, and that what is written reads back."""

import os
import time
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from corectl.errors import BadRequest
from corectl.model.modelfile import (
    Command,
    format_parameters,
    parameters_text,
    parse,
    parse_parameter,
    quote,
    render,
)

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "200"))


def pairs(text: str | bytes) -> list[tuple[str, str]]:
    return [(command.name, command.args) for command in parse(text)]


def value_of(text: str) -> str:
    return parse(f"FROM x\nSYSTEM {text}\n")[1].args


def test_every_command_is_read() -> None:
    text = """
    # a comment
    from base
    Adapter ./a.gguf
    LICENSE MIT
    parameter stop "### User: "
    PARAMETER   temperature    0.5
    TEMPLATE {{ .Prompt }} # not a comment
    SYSTEM be kind
    MESSAGE user hello there
    RENDERER r
    PARSER p
    REQUIRES 0.14.0
    DRAFT d
    """
    assert pairs(text) == [
        ("model", "base"),
        ("adapter", "./a.gguf"),
        ("license", "MIT"),
        ("stop", "### User: "),
        ("temperature", "0.5"),
        ("template", "{{ .Prompt }} # not a comment"),
        ("system", "be kind"),
        ("message", "user: hello there"),
        ("renderer", "r"),
        ("parser", "p"),
        ("requires", "0.14.0"),
        ("draft", "d"),
    ]


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("  FOOO BAR   ", "FOOO BAR"),
        ('"     model 1"', "     model 1"),
        ('"MIT       "', "MIT       "),
        ('""', ""),
        ('""""""', ""),
        ('"""one\ntwo"""', "one\ntwo"),
        ('"""\none\n"""   ', "\none\n"),
        ('"""  both ends  """', "  both ends  "),
        ('"""says "hi" and ""."""', 'says "hi" and "".'),
        ('"""\'\'"\'""\'""\'"\'\'\'\'\'""\'""\'"""', "''\"'\"\"'\"\"'\"'''''\"\"'\"\"'"),
        ('"over\nlines"', "over\nlines"),
        ('a "b" c', 'a "b" c'),
        ('"""### User:\n"""', "### User:\n"),
    ],
)
def test_values_come_bare_or_in_quotes(text: str, value: str) -> None:
    assert value_of(text) == value


def test_carriage_returns_end_lines_too() -> None:
    assert pairs("FROM a\r\nSYSTEM b\r\n") == [("model", "a"), ("system", "b")]


def test_the_last_line_needs_no_end() -> None:
    assert pairs("PARAMETER what the \nFROM lemons make lemonade ") == [
        ("what", "the"),
        ("model", "lemons make lemonade"),
    ]


@pytest.mark.parametrize("encoding", ["utf-8", "utf-8-sig", "utf-16"])
def test_bytes_are_decoded(encoding: str) -> None:
    assert pairs("FROM bob\nSYSTEM 😀 ж".encode(encoding)) == [("model", "bob"), ("system", "😀 ж")]


def test_big_endian_utf16_is_decoded() -> None:
    assert pairs(b"\xfe\xff" + "FROM ж".encode("utf-16-be")) == [("model", "ж")]


def test_other_bytes_are_refused() -> None:
    with pytest.raises(BadRequest, match="UTF-8"):
        parse(b"FROM \xff\xff\x00")


COMMANDS = (
    '"from", "license", "template", "system", "adapter", "draft", "renderer", "parser", "parameter", "message", '
    'or "requires"'
)


@pytest.mark.parametrize(
    ("text", "error"),
    [
        ("", "no FROM line"),
        ("# FROM x", "no FROM line"),
        ("PARAMETER a b", "no FROM line"),
        ("FROM x\n\nFOO bar", f"(line 3): command must be one of {COMMANDS}"),
        (
            "FROM x\nMESSAGE robot hi",
            '(line 2): message role must be one of "system", "user", or "assistant"',
        ),
        (
            "FROM x\nPARAMETER system y",
            '(line 2): "system" is a command, it cannot be the name of a parameter',
        ),
        ("FROM", "(line 1): unexpected EOF"),
        ("FROM x\nPARAMETER y", "(line 2): unexpected EOF"),
        ("FROM x\nPARAMETER", "(line 2): unexpected EOF"),
        ("FROM x\n\nMESSAGE system", "(line 3): unexpected EOF"),
        ("FROM x\nMESSAGE", "(line 2): unexpected EOF"),
        ('FROM x\nSYSTEM """This is a multiline system.""', "(line 2): unexpected EOF"),
        ('FROM x\nSYSTEM "', "(line 2): unexpected EOF"),
        ('FROM x\nSYSTEM """\na\nb', "(line 2): unexpected EOF"),
        ('FROM x\nSYSTEM """"END\na\nb', "(line 2): unexpected EOF"),
    ],
)
def test_mistakes_are_named(text: str, error: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse(text)
    assert caught.value.message == error


@pytest.mark.parametrize(
    ("value", "quoted"),
    [
        ("plain", "plain"),
        ("two words", "two words"),
        ('a "b"', 'a "b"'),
        ("one\ntwo", '"one\ntwo"'),
        (' "x"', '""" "x""""'),
        ("ends ", '"ends "'),
        ('"x"', '""""x""""'),
        ("", '""'),
        ('a """\nb', '""""END\na """\nb\nEND""""'),
        ('"END\na', '""""END\n"END\na\nEND""""'),
        ('END""""\n"""\nb', '""""END1\nEND""""\n"""\nb\nEND1""""'),
        ('"""\n\r', '""""END\n"""\n\r\nEND""""'),
    ],
)
def test_values_are_quoted_only_where_needed(value: str, quoted: str) -> None:
    assert quote(value) == quoted
    assert value_of(quoted) == value


def test_a_fence_in_a_file_with_carriage_returns() -> None:
    assert value_of('""""X\r\na"""\r\nb\r\nX""""\r') == 'a"""\r\nb'


def test_what_looks_like_a_fence_and_is_never_closed_is_in_three_quotes() -> None:
    assert value_of('""""X\na"""\n') == '"X\na'


TEXT = st.one_of(
    st.text(max_size=40),
    st.text(alphabet='ab" \n\r\t#\\é', max_size=30),
    st.lists(st.sampled_from(['"""', '""""', "END", "END1", "\n", "\r", " ", "x", '"']), max_size=12).map(
        "".join
    ),
)
KEYS = st.one_of(
    st.sampled_from(["stop", "temperature", "num_ctx"]), st.from_regex(r"\S{1,12}", fullmatch=True)
)
RESERVED = {name.strip('"') for name in COMMANDS.replace("or ", "").split(", ")} - {"from"} | {"model"}
ANY_COMMAND = st.one_of(
    st.builds(Command, st.sampled_from(sorted(RESERVED - {"message", "parameter"})), TEXT),
    st.builds(Command, KEYS.filter(lambda key: key.lower() not in RESERVED), TEXT),
    st.builds(
        lambda role, text: Command("message", f"{role}: {text}"),
        st.sampled_from(["system", "user", "assistant"]),
        TEXT,
    ),
)


@settings(max_examples=EXAMPLES)
@given(st.lists(ANY_COMMAND, max_size=6), TEXT, st.sampled_from(["utf-8", "utf-8-sig", "utf-16"]))
def test_everything_that_is_written_reads_the_same(commands: list[Command], base: str, encoding: str) -> None:
    commands = [*commands, Command("model", base)]
    assert parse(render(commands)) == commands
    assert parse(render(commands).encode(encoding)) == commands


@settings(max_examples=EXAMPLES)
@given(st.one_of(TEXT, st.binary(max_size=60)), st.sampled_from(["FROM x\n", "FROM x\nSYSTEM ", ""]))
def test_any_text_is_read_or_refused(text: str | bytes, before: str) -> None:
    whole = before.encode() + text if isinstance(text, bytes) else before + text
    try:
        commands = parse(whole)
    except BadRequest as error:
        assert len(error.message) < 500
    else:
        assert parse(render(commands)) == commands


@given(st.text(alphabet='ab" \n\r\t#\\é', max_size=30))
def test_what_was_read_is_written_so_that_it_reads_the_same(text: str) -> None:
    try:
        commands = parse(f"FROM x\nSYSTEM {text}\nMESSAGE user {text}\nPARAMETER stop {text}\n")
    except BadRequest:
        return
    assert parse(render(commands)) == commands


def test_a_hostile_value_takes_linear_time() -> None:
    with pytest.raises(BadRequest, match="unexpected EOF"):
        parse('FROM x\nSYSTEM """\n' + '"\n' * 300_000)


def test_many_fences_that_are_not_closed_are_read_soon() -> None:
    started = time.process_time()
    assert len(parse("FROM x\n" + 'SYSTEM """"A"""\n' * 20_000 + 'SYSTEM """"A\n"""\n' * 2_000)) == 22_001
    assert time.process_time() - started < 5


@pytest.mark.parametrize(
    ("key", "text", "value"),
    [
        *(
            ("num_ctx", "4096", 4096),
            ("seed", "-1", -1),
            ("temperature", "0.7", 0.7),
            ("temperature", "0", 0),
        ),
        *(("use_mmap", "true", True), ("use_mmap", "F", False), ("stop", "</s>", "</s>")),
    ],
)
def test_parameters_are_typed(key: str, text: str, value: Any) -> None:
    found = parse_parameter(key, text)
    assert found == value
    assert type(found) is type(value)


@pytest.mark.parametrize(
    ("key", "text", "error"),
    [
        ("zork", "1", "unknown parameter 'zork'"),
        ("temperature", "hot", "invalid float value [hot]"),
        ("temperature", "nan", "invalid float value [nan]"),
        ("top_p", "1_0", "invalid float value [1_0]"),
        ("num_ctx", "1.5", "invalid int value [1.5]"),
        ("num_ctx", "٣", "invalid int value [٣]"),
        ("use_mmap", "maybe", "invalid bool value [maybe]"),
    ],
)
def test_parameters_of_the_wrong_type_are_refused(key: str, text: str, error: str) -> None:
    with pytest.raises(BadRequest) as caught:
        parse_parameter(key, text)
    assert caught.value.message == error


def test_stops_gather_others_replace_and_deprecated_ones_vanish(caplog: pytest.LogCaptureFixture) -> None:
    lines = [("stop", "a"), ("top_k", "1"), ("stop", "b"), ("top_k", "2"), ("mirostat", "1")]
    assert format_parameters(lines) == {"stop": ["a", "b"], "top_k": 2}
    assert "parameter mirostat is deprecated" in caplog.text


def test_parameters_are_shown_in_columns() -> None:
    shown = parameters_text(
        {"temperature": 0.2, "stop": ["<|im_end|>", 'a"b'], "num_ctx": 1024, "top_p": 1.0, "x": True}
    )
    assert shown == (
        "num_ctx                        1024\n"
        'stop                           "<|im_end|>"\n'
        'stop                           "a\\"b"\n'
        "temperature                    0.2\n"
        "top_p                          1\n"
        "x                              true"
    )


def test_commands_render_in_order() -> None:
    commands = [
        Command("model", "m"),
        Command("stop", " x"),
        Command("message", "user: a\nb"),
        Command("license", "L"),
    ]
    assert render(commands) == 'FROM m\nPARAMETER stop " x"\nMESSAGE user "a\nb"\nLICENSE L\n'

"""Modelfiles: reading, writing, and the text forms of parameters.

A value is bare (to the end of the line, trimmed), or stands in one or three double quotes. Then it may run
over several lines, and ends with the line that ends in the closing quotes. There are no escapes inside.

So a text of which some line ends in three quotes has none of these forms. For it there is one of our own: four quotes
and a word, the lines of the text, and a line of that word and four quotes.
"""

from __future__ import annotations

import codecs
import itertools
import logging
import math
import re
from collections.abc import Iterable, Mapping, Sequence
from typing import Any, NoReturn

import msgspec

from corectl.errors import BadModelFile, BadRequest
from corectl.model.details import gguf_of
from corectl.model.gguf import header_of
from corectl.model.manifest import MediaType
from corectl.model.record import ModelRecord
from corectl.prompt.go_chat import DEFAULT_TEMPLATE

_log = logging.getLogger(__name__)


_COMMANDS = (
    "from",
    "license",
    "template",
    "system",
    "adapter",
    "draft",
    "renderer",
    "parser",
    "parameter",
    "message",
    "requires",
)
_COMMAND_LIST = ", ".join(f'"{name}"' for name in _COMMANDS[:-1]) + f', or "{_COMMANDS[-1]}"'
_RESERVED = frozenset((*_COMMANDS, "model")) - {"from"}
_ROLES = ("system", "user", "assistant")
_LINE = re.compile(r"[^\r\n]*(?:\r\n|\r|\n|$)")
_WORD = re.compile(r"\S+")
_FENCE = re.compile(r'"{4}(\w+)')

_INTEGERS = frozenset(
    {
        "num_ctx",
        "num_batch",
        "num_gpu",
        "main_gpu",
        "num_thread",
        "draft_num_predict",
        "num_keep",
        "seed",
        "num_predict",
        "top_k",
        "repeat_last_n",
    }
)
_FLOATS = frozenset(
    {"temperature", "top_p", "min_p", "typical_p", "repeat_penalty", "presence_penalty", "frequency_penalty"}
)
_BOOLEAN_TEXTS = ("1", "t", "T", "true", "TRUE", "True", "0", "f", "F", "false", "FALSE", "False")
_BOOLEANS = {text: text[0] in "1tT" for text in _BOOLEAN_TEXTS}
DEPRECATED_PARAMETERS = frozenset(
    {
        "penalize_newline",
        "low_vram",
        "f16_kv",
        "logits_all",
        "vocab_only",
        "use_mlock",
        "mirostat",
        "mirostat_tau",
        "mirostat_eta",
    }
)


class Command(msgspec.Struct, frozen=True):
    """One line of a Modelfile: FROM is `model`, PARAMETER goes by its own name, MESSAGE has `role: text`."""

    name: str
    args: str


def parse(text: str | bytes) -> list[Command]:
    """The commands of a Modelfile in order. Bytes are UTF-8, or UTF-16 with a byte-order mark.

    Raises `BadRequest`, with the number of the line where one is known.
    """
    lines = _LINE.findall(_decode(text) if isinstance(text, bytes) else text.removeprefix("\ufeff"))
    commands = []
    number = 0
    while number < len(lines):
        line = lines[number].strip()
        if not line or line.startswith("#"):
            number += 1
            continue
        command, used = _command(line, number + 1, lines[number:])
        commands.append(command)
        number += used
    if not any(command.name == "model" for command in commands):
        raise BadRequest("no FROM line")
    return commands


def _decode(raw: bytes) -> str:
    utf16 = raw.startswith((codecs.BOM_UTF16_LE, codecs.BOM_UTF16_BE))
    try:
        return raw.decode("utf-16" if utf16 else "utf-8-sig")
    except UnicodeDecodeError:
        raise BadRequest("a Modelfile must be UTF-8, or UTF-16 with a byte-order mark") from None


def _command(line: str, number: int, lines: Sequence[str]) -> tuple[Command, int]:
    """The command that starts with `lines[0]`, and how many lines it takes."""
    word, rest = _split_word(line)
    name = word.lower()
    if name not in _COMMANDS:
        raise BadRequest(f"(line {number}): command must be one of {_COMMAND_LIST}")
    prefix = ""
    if name in ("parameter", "message"):
        key, rest = _split_word(rest)
        if name == "message" and key and key not in _ROLES:
            raise BadRequest(f'(line {number}): message role must be one of "system", "user", or "assistant"')
        if name == "parameter" and key.lower() in _RESERVED:
            raise BadRequest(f'(line {number}): "{key}" is a command, it cannot be the name of a parameter')
        name, prefix = (key, "") if name == "parameter" else (name, f"{key}: ")
    value, used = _value(rest, lines) or _end(number)
    return Command("model" if name == "from" else name, prefix + value), used


def _end(number: int) -> NoReturn:
    raise BadRequest(f"(line {number}): unexpected EOF")


def _split_word(text: str) -> tuple[str, str]:
    found = _WORD.match(text)
    return (found[0], text[found.end() :].lstrip()) if found else ("", "")


def _value(rest: str, lines: Sequence[str]) -> tuple[str, int] | None:
    """The value that starts with `rest`, the trimmed end of the first line, and its lines; None if it does not end."""
    if (fence := _FENCE.fullmatch(rest)) and (fenced := _fenced(fence[1], lines)):
        return fenced
    quotes = '"""' if rest.startswith('"""') else '"' if rest.startswith('"') else ""
    if not quotes:
        return (rest, 1) if rest else None
    # What was trimmed from the first line belongs to the value if this line does not end it.
    first = lines[0][lines[0].rindex(rest) :]
    pieces = [first]
    ended = len(rest) >= 2 * len(quotes) and rest.endswith(quotes)
    for following in lines[1:]:
        if ended:
            break
        pieces.append(following)
        ended = following.rstrip().endswith(quotes)
    if not ended:
        return None
    return "".join(pieces).rstrip()[len(quotes) : -len(quotes)], len(pieces)


def _fenced(word: str, lines: Sequence[str]) -> tuple[str, int] | None:
    """The lines up to the one that closes the fence; None if there is none."""
    for number, line in enumerate(lines[1:], 1):
        if line.rstrip("\r\n") == f'{word}""""':
            # The end of the last line belongs to the fence; it is what the first line has.
            end = "\r\n" if lines[0].endswith("\r\n") else "\n"
            return "".join(lines[1:number]).removesuffix(end), number + 1
    return None


def quote(value: str) -> str:
    """The value as it stands in a Modelfile: bare where that reads back the same."""
    if value and value == value.strip() and not value.startswith('"') and not re.search(r"[\r\n]", value):
        return value
    quotes = '"""' if '"' in value else '"'
    quoted = f"{quotes}{value}{quotes}"
    return quoted if _reads_as(quoted, value) else _fence(value)


def _reads_as(text: str, value: str) -> bool:
    """Whether the text is read as the value, whatever comes after it: what looks like a fence might be closed there."""
    lines = _LINE.findall(text)
    start = lines[0].strip()
    return not _FENCE.fullmatch(start) and _value(start, lines) == (value, len(lines) - 1)


def _fence(value: str) -> str:
    taken = set(re.findall(r'END([0-9]*)"{4}', value))
    number = next(text for text in itertools.chain([""], map(str, itertools.count(1))) if text not in taken)
    return f'""""END{number}\n{value}\nEND{number}""""'


def render(commands: Iterable[Command]) -> str:
    """The Modelfile that parses to `commands`, one command after another, with a newline at its end."""
    return "".join(f"{_render(command)}\n" for command in commands)


def _render(command: Command) -> str:
    if command.name == "model":
        return f"FROM {quote(command.args)}"
    if command.name == "message":
        role, _, text = command.args.partition(": ")
        return f"MESSAGE {role} {quote(text)}"
    if command.name in _RESERVED:
        return f"{command.name.upper()} {quote(command.args)}"
    return f"PARAMETER {command.name} {quote(command.args)}"


def parse_parameter(key: str, value: str) -> Any:
    """The typed value of a PARAMETER line; a `stop` is one text. Raises `BadRequest`."""
    if key in ("stop", "backend"):
        return value
    if key in _INTEGERS:
        if re.fullmatch(r"[+-]?[0-9]{1,19}", value) and abs(int(value)) < 2**63:
            return int(value)
        raise BadRequest(f"invalid int value [{value}]")
    if key in _FLOATS:
        return _parse_float(value)
    if key == "use_mmap":
        if value in _BOOLEANS:
            return _BOOLEANS[value]
        raise BadRequest(f"invalid bool value [{value}]")
    raise BadRequest(f"unknown parameter '{key}'")


def _parse_float(value: str) -> float | int:
    try:
        number = float(value)
    except ValueError:
        number = math.nan
    if not math.isfinite(number) or "_" in value:
        raise BadRequest(f"invalid float value [{value}]")
    # A whole number is kept as one, so that it reads `0`, not `0.0`, wherever it is shown.
    return int(number) if number.is_integer() and abs(number) < 1e15 else number


def format_parameters(lines: Iterable[tuple[str, str]]) -> dict[str, Any]:
    """PARAMETER lines as they are stored: `stop` gathers a list, of others the last counts.

    Deprecated ones are left out with a warning in the log. Raises `BadRequest`.
    """
    found: dict[str, Any] = {}
    for key, value in lines:
        if key in DEPRECATED_PARAMETERS:
            _log.warning("parameter %s is deprecated", key)
        elif key == "stop":
            found.setdefault(key, []).append(value)
        else:
            found[key] = parse_parameter(key, value)
    return found


def parameters_text(parameters: Mapping[str, Any]) -> str:
    """The `parameters` text of /api/show: sorted lines, names padded to 30 columns, texts in quotes."""
    return "\n".join(
        f"{key:<30} {msgspec.json.encode(value).decode() if isinstance(value, str) else _plain(value)}"
        for key, value in _flat(parameters)
    )


def _flat(parameters: Mapping[str, Any]) -> list[tuple[str, Any]]:
    pairs = []
    for key, value in sorted(parameters.items()):
        pairs += [(key, item) for item in value] if isinstance(value, list | tuple) else [(key, value)]
    return pairs


def _plain(value: Any) -> str:
    if isinstance(value, str):
        return value
    if isinstance(value, float) and value.is_integer() and abs(value) < 1e21:
        value = int(value)
    return msgspec.json.encode(value).decode()


def template_text(record: ModelRecord) -> str:
    """The `template` of /api/show: the TEMPLATE, or the default one where the weights bring none either.

    Raises `OSError` if the weights cannot be read.
    """
    path = gguf_of(record)
    if record.template is not None or path is None:
        return record.template or ""
    try:
        embedded = header_of(path).metadata.get("tokenizer.chat_template")
    except BadModelFile:
        return DEFAULT_TEMPLATE
    return "" if isinstance(embedded, str) else DEFAULT_TEMPLATE


def show_modelfile(
    record: ModelRecord, *, system: str | None = None, options: Mapping[str, Any] | None = None
) -> str:
    """The Modelfile of /api/show. `system` and `options` are laid over what the model has."""
    head = (
        '# Modelfile generated by "ollama show"\n'
        "# To build a new Modelfile based on this, replace FROM with:\n"
        f"# FROM {record.name.short}\n\n"
    )
    wanted = [
        *_sources(record),
        ("template", template_text(record)),
        ("system", system or record.system or ""),
        ("renderer", record.config.renderer),
        ("parser", record.config.parser),
        ("requires", record.config.requires),
    ]
    commands = [Command(name, value) for name, value in wanted if value]
    parameters = {**record.parameters, **(options or {})}
    commands += [Command(key, _plain(value)) for key, value in _flat(parameters)]
    commands += [Command("license", text) for text in record.licenses]
    commands += [Command("message", f"{message.role}: {message.content}") for message in record.messages]
    said = [command for command in commands if _can_be_said(command)]
    if len(said) < len(commands):
        head += "# Left out, for no Modelfile can say it: messages of other roles, or parameters that none knows\n\n"
    return head + render(said)


def _sources(record: ModelRecord) -> list[tuple[str, str]]:
    """The files that the model is made of, where they say it all; else the model's own name, which brings them."""
    weights = record.paths(MediaType.MODEL)
    if gguf_of(record) is None or len(weights) != 1:
        return [("model", record.name.short)]
    return [
        ("model", str(weights[0])),
        *(("adapter", str(path)) for path in record.paths(MediaType.ADAPTER)),
        *(("model", str(path)) for path in record.paths(MediaType.PROJECTOR)),
    ]


def _can_be_said(command: Command) -> bool:
    try:
        if command.name not in _RESERVED | DEPRECATED_PARAMETERS:
            parse_parameter(command.name, command.args)
        return parse(render([Command("model", "x"), command]))[1:] == [command]
    except BadRequest:
        return False

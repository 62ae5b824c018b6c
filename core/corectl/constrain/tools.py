"""Tools as they can be enforced: a tool whose schema says more than that can be called all the same."""

from __future__ import annotations

import copy
import time
from collections.abc import Sequence
from typing import Any

import llguidance
import msgspec

from corectl.constrain import lark
from corectl.constrain.compile import Compiler
from corectl.constrain.native import locate
from corectl.constrain.schema import ANY_OBJECT, Checked, Path, Schema, relax_schema, shown
from corectl.errors import BadRequest
from corectl.messages import Notice, Tool
from corectl.output.dialect import Dialect, OutputRequest

ROUNDS = 4
"""How many parts of one tool's schema are loosened before all of it is."""

MAX_SECONDS = 8.0
"""How long the schemas of one request's tools may take by the clock, as a thread of its own compiles them. Tools whose
turn comes later can be called with any object."""

MAX_NAMED = 5
AROUND_CALLS = "start: calls blanks_at_the_end?\nblanks_at_the_end: /[ \\n]{1,8}/\n"
"""What stands around a dialect's rule `calls`. An output may end after blanks that could also go on to another call."""


def compile_calls(calls: str, compiler: Compiler) -> llguidance.LLMatcher:
    """A matcher for a dialect's grammar of calls. Raises `BadRequest`."""
    return compiler.grammar(AROUND_CALLS + lark.with_control_tokens(calls, compiler.vocabulary), "tools")


class Enforceable(msgspec.Struct, frozen=True):
    """A request with tools whose calls can be `enforced`, and the one that its output is `read` with.

    That has a tool as it came where any object can be enforced only: its schema still says what the types are.
    `notices` name what is enforced less than it asks for.
    """

    enforced: OutputRequest
    read: OutputRequest
    notices: tuple[Notice, ...] = ()


def enforceable(request: OutputRequest, dialect: Dialect, compiler: Compiler) -> Enforceable:
    """What of a request's tools can be enforced, in calls as a dialect writes them.

    Called on the runner's thread that prepares requests.
    """
    tools, notices = _relaxed(request.tools, compiler)
    relaxed = msgspec.structs.replace(request, tools=tools)
    readable = tuple(
        given if made["function"].get("parameters") == ANY_OBJECT.schema else made
        for given, made in zip(request.tools, tools, strict=True)
    )
    read = msgspec.structs.replace(request, tools=readable)
    try:
        calls = dialect.shape(relaxed).calls
        if calls:
            compile_calls(calls, compiler)
    except BadRequest:
        # The schemas are fine one by one, but not as this dialect writes them.
        free = tuple(_with_parameters(tool, dict(ANY_OBJECT.schema)) for tool in tools)
        notices = tuple(_notice(tool["function"]["name"], ["parameters"]) for tool in tools)
        relaxed = msgspec.structs.replace(request, tools=free)
    return Enforceable(relaxed, read, notices)


def _relaxed(tools: Sequence[Tool], compiler: Compiler) -> tuple[tuple[Tool, ...], tuple[Notice, ...]]:
    relaxed: list[Tool] = []
    notices: list[Notice] = []
    end = time.monotonic() + MAX_SECONDS
    for tool in tools:
        function = tool["function"]
        if function.get("parameters") is None:
            relaxed.append(tool)
            continue
        if time.monotonic() > end:
            checked, dropped = ANY_OBJECT, ["parameters"]
        else:
            checked, dropped = relax_schema(function["parameters"], "parameters")
        schema = _loosened(checked, compiler, dropped)
        relaxed.append(_with_parameters(tool, schema))
        if dropped:
            notices.append(_notice(function["name"], dropped))
    return tuple(relaxed), tuple(notices)


def _with_parameters(tool: Tool, schema: Schema) -> Tool:
    return {**tool, "function": {**tool["function"], "parameters": schema}}


def _loosened(checked: Checked, compiler: Compiler, dropped: list[str]) -> Schema:
    """The schema without what llguidance refuses, whose paths are added to `dropped`."""
    schema = copy.deepcopy(checked.schema)
    for _ in range(ROUNDS):
        error = compiler.error_in(schema)
        if not error:
            return schema
        path, _reason = locate(schema, error)
        dropped.append(shown("parameters", checked.origin(path)))
        if not path:
            break
        _loosen(schema, path)
    return dict(ANY_OBJECT.schema)


def _loosen(schema: Any, path: Path) -> None:
    """Lets one part be anything; where it is one of several options, any of them."""
    *above, last = path
    for key in above:
        schema = schema[key]
    options = schema.pop("oneOf") if last == "oneOf" else None
    if options is None:
        schema[last] = True
    elif "anyOf" not in schema:
        schema["anyOf"] = options


def _notice(name: str, dropped: list[str]) -> Notice:
    more = f" and {len(dropped) - MAX_NAMED} more" if len(dropped) > MAX_NAMED else ""
    message = f"tool {name!r}: not enforced: {', '.join(dropped[:MAX_NAMED])}{more}"
    return Notice(code="tool_schema_relaxed", message=message)

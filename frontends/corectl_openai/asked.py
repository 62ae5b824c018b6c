"""What a request asks of a model, in the words of the core."""

from __future__ import annotations

from typing import Any

import msgspec

from corectl.errors import BadRequest
from corectl.messages import Grammar, Think, ToolChoice
from corectl.model.record import ModelRecord
from corectl.server.body import AnyRequest
from corectl.server.context import CONTEXT_HEADER, asked_context
from corectl.server.fields import MAX_TOP_LOGPROBS, keep_alive_seconds, read_tool_choice
from corectl_openai.errors import WrongField, called
from corectl_openai.items import short
from corectl_openai.schema import EFFORTS, ChatRequest, ModelRequest, SamplingRequest

DEFAULTS = {"temperature": 1.0, "top_p": 1.0}
"""This protocol's own, where neither the request nor the model says anything."""

_SAMPLING = ("temperature", "top_p", "frequency_penalty", "presence_penalty", "seed")
_REFUSED = {
    "functions": "functions are not supported; use tools",
    "function_call": "function_call is not supported; use tool_choice",
    "audio": "audio is not supported: models answer in text",
    "web_search_options": "web_search_options are not supported",
}


def load_options(request: AnyRequest, body: ModelRequest) -> dict[str, Any]:
    """The options that matter to loading: the context, from the body or from the header."""
    if body.num_ctx is not None:
        return {"num_ctx": body.num_ctx}
    if body.options.num_ctx is not None:
        called(request, "num_ctx", "options.num_ctx")
        return {"num_ctx": body.options.num_ctx}
    try:
        asked = asked_context(request.headers)
    except BadRequest as exc:
        raise WrongField(CONTEXT_HEADER, exc.message) from exc
    called(request, "num_ctx", CONTEXT_HEADER)
    return {} if asked is None else {"num_ctx": asked}


def read_keep_alive(body: ModelRequest) -> float | None:
    """For how long the model is to stay, in seconds; None where nothing was said."""
    try:
        return keep_alive_seconds(body.keep_alive)
    except BadRequest as exc:
        raise WrongField("keep_alive", f"keep_alive: {exc.message}") from exc


def sampling_options(record: ModelRecord, body: SamplingRequest, limit: int | None) -> dict[str, Any]:
    """How tokens are chosen, as options of the native API. `limit` is the most tokens, if it is above 0."""
    given = {name: getattr(body, name) for name in _SAMPLING if getattr(body, name) is not None}
    options: dict[str, Any] = {}
    if not record.config.remote_host:
        options |= {name: value for name, value in DEFAULTS.items() if name not in record.parameters}
    options |= given
    if body.stop:
        options["stop"] = [body.stop] if isinstance(body.stop, str) else body.stop
    if body.logit_bias:
        options["logit_bias"] = body.logit_bias
    limit = body.options.num_predict if limit is None else limit
    if limit is not None and limit > 0:
        options["num_predict"] = limit
    return options


def refuse_others(body: ChatRequest) -> None:
    """Raises `WrongField` for fields that would change the reply, and that nothing here can do."""
    for name, why in _REFUSED.items():
        if getattr(body, name) not in (None, []):
            raise WrongField(name, why, "unsupported_parameter")


def read_effort(effort: str | None, where: str) -> Think:
    """How much the model is to think; None where nothing was said."""
    if effort is None:
        return None
    if effort not in EFFORTS:
        raise WrongField(where, f"invalid reasoning value: {effort[:64]!r} (must be {', '.join(EFFORTS)})")
    return EFFORTS[effort]


def read_format(value: dict[str, Any] | None) -> Grammar | None:
    """What the content must match."""
    if value is None:
        return None
    named = value.get("json_schema")
    schema = named.get("schema") if isinstance(named, dict) else None
    return read_grammar(value.get("type"), schema, "response_format", "response_format.json_schema.schema")


def read_grammar(kind: Any, schema: Any, where: str, place: str) -> Grammar | None:
    """The same for a format of that kind at `where`, whose schema, if it needs one, is at `place`."""
    if kind == "text":
        return None
    if kind == "json_object":
        return Grammar(kind="json")
    if kind != "json_schema":
        raise WrongField(f"{where}.type", f"{where}.type must be text, json_object or json_schema")
    if not isinstance(schema, dict):
        raise WrongField(place, f"{place} must be a JSON Schema object")
    return Grammar(kind="schema", text=msgspec.json.encode(schema).decode())


def read_choice(body: ChatRequest) -> ToolChoice:
    """Which tools may, or must, be called, and whether several at once."""
    check_choice(body.tool_choice)
    choice = read_tool_choice(body.tool_choice, body.tools)
    return msgspec.structs.replace(choice, parallel=body.parallel_tool_calls)


def check_choice(choice: Any) -> None:
    """Raises `WrongField` for a choice of a type that is not supported, such as `allowed_tools`."""
    kind = choice.get("type") if isinstance(choice, dict) else None
    if kind not in (None, "function"):
        raise WrongField("tool_choice.type", f"tool_choice: the type {short(kind)} is not supported")


def read_top_logprobs(body: ChatRequest) -> int:
    """How many alternatives of each token are wanted."""
    count = body.top_logprobs or 0
    if count and not body.logprobs:
        raise WrongField("top_logprobs", "top_logprobs needs logprobs to be true")
    if not 0 <= count <= MAX_TOP_LOGPROBS:
        raise WrongField("top_logprobs", f"top_logprobs must be between 0 and {MAX_TOP_LOGPROBS}")
    return count

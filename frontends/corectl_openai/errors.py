"""Errors in OpenAI's form: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

import msgspec
from litestar import Response

from corectl import trace
from corectl.errors import BadRequest, Busy, CorectlError, NotFound, NotSupported
from corectl.server.body import AnyRequest

JSON = "application/json"

TYPES = {
    400: "invalid_request_error",
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    408: "invalid_request_error",
    413: "invalid_request_error",
    429: "rate_limit_error",
}
"""Errors by their status; all others are the server's own."""

OURS = {
    "format": "response_format.json_schema.schema",
    "think": "reasoning_effort",
    "thinking": "reasoning_effort",
    "vision": "messages",
    "context": "prompt",
    "insert": "suffix",
}
"""What parts of a request are called in errors of the core, and in this protocol."""

OURS_IN_RESPONSES = {
    **OURS,
    "format": "text.format.schema",
    "think": "reasoning.effort",
    "thinking": "reasoning.effort",
    "vision": "input",
}
"""And in /v1/responses, which has other names."""

_CALLED = "openai_called"
"""The key for what `called` has noted, in the state of a request."""

_RANGE = re.compile(r"` [<>]=? \S+ - at `\$")
_SCHEMA = re.compile(r" - at `\$\.?([^`]+)`$")
_OPTION = re.compile(r'^option "(\w+)"')
_ABLE = re.compile(r"does not support (tools|vision|thinking|insert)$")
_MODEL = re.compile(
    r"^(invalid model name|ollama cloud is disabled: .*|this model does not support .*"
    r'|"[^"]*" does not support (chat|generate))$'
)
_FIELD = re.compile(
    r"^([a-z][a-z_]*(?:\[\d+\])*(?:\.[a-z_]+(?:\[\d+\])*)*)(?=:| must | is required| needs | may )"
)


class WrongField(BadRequest):
    """A request whose field `param` is wrong. `kind` is what OpenAI calls the mistake."""

    def __init__(self, param: str, message: str, kind: str = "invalid_value") -> None:
        super().__init__(message)
        self.param = param
        self.kind = kind


def called(request: AnyRequest, part: str, name: str) -> None:
    """Notes what a request calls a part that has several names; errors of the core say it then."""
    request.state.setdefault(_CALLED, {})[part] = name


class ErrorBody(msgspec.Struct):
    """`param` is the request's field that is wrong, where it is known."""

    message: str
    type: str
    param: str | None
    code: str | None


class ErrorReply(msgspec.Struct):
    error: ErrorBody


def error_body(error: CorectlError, names: Mapping[str, str] = OURS) -> ErrorBody:
    """What is shown of an error; `names` are those of the request's parts."""
    kind = TYPES.get(error.status, "api_error")
    if isinstance(error, NotFound):
        return ErrorBody(error.message, kind, "model", "model_not_found")
    if not isinstance(error, BadRequest):
        return ErrorBody(error.message, kind, _model_in(error), error.code)
    param = _param(error, names)
    return ErrorBody(_renamed(error.message, names), kind, param, _mistake(error, param))


def _param(error: BadRequest, names: Mapping[str, str]) -> str | None:
    """The field that is wrong: what an error says, or what the core's wording, which begins with the field, shows."""
    if isinstance(error, WrongField):
        return error.param
    for pattern in (_SCHEMA, _OPTION, _ABLE, _FIELD):
        if found := pattern.search(error.message):
            path = found[1].replace("[...]", "[]")
            first, rest = re.fullmatch(r"(\w+)(.*)", path, re.DOTALL).groups()  # type: ignore[union-attr]
            return names.get(first, first) + rest
    return _model_in(error)


def _model_in(error: CorectlError) -> str | None:
    """`model`, if that is what cannot do what the request wants."""
    return "model" if _MODEL.search(error.message) else None


def _mistake(error: BadRequest, param: str | None) -> str | None:
    if isinstance(error, WrongField):
        return error.kind
    if error.code != BadRequest.code:
        return error.code
    if error.message.endswith(" is required"):
        return "missing_required_parameter"
    if _SCHEMA.search(error.message):
        return "invalid_value" if _RANGE.search(error.message) else "invalid_type"
    return "invalid_value" if param else None


def _renamed(message: str, names: Mapping[str, str]) -> str:
    """A text of the core that begins with a name of its own, with the name that the client has used."""
    found = _OPTION.match(message) or _FIELD.match(message)
    first = re.split(r"[.\[]", found[1])[0] if found else ""
    return message.replace(first, names[first], 1) if first in names else message


def response_code(error: CorectlError) -> str:
    """What a response that has failed says of the error: it has fewer words for that than replies with a status."""
    if error.status in (429, 503):
        return "rate_limit_exceeded"
    return "invalid_prompt" if isinstance(error, BadRequest) else "server_error"


def error_reply(request: AnyRequest, error: CorectlError) -> Response[bytes]:
    trace.current().outcome = error.code
    headers: dict[str, Any] = {"retry-after": str(error.retry_after)} if isinstance(error, Busy) else {}
    if isinstance(error, NotSupported):
        # The official libraries send again what any other 5xx refuses.
        headers["x-should-retry"] = "false"
    names = OURS_IN_RESPONSES if request.scope["path"].endswith("/responses") else OURS
    names = names | request.state.get(_CALLED, {})
    return Response(
        msgspec.json.encode(ErrorReply(error_body(error, names))),
        status_code=error.status,
        media_type=JSON,
        headers=headers,
    )


def error_event(error: CorectlError) -> bytes:
    """An error in the middle of a stream, whose last event it is: clients raise what has an `error`."""
    return b"data: %s\n\n" % msgspec.json.encode(ErrorReply(error_body(error)))

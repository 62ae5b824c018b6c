"""Errors as clients of the Messages API know them."""

from __future__ import annotations

import re

import msgspec
from litestar import Response

from corectl import trace
from corectl.errors import Busy, CorectlError, NotSupported
from corectl.server.body import AnyRequest

_FORMAT = re.compile(r"^format(?=[.:\[])")

_TYPES = {
    401: "authentication_error",
    403: "permission_error",
    404: "not_found_error",
    413: "request_too_large",
    429: "rate_limit_error",
    503: "overloaded_error",
    504: "timeout_error",
    529: "overloaded_error",
}


class Details(msgspec.Struct):
    """`error_code` is one of ours: stable, for machines."""

    error_code: str


class Fault(msgspec.Struct):
    type: str
    message: str
    details: Details


class ErrorReply(msgspec.Struct, tag="error", tag_field="type"):
    error: Fault
    request_id: str


def request_id() -> str:
    """The id of the request that is being answered; the log has the rest of it."""
    return f"req_{trace.current().id}"


def error_of(error: CorectlError, id: str) -> ErrorReply:
    """An error as an object of this protocol, for the request with this id."""
    rest = "invalid_request_error" if 400 <= error.status < 500 else "api_error"
    # What the core calls the schema of an output.
    message = _FORMAT.sub("output_config.format.schema", error.message)
    fault = Fault(_TYPES.get(error.status, rest), message, Details(error.code))
    return ErrorReply(fault, id)


def error_reply(request: AnyRequest, error: CorectlError) -> Response[bytes]:
    """An error that comes before anything else, with its status."""
    trace.current().outcome = error.code
    headers = {"request-id": request_id()}
    if isinstance(error, Busy):
        headers["retry-after"] = str(error.retry_after)
    if isinstance(error, NotSupported):
        # Clients of this protocol send again what any other 5xx refuses.
        headers["x-should-retry"] = "false"
    return Response(
        msgspec.json.encode(error_of(error, request_id())),
        status_code=error.status,
        media_type="application/json",
        headers=headers,
    )

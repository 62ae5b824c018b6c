"""Every failure of a request as one of our errors, for frontends that write it down in a form of their own."""

from __future__ import annotations

import logging
from collections.abc import Callable
from typing import Any

import msgspec
from litestar import Response
from litestar.exceptions import HTTPException

from corectl.errors import CorectlError, from_os_error
from corectl.server.body import AnyRequest

log = logging.getLogger(__name__)


class Failure(msgspec.Struct):
    """An error in the form that most clients know, and that frontends without one of their own have."""

    error: str


ErrorReply = Callable[[AnyRequest, CorectlError], Response[Any]]


def error_handlers(reply: ErrorReply) -> dict[int | type[Exception], Callable[..., Response[Any]]]:
    """The `exception_handlers` of a router, or of the application, whose errors `reply` writes."""

    def http_error(request: AnyRequest, exc: HTTPException) -> Response[Any]:
        error = CorectlError(exc.detail)
        error.status = exc.status_code
        return reply(request, error)

    def os_error(request: AnyRequest, exc: OSError) -> Response[Any]:
        log.error("%s %s failed: %s", request.scope["method"], request.scope["path"], exc)
        return reply(request, from_os_error(exc))

    def unexpected(request: AnyRequest, exc: Exception) -> Response[Any]:
        log.error("%s %s failed", request.scope["method"], request.scope["path"], exc_info=exc)
        return reply(request, CorectlError("internal error; the server's log says more"))

    return {CorectlError: reply, HTTPException: http_error, OSError: os_error, Exception: unexpected}

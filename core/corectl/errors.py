"""Typed errors. Every error that reaches a client is one of these.

CorectlError                    500 internal
├── BadRequest                  400 the request is wrong; names the field
│   ├── BadModelFile            400 a model file is damaged, hostile or of an unknown format
│   └── TooLong                 400 the prompt does not fit its context, and may not be cut
├── Unauthorized                401 a registry or another server wants to know who is there
├── Forbidden                   403
├── NotFound                    404
├── TooSlow                     408 the client takes too long to send its request, or to read the reply
├── TooLarge                    413 the body is larger than the server takes
├── Canceled                    499 the client went away
├── NotSupported                501 valid, but this model or version cannot do it
├── RemoteError                 502 a server that runs the model failed, or refused
│   └── RemoteUnreachable       502 it is not there
├── Busy                        503 the queue is full; try again
└── EngineError                 500 an engine failed while it worked
    ├── LoadFailed              500 a runner could not load its model
    │   ├── DoesNotFit          500 there is no room for it with what is asked of it
    │   ├── OutOfMemory         500 there was no memory for it
    │   └── DevicesMissing      500 an engine does not find the accelerators that it was to use
    └── RunnerDied              500 a runner process ended while it had work
"""

from __future__ import annotations

import errno


class CorectlError(Exception):
    """Base of all errors that are meant for a client.

    `message` is shown to the client as it is; it says what to do next where that is known. `code` is stable and
    machine-readable. `status` is the HTTP status that frontends answer with when nothing has been streamed yet.
    """

    code = "internal"
    status = 500

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class BadRequest(CorectlError):
    code = "bad_request"
    status = 400


class BadModelFile(BadRequest):
    code = "bad_model_file"


class TooLong(BadRequest):
    code = "context_length_exceeded"


class Unauthorized(CorectlError):
    code = "unauthorized"
    status = 401


class Forbidden(CorectlError):
    code = "forbidden"
    status = 403


class NotFound(CorectlError):
    code = "not_found"
    status = 404


class TooSlow(CorectlError):
    code = "too_slow"
    status = 408


class TooLarge(CorectlError):
    code = "too_large"
    status = 413


class Canceled(CorectlError):
    code = "canceled"
    status = 499


class NotSupported(CorectlError):
    code = "not_supported"
    status = 501


class RemoteError(CorectlError):
    """A server that runs a model elsewhere has failed, or has refused. `status` may be that server's own."""

    code = "remote_error"
    status = 502

    def __init__(self, message: str, status: int = 502) -> None:
        super().__init__(message)
        self.status = status


class RemoteUnreachable(RemoteError):
    code = "remote_unreachable"


class Busy(CorectlError):
    """`retry_after` is in how many seconds it may be worth to ask again; at least 1."""

    code = "busy"
    status = 503
    retry_after = 1


class EngineError(CorectlError):
    code = "engine_error"

    @staticmethod
    def of(exc: Exception) -> CorectlError:
        """What a runner says of a failure: an error of ours as it is, any other as one of the engine's."""
        return exc if isinstance(exc, CorectlError) else EngineError(f"{type(exc).__name__}: {exc}")


class LoadFailed(EngineError):
    code = "load_failed"


class DoesNotFit(LoadFailed):
    """There is no room for a model with what is asked of it. With less, such as a shorter context, there may be."""

    code = "does_not_fit"


class OutOfMemory(LoadFailed):
    """Memory ran out while a model was loaded, or in the middle of its work. A load is tried again, smaller."""

    code = "out_of_memory"


class DevicesMissing(LoadFailed):
    """An engine does not find accelerators that probes have found. A load is tried again without them."""

    code = "devices_missing"


class RunnerDied(EngineError):
    code = "runner_died"


def from_os_error(exc: OSError) -> CorectlError:
    """What went wrong with a file of the store, without saying where it lies."""
    if exc.errno == errno.ENAMETOOLONG:
        return BadRequest("the name is too long for this server's file system")
    error = CorectlError(f"the model store cannot be used: {(exc.strerror or str(exc)).lower()}")
    if exc.errno == errno.ENOSPC:
        error.status = 507
    return error


def _subclasses(base: type[CorectlError]) -> list[type[CorectlError]]:
    return [base, *(leaf for child in base.__subclasses__() for leaf in _subclasses(child))]


def from_code(code: str, message: str) -> CorectlError:
    """The error that another process reported by its `code`; an unknown code gives the base class."""
    for kind in _subclasses(CorectlError):
        if kind.code == code:
            return kind(message)
    return CorectlError(message)

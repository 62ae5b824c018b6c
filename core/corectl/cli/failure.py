"""The errors that end a command with one line on stderr.

CliError            something the user can read and act on
└── ServerError     the server refused, failed, or could not be reached
"""

from __future__ import annotations


class CliError(Exception):
    """Printed as `Error: <message>`; the exit code is 1."""

    def __init__(self, message: str) -> None:
        super().__init__(message)
        self.message = message


class ServerError(CliError):
    """A failed request. `status` is the HTTP status; 0 means that no reply arrived at all.

    `unreachable` tells a server that is not there (starting one may help) from one that broke off. `reason`
    is the status in words, for requests whose answer was to be a stream: there the message alone says little.
    `signin_url` is where one may become somebody whom the server does not refuse, if it says so.
    """

    def __init__(
        self,
        message: str,
        *,
        status: int = 0,
        unreachable: bool = False,
        reason: str = "",
        signin_url: str = "",
    ) -> None:
        super().__init__(f"{status} {reason}: {message}" if reason else message)
        self.status = status
        self.unreachable = unreachable
        self.signin_url = signin_url

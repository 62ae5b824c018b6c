"""Cuts the body of a reply into lines, as they come."""

from __future__ import annotations

from collections.abc import Callable

from corectl.errors import RemoteError

MAX_LINE = 4 * 2**20
"""Bytes. The longest lines are those that give back all tokens of a long conversation, or a large tool call."""

MAX_REPLY = 512 * 2**20
"""Bytes of a whole streamed reply: far more than any context."""


class Lines:
    """Calls `take` with each line that is not empty, without what ends it. Raises `RemoteError` beyond the limits."""

    def __init__(self, label: str, take: Callable[[bytes], None]) -> None:
        self._label = label
        self._take = take
        self._rest: list[bytes] = []
        self._rest_size = 0
        self._size = 0

    def feed(self, data: bytes) -> None:
        self._size += len(data)
        end = data.rfind(b"\n")
        if end < 0:
            self._keep(data)
        else:
            whole = data[:end]
            if self._rest:
                whole = b"".join([*self._rest, whole])
                self._rest.clear()
                self._rest_size = 0
            for line in whole.split(b"\n"):
                self._give(line)
            self._keep(data[end + 1 :])
        if self._rest_size > MAX_LINE or self._size > MAX_REPLY:
            raise RemoteError(f"remote server {self._label} sent a line, or a reply, that does not end")

    def end(self) -> None:
        """The body has ended; its last line may have had no end."""
        line = b"".join(self._rest)
        self._rest.clear()
        self._give(line)

    def _keep(self, data: bytes) -> None:
        if data:
            self._rest.append(data)
            self._rest_size += len(data)

    def _give(self, line: bytes) -> None:
        line = line.strip()
        if line:
            self._take(line)

"""Large bodies straight from their connection into the file.

The library has each byte copied three times, and does a little work for every 64 to 256 kB, all in one thread. One that
reads from the socket itself into a buffer of its own takes less than half of a processor's time, and large writes cost
the file system less as well.
"""

from __future__ import annotations

import os
import socket

import httpx

from corectl.transfer.spread import Spread


def is_bare(response: httpx.Response) -> bool:
    """Whether the rest of a body is what comes over the connection, nothing more and nothing less.

    It is not where the connection is encrypted, and while something that has come lies in the library still: ask again
    after the next piece. The event loop reads only while somebody waits for a piece.
    """
    stream = getattr(response.extensions.get("network_stream"), "_stream", None)
    unread = getattr(getattr(stream, "_protocol", None), "read_queue", None)
    return unread is not None and not len(unread)


def connection_of(response: httpx.Response) -> socket.socket:
    """The connection of a reply, once more; to be closed. Raises `OSError`, as where it has been reset."""
    descriptor = os.dup(response.extensions["network_stream"].get_extra_info("socket").fileno())
    try:
        return socket.socket(fileno=descriptor)
    except OSError:
        os.close(descriptor)
        raise


def receive(
    connection: socket.socket, spread: Spread, count: int, piece: int, request: httpx.Request
) -> None:
    """Reads so many bytes, and writes each `piece` of them. It blocks, at most for the timeout of the connection.

    Raises `httpx.HTTPError`, `OSError` of the file; what came before is written in any case.
    """
    buffer = memoryview(bytearray(min(piece, count)))
    while count:
        wanted, filled = buffer[:count], 0
        try:
            while filled < len(wanted):
                filled += _read(connection, wanted[filled:], request)
        finally:
            spread.put([wanted[:filled]])
        count -= filled


def _read(connection: socket.socket, buffer: memoryview, request: httpx.Request) -> int:
    try:
        count = connection.recv_into(buffer)
    except TimeoutError as exc:
        raise httpx.ReadTimeout("nothing comes any more", request=request) from exc
    except OSError as exc:
        raise httpx.ReadError(str(exc), request=request) from exc
    if not count:
        raise httpx.RemoteProtocolError("the connection ended early", request=request)
    return count

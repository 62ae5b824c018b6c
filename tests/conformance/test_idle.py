"""A server with nothing to do sleeps, and is there when something comes."""

from __future__ import annotations

import re
import socket
import sys
import time
from collections.abc import Iterator
from email import message_from_bytes
from email.message import Message
from email.utils import parsedate_to_datetime
from pathlib import Path

import pytest

from tests.conftest import Server

SECONDS = 3.0
"""How long an idle server is watched."""


@pytest.fixture
def server(tmp_path: Path) -> Iterator[Server]:
    server = Server(tmp_path)
    yield server
    assert server.stop() == 0


@pytest.mark.skipif(sys.platform != "linux", reason="only Linux counts how often threads wake up")
def test_nothing_wakes_it_up(server: Server) -> None:
    # Connections that are kept open time out within this, and what begins with the server has ended.
    server.client.get("/api/version").raise_for_status()
    server.client.close()
    time.sleep(6)
    before = _sleeps(server)
    time.sleep(SECONDS)
    # Its own watch over the event loop takes a few, once in five seconds.
    assert _sleeps(server) - before < 3 * SECONDS


def _sleeps(server: Server) -> int:
    """How often its threads have fallen asleep."""
    found = 0
    for status in Path(f"/proc/{server.process.pid}/task").glob("*/status"):
        count = re.search(r"^voluntary_ctxt_switches:\s+(\d+)", status.read_text(), re.MULTILINE)
        found += int(count[1]) if count is not None else 0
    return found


def test_the_date_is_that_of_the_reply(server: Server) -> None:
    def date() -> float:
        began = int(time.time())
        found = server.client.get("/api/version").raise_for_status().headers["date"]
        sent = parsedate_to_datetime(found).timestamp()
        assert began <= sent <= time.time()
        return sent

    first = date()
    time.sleep(1.1)
    assert date() > first
    time.sleep(1.1)
    began = int(time.time())
    assert parsedate_to_datetime(_refused(server)["date"]).timestamp() >= began


def _refused(server: Server) -> Message:
    """The head of the reply to what is no request."""
    with socket.create_connection(
        ("127.0.0.1", int(server.url.rpartition(":")[2])), timeout=30
    ) as connection:
        connection.sendall(b"nonsense\r\n\r\n")
        reply = connection.recv(65536)
    assert reply.startswith(b"HTTP/1.1 400 ")
    return message_from_bytes(reply.partition(b"\r\n")[2])

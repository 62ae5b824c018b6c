"""A thin client of the server's API: JSON in, JSON or a stream of JSON lines out, one exception type."""

from __future__ import annotations

import json
from collections.abc import Callable, Generator, Iterable, Iterator
from contextlib import contextmanager
from http import HTTPStatus
from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from corectl.cli.failure import ServerError
from corectl.cli.host import Host, current_host

if TYPE_CHECKING:
    import httpx

CONNECT_TIMEOUT: Final = 10.0
"""Seconds. There is no limit for reading: a large model may take minutes before its first token."""

UPLOAD_CHUNK: Final = 1 << 20
"""Bytes of a file that are read and sent at once."""


class Client:
    """Talks to one server. Not for use from several threads at once."""

    def __init__(self, host: Host) -> None:
        self.host = host
        self._http: httpx.Client | None = None

    def get(self, path: str) -> dict[str, Any]:
        """The JSON object at `path`."""
        return self._object(self._send("GET", path))

    def post(self, path: str, body: dict[str, Any]) -> dict[str, Any]:
        """Sends `body`, returns the JSON object of the reply (empty where the reply has no body)."""
        return self._object(self._send("POST", path, body))

    def delete(self, path: str, body: dict[str, Any]) -> None:
        """Sends a DELETE with `body`."""
        self._send("DELETE", path, body)

    def stream(self, path: str, body: dict[str, Any]) -> Generator[dict[str, Any], None, None]:
        """Sends `body` and yields the objects of the reply as they come.

        Raises `ServerError` for an `error` object anywhere in the stream. Closing the iterator ends the
        request.
        """
        with self._translated(), self._open().stream("POST", path, json=body) as reply:
            if reply.status_code >= 400:
                reply.read()
                raise _failure(reply, stream=True)
            for line in _lines(reply.iter_bytes()):
                event = self._parse(line)
                if "error" in event:
                    raise ServerError(str(event["error"]), status=int(event.get("status_code") or 500))
                yield event

    def has_blob(self, digest: str) -> bool:
        """Whether the server holds the bytes with this `sha256:...` digest."""
        with self._translated():
            reply = self._open().head(f"/api/blobs/{digest}")
        if reply.status_code >= 400 and reply.status_code != 404:
            raise _failure(reply)
        return reply.status_code < 400

    def upload(self, digest: str, file: Path, on_sent: Callable[[int], None]) -> None:
        """Sends a file as the blob `digest`; `on_sent` is told the number of bytes sent so far."""
        size = file.stat().st_size
        headers = {"Content-Length": str(size), "Content-Type": "application/octet-stream"}
        with self._translated():
            reply = self._open().post(f"/api/blobs/{digest}", content=_chunks(file, on_sent), headers=headers)
        if reply.status_code >= 400:
            raise _failure(reply)

    def close(self) -> None:
        """Closes the connections."""
        if self._http is not None:
            self._http.close()

    def _open(self) -> httpx.Client:
        if self._http is None:
            import httpx

            from corectl import __version__

            self._http = httpx.Client(
                base_url=self.host.url,
                timeout=httpx.Timeout(None, connect=CONNECT_TIMEOUT),
                headers={"User-Agent": f"corectl/{__version__}"},
                # A proxy of the environment must never see what is said to this very machine.
                trust_env=not self.host.loopback,
            )
        return self._http

    def _send(self, method: str, path: str, body: dict[str, Any] | None = None) -> httpx.Response:
        with self._translated():
            reply = self._open().request(method, path, json=body)
        if reply.status_code >= 400:
            raise _failure(reply)
        return reply

    def _object(self, reply: httpx.Response) -> dict[str, Any]:
        return self._parse(reply.content) if reply.content.strip() else {}

    def _parse(self, text: bytes) -> dict[str, Any]:
        try:
            value = json.loads(text)
        except ValueError as exc:
            raise ServerError(f"{self.host.label} does not answer like a corectl server: {exc}") from exc
        return value if isinstance(value, dict) else {}

    @contextmanager
    def _translated(self) -> Iterator[None]:
        """Turns what the HTTP library raises into `ServerError`."""
        import httpx

        try:
            yield
        except (httpx.ConnectError, httpx.ConnectTimeout, httpx.InvalidURL, httpx.UnsupportedProtocol) as exc:
            message = (
                f"could not connect to a corectl server at {self.host.label}, run 'corectl serve' to start it"
            )
            raise ServerError(message, unreachable=True) from exc
        except httpx.TransportError as exc:
            raise ServerError(f"the connection to {self.host.label} broke: {exc}") from exc


def connect() -> Client:
    """A client of the server that the environment names, closed when the running command ends."""
    client = Client(current_host())
    click.get_current_context().call_on_close(client.close)
    return client


def _lines(chunks: Iterable[bytes]) -> Iterator[bytes]:
    """Non-empty lines. Only a newline ends one: `str.splitlines` cuts at characters that JSON may hold."""
    rest = b""
    for chunk in chunks:
        *whole, rest = (rest + chunk).split(b"\n")
        yield from (line for line in whole if line.strip())
    if rest.strip():
        yield rest


def _chunks(file: Path, on_sent: Callable[[int], None]) -> Iterator[bytes]:
    sent = 0
    with file.open("rb") as source:
        while chunk := source.read(UPLOAD_CHUNK):
            yield chunk
            sent += len(chunk)
            on_sent(sent)


def _failure(reply: httpx.Response, *, stream: bool = False) -> ServerError:
    """The error that a reply carries, or its text, or the name of its status."""
    status = reply.status_code
    phrase = HTTPStatus(status).phrase if status in HTTPStatus._value2member_map_ else "Error"
    try:
        body = reply.json()
        message, signin_url = str(body["error"]), str(body.get("signin_url", ""))
    except (ValueError, KeyError, TypeError):
        return ServerError(reply.text.strip()[:500] or f"{status} {phrase}", status=status)
    return ServerError(message, status=status, reason=phrase if stream else "", signin_url=signin_url)

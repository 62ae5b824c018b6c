"""A registry that asks who is there."""

from __future__ import annotations

import base64
import json
import time
from collections.abc import Iterator
from contextlib import contextmanager
from urllib.parse import parse_qsl, urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.core.transfer_kit import FakeOrigin, Reply, running_origin

EMPTY = base64.b64encode(b"e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855").decode()
PREFIX = b"\0\0\0\x0bssh-ed25519\0\0\0\x20"


class Guard:
    """Wants a bearer token for everything under /v2, and gives one to whoever signs, or has the password."""

    def __init__(self, origin: FakeOrigin) -> None:
        self.origin = origin
        self.realm = f"{origin.url}/token"
        self.password = ""
        self.keys: list[str] = []
        self.token = "good"
        self.accepts = True
        origin.faults.append(self.answer)

    def answer(self, reply: Reply) -> bool:
        path = urlsplit(reply.path).path
        if path == "/token":
            self._give(reply)
            return True
        if not path.startswith("/v2/"):
            return False
        if self.accepts and reply.asked.headers.get("authorization") == f"Bearer {self.token}":
            return False
        challenge = (
            f'Bearer realm="{self.realm}",service="the, service",scope="repository:library/m:pull,push other"'
        )
        reply.send(401, b'{"errors":[]}', {"www-authenticate": challenge})
        return True

    def _give(self, reply: Reply) -> None:
        if self.password:
            good = reply.asked.headers.get("authorization") == f"Basic {self.password}"
        else:
            good = self._signed(reply)
        if good:
            reply.send(200, json.dumps({"token": self.token}).encode())
        else:
            reply.send(401, b"who are you?")

    def _signed(self, reply: Reply) -> bool:
        """Whether a request has a signature of the address that it was sent to, with what must be in it."""
        public, _, signature = reply.asked.headers.get("authorization", "").partition(":")
        query = parse_qsl(urlsplit(reply.path).query)
        if [name for name, _ in query] != ["nonce", "scope", "scope", "service", "ts"]:
            return False
        said = dict(query)
        if (
            len(said["nonce"]) != 22
            or abs(int(said["ts"]) - time.time()) > 60
            or said["service"] != "the, service"
        ):
            return False
        raw = base64.b64decode(public)
        if not raw.startswith(PREFIX):
            return False
        signed = f"GET,{self.origin.url}{reply.path},{EMPTY}".encode()
        try:
            Ed25519PublicKey.from_public_bytes(raw.removeprefix(PREFIX)).verify(
                base64.b64decode(signature), signed
            )
        except InvalidSignature:
            return False
        self.keys.append(public)
        return True


@contextmanager
def guarded_origin() -> Iterator[tuple[FakeOrigin, Guard]]:
    with running_origin() as origin:
        yield origin, Guard(origin)

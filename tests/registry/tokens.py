"""The bearer challenge of Ollama's registry: a client proves with its key who it is, and gets a token for a scope."""

from __future__ import annotations

import base64
import binascii
import hashlib
import json
import secrets
import struct
import threading
import time
from urllib.parse import urlsplit

from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PublicKey

from tests.registry.host import Answer, Asked, Handler, plain

CLOCK_SECONDS = 300
TOKEN_PATH = "/token"


class TokenGate:
    """A layer: every request under `/v2/` needs a token, which `/token` of the same host gives for a signed request.

    `realm` makes the challenge point elsewhere. `keys` are the known keys in OpenSSH's encoding (the middle field of a
    `.pub` file), None for any. `refused` says why requests for tokens were refused, `scopes` which were given.
    """

    def __init__(self, *, realm: str = "", keys: set[str] | None = None) -> None:
        self.realm = realm
        self.keys = keys
        self.refused: list[str] = []
        self.scopes: list[str] = []
        self._tokens: dict[str, set[str]] = {}
        self._nonces: set[str] = set()
        self._lock = threading.Lock()

    def __call__(self, asked: Asked, further: Handler) -> Answer:
        if asked.route == TOKEN_PATH:
            return self._give(asked)
        if not asked.route.startswith("/v2/"):
            return further(asked)
        kind, _, token = asked.headers.get("authorization", "").partition(" ")
        if kind == "Bearer" and self._scope(asked) in self._tokens.get(token, set()):
            return further(asked)
        return self._challenge(asked)

    def forget(self) -> None:
        """All tokens expire."""
        self._tokens.clear()

    def _scope(self, asked: Asked) -> str:
        repository = asked.route.removeprefix("/v2/").partition("/blobs/")[0].partition("/manifests/")[0]
        return f"repository:{repository}:{'pull' if asked.method in ('GET', 'HEAD') else 'push,pull'}"

    def _challenge(self, asked: Asked) -> Answer:
        realm = self.realm or f"{asked.host.url}{TOKEN_PATH}"
        challenge = f'Bearer realm="{realm}",service="registry",scope="{self._scope(asked)}"'
        body = json.dumps({"errors": [{"code": "UNAUTHORIZED", "message": "who are you?"}]}).encode()
        return plain(401, body, www_authenticate=challenge, content_type="application/json")

    def _give(self, asked: Asked) -> Answer:
        reason = self._why_not(asked)
        if reason:
            with self._lock:
                self.refused.append(reason)
            return plain(401, json.dumps({"error": reason}).encode(), content_type="application/json")
        token = secrets.token_urlsafe(16)
        with self._lock:
            self.scopes += asked.query["scope"]
            granted = {part for scope in asked.query["scope"] for part in (scope, _pull_of(scope))}
            self._tokens[token] = granted
        return plain(200, json.dumps({"token": token}).encode(), content_type="application/json")

    def _why_not(self, asked: Asked) -> str:
        """What is wrong with a request for a token; empty if nothing is."""
        query = asked.query
        if asked.method != "GET" or not {"nonce", "scope", "service", "ts"} <= set(query):
            return "nonce, scope, service and ts are needed"
        names = [pair.partition("=")[0] for pair in urlsplit(asked.path).query.split("&")]
        if names != sorted(names):
            return "the query must be sorted"
        if abs(time.time() - int(query["ts"][0])) > CLOCK_SECONDS:
            return "the clock is wrong"
        nonce = query["nonce"][0]
        if len(base64.urlsafe_b64decode(nonce + "==")) != 16 or "=" in nonce or nonce in self._nonces:
            return "the nonce must be 16 new bytes"
        self._nonces.add(nonce)
        return self._bad_signature(asked)

    def _bad_signature(self, asked: Asked) -> str:
        encoded, _, signature = asked.headers.get("authorization", "").partition(":")
        digest = base64.b64encode(hashlib.sha256(b"").hexdigest().encode()).decode()
        signed = f"GET,{asked.host.url}{asked.path},{digest}"
        try:
            key = read_key(encoded)
            key.verify(base64.b64decode(signature, validate=True), signed.encode())
        except (ValueError, binascii.Error):
            return "the authorization is malformed"
        except InvalidSignature:
            return "the signature is wrong"
        if self.keys is not None and encoded not in self.keys:
            return f'unknown ollama key "ssh-ed25519 {encoded}"'
        return ""


def read_key(encoded: str) -> Ed25519PublicKey:
    """A public key as OpenSSH writes it. Raises `ValueError` for anything else."""
    raw = base64.b64decode(encoded, validate=True)
    prefix = struct.pack(">I", 11) + b"ssh-ed25519" + struct.pack(">I", 32)
    if not raw.startswith(prefix) or len(raw) != len(prefix) + 32:
        raise ValueError("not an ed25519 key")
    return Ed25519PublicKey.from_public_bytes(raw[len(prefix) :])


def _pull_of(scope: str) -> str:
    """Who may push may pull as well."""
    return scope.replace(":push,pull", ":pull")

"""Requests to one registry, by somebody who can say who he is."""

from __future__ import annotations

import asyncio
import base64
import logging
import secrets
import time
from collections.abc import AsyncIterable, Callable, Mapping

import httpx
import msgspec

from corectl.errors import BadRequest, RemoteError, Unauthorized
from corectl.registry.keys import SigningKey, key_path
from corectl.secret import Secret
from corectl.transfer.client import Answer, ask
from corectl.transfer.following import same_origin
from corectl.transfer.peers import Peers
from corectl_registry.challenge import Challenge, checked_realm, read_challenge
from corectl_registry.docker_config import credentials

log = logging.getLogger("corectl.registry")

MAX_TOKEN = 65536
READS = ("GET", "HEAD")

Body = bytes | Callable[[], AsyncIterable[bytes]]
"""A body, or what begins it anew: a request may have to be made twice."""


class WireToken(msgspec.Struct):
    token: str = ""
    access_token: str = ""


class AuthorizedHttp:
    """Asks a registry; what it has been given as proof is kept for one pull or push, and goes to that registry only."""

    def __init__(self, registry: str, http: httpx.AsyncClient) -> None:
        """Raises `BadRequest` for an address that is none, such as one with a port that is no number."""
        try:
            self._registry = httpx.URL(registry)
        except httpx.InvalidURL:
            raise BadRequest("invalid model name") from None
        self._http = http
        # They are the registry's at first, and then those that its replies lead to, as for the parts of an upload.
        self._peers = Peers(http)
        self._proofs: dict[bool, str] = {}
        self._lock = asyncio.Lock()

    def headers(self, *, writing: bool = False) -> dict[str, str]:
        """What proves to the registry who asks, as far as it has wanted to know that."""
        proof = self._proofs.get(writing) or self._proofs.get(True)
        return {"authorization": proof} if proof else {}

    async def ask(
        self,
        method: str,
        url: str,
        *,
        headers: Mapping[str, str] | None = None,
        content: Body | None = None,
        seconds: float = 60.0,
    ) -> Answer:
        """One request, and a second one with proof where the registry asks for it.

        What anybody else says beside a status and headers is nobody's business: the address may be any of theirs.
        Raises `Unauthorized` if that does not do, `RemoteUnreachable`, `RemoteError`.
        """
        writing = method not in READS
        ours = same_origin(httpx.URL(url), self._registry)
        for last in (False, True):
            proof = self.headers(writing=writing) if ours else {}
            body = content() if callable(content) else content
            answer = await ask(
                self._http,
                method,
                url,
                headers={**(headers or {}), **proof},
                content=body,
                seconds=seconds,
                peers=self._peers,
            )
            if not ours:
                return msgspec.structs.replace(answer, body=b"")
            if answer.status != 401:
                return answer
            if not last:
                await self._prove(answer, writing, proof.get("authorization", ""))
        raise Unauthorized("unauthorized: access denied")

    async def ask_elsewhere(
        self, method: str, url: str, headers: Mapping[str, str], content: Body, *, seconds: float
    ) -> Answer:
        """One request to somebody whom the registry has named, without any proof; see `ask` for what comes back."""
        body = content() if callable(content) else content
        answer = await ask(
            self._http, method, url, headers=headers, content=body, seconds=seconds, peers=self._peers
        )
        return msgspec.structs.replace(answer, body=b"")

    async def _prove(self, answer: Answer, writing: bool, refused: str) -> None:
        """Gets a proof; of several requests that need one, the first gets it for all."""
        async with self._lock:
            known = self.headers(writing=writing).get("authorization", "")
            if known and known != refused:
                return
            challenge = read_challenge(answer.headers.get_list("www-authenticate"))
            password = await asyncio.to_thread(credentials, self._registry)
            if challenge.scheme == "basic":
                if not password:
                    raise Unauthorized("unauthorized: access denied")
                self._proofs[writing] = _basic(password)
            else:
                self._proofs[writing] = f"Bearer {await self._token(challenge, password)}"

    async def _token(self, challenge: Challenge, password: Secret) -> str:
        realm = checked_realm(challenge.realm, self._registry)
        if password:
            return await self._asked(realm, challenge, lambda _: _basic(password))
        key = await asyncio.to_thread(_key)
        if key is not None:
            try:
                return await self._asked(realm, challenge, lambda url: key.authorization("GET", url))
            except Unauthorized as exc:
                log.info("the registry gives no token for this user's key: %s", exc.message)
        return await self._asked(realm, challenge, None)

    async def _asked(self, realm: httpx.URL, challenge: Challenge, proof: Callable[[str], str] | None) -> str:
        query: list[tuple[str, str]] = [*realm.params.multi_items()]
        if proof is not None:
            query += [("nonce", secrets.token_urlsafe(16)), ("ts", str(int(time.time())))]
        query += [("scope", scope) for scope in challenge.scopes]
        if challenge.service:
            query.append(("service", challenge.service))
        url = str(realm.copy_with(params=sorted(query, key=lambda item: item[0])))
        headers = {} if proof is None else {"authorization": proof(url)}
        answer = await ask(self._http, "GET", url, headers=headers, limit=MAX_TOKEN)
        if 400 <= answer.status < 500:
            raise Unauthorized(f"unauthorized: access denied ({answer.status}: {answer.text})")
        if answer.status != 200:
            raise RemoteError(f"the registry gives no token: {answer.status}: {answer.text}")
        return _read_token(answer.body)


def _read_token(body: bytes) -> str:
    """Raises `RemoteError` for what is no token, or would be more than one header."""
    try:
        found = msgspec.json.decode(body, type=WireToken)
    except (msgspec.DecodeError, UnicodeDecodeError):
        raise RemoteError("the registry gives a token that cannot be read") from None
    token = found.token or found.access_token
    if not token or not token.isascii() or not token.isprintable() or " " in token:
        raise RemoteError("the registry gives a token that is none")
    return token


def _basic(password: Secret) -> str:
    return f"Basic {base64.b64encode(password.reveal().encode()).decode()}"


def _key() -> SigningKey | None:
    """None where there is no place for one: public models can be pulled without."""
    try:
        return SigningKey.load(key_path())
    except (OSError, Unauthorized) as exc:
        log.warning("there is no key to sign requests with: %s", exc)
        return None

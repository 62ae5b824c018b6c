"""Which protocol a server speaks."""

from __future__ import annotations

from corectl.errors import RemoteError
from corectl_remote.failure import decode, refusal
from corectl_remote.native import Native, version_decoder
from corectl_remote.openai import OpenAi, models_decoder
from corectl_remote.wire import Api, Wire

SECONDS = 4.0
"""For each question."""


async def detect(api: Api) -> Wire:
    """OpenAI's protocol for an address that ends in `/v1`; else the native API, if it is there, or again OpenAI's.

    Raises `RemoteUnreachable`, or `RemoteError` for a server that speaks neither.
    """
    if api.server.url.endswith("/v1"):
        return OpenAi(api, "", await api.get("/models", models_decoder, seconds=SECONDS))
    answer = await api.http.ask("GET", "/api/version", seconds=SECONDS)
    if answer.head.status == 200:
        try:
            return Native(api, decode(api.server, version_decoder, answer.body))
        except RemoteError:
            pass
    elif answer.head.status not in (404, 405):
        raise refusal(api.server, answer.head.status, answer.body)
    return await _openai(api)


async def _openai(api: Api) -> Wire:
    answer = await api.http.ask("GET", "/v1/models", seconds=SECONDS)
    if answer.head.status in (200, 401, 403):
        if answer.head.status != 200:
            raise refusal(api.server, answer.head.status, answer.body)
        return OpenAi(api, "/v1", decode(api.server, models_decoder, answer.body))
    raise RemoteError(
        f"remote server {api.server.label} speaks neither the native API nor OpenAI's protocol "
        "(there is no /api/version and no /v1/models); check its address"
    )

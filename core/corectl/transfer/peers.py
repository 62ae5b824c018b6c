"""Whom redirects lead to: a registry elsewhere has no business with what only this machine or its network can reach."""

from __future__ import annotations

from typing import Any

import httpx

from corectl import addresses
from corectl.errors import RemoteError
from corectl.transfer.client import shown


class Peers:
    """Watches one chain of redirects. The host at its start is the one that was asked for, wherever it is.

    If that one is on the internet, no other one may be inside. What counts is the address that is connected to, since
    a name may mean any. Through a proxy nobody here knows it: such connections are the proxy's to judge.
    """

    def __init__(self, http: httpx.AsyncClient) -> None:
        self._http = http
        self._inside: bool | None = None

    def extensions(self, url: str) -> dict[str, Any]:
        """For the request: a connection that is made for it is looked at before anything is sent."""
        if self._inside is not False or not self._is_direct(httpx.URL(url)):
            return {}

        async def trace(event: str, info: dict[str, Any]) -> None:
            if event == "connection.connect_tcp.complete" and _is_inside(info["return_value"]):
                await info["return_value"].aclose()
                raise _refusal(url)

        return {"trace": trace}

    def check(self, response: httpx.Response) -> None:
        """For its reply, whose connection may have been there before. Raises `RemoteError`."""
        stream = response.extensions.get("network_stream")
        inside = stream is not None and self._is_direct(response.request.url) and _is_inside(stream)
        if self._inside is None:
            self._inside = inside
        elif inside and not self._inside:
            raise _refusal(str(response.request.url))

    def _is_direct(self, url: httpx.URL) -> bool:
        """Whether the client speaks to the host itself. It does not tell anybody else which proxies it has found."""
        return self._http._transport_for_url(url) is self._http._transport


def _is_inside(stream: Any) -> bool:
    """Whether the other end is this machine, or on a network that is not the internet."""
    found = stream.get_extra_info("server_addr")
    return isinstance(found, tuple) and not addresses.is_public(str(found[0]))


def _refusal(url: str) -> RemoteError:
    return RemoteError(
        f'a redirect leads to "{shown(url)}", which is not on the internet; it is not followed'
    )

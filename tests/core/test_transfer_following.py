"""Where a download may be led, and what it takes along."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from typing import Any

import httpx
import pytest

from corectl.errors import RemoteError
from corectl.model.manifest import Layer
from corectl.registry.remote import Location
from corectl.transfer import peers
from corectl.transfer.following import next_location, opened
from tests.core.download_kit import DATA, check
from tests.core.transfer_kit import (
    FakeOrigin,
    Puller,
    Reply,
    failure_of,
    running_origin,
)


def redirecting(target: str, layer: Layer) -> Callable[[Reply], bool]:
    def fault(reply: Reply) -> bool:
        if reply.asked.path != f"/blobs/{layer.digest}":
            return False
        headers = {"location": target, "set-cookie": "session=secret; Path=/"}
        reply.send(307, b"", headers)
        return True

    return fault


def test_credentials_stay_with_their_origin(origin: FakeOrigin, puller: Puller, layer: Layer) -> None:
    with running_origin() as other:
        other.content["/elsewhere"] = DATA
        origin.faults.append(redirecting(f"{other.url}/elsewhere", layer))
        check(puller, layer)
        assert {asked.path for asked in other.log} == {"/elsewhere"}
        for asked in other.log:
            assert "authorization" not in asked.headers and "cookie" not in asked.headers
        for asked in origin.blob_requests(layer):
            assert asked.headers["authorization"] == "Bearer secret" and "cookie" not in asked.headers


@pytest.fixture
def outside(origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch) -> FakeOrigin:
    """The origin, as if its address were a public one."""
    inside = peers._is_inside

    def is_inside(stream: Any) -> bool:
        return stream.get_extra_info("server_addr") != origin.address and inside(stream)

    monkeypatch.setattr(peers, "_is_inside", is_inside)
    return origin


def test_a_registry_outside_cannot_lead_inside(outside: FakeOrigin, puller: Puller, layer: Layer) -> None:
    with running_origin() as other:
        other.content["/elsewhere"] = DATA
        outside.faults.append(redirecting(f"{other.url}/elsewhere", layer))
        _, error = failure_of(puller)
        assert isinstance(error, RemoteError)
        assert error.message == (
            f'a redirect leads to "{other.url}/elsewhere", which is not on the internet; it is not followed'
        )
        assert other.log == []


def test_nor_over_a_connection_that_is_there_already(outside: FakeOrigin) -> None:
    from corectl.transfer.client import ask, make_client

    def elsewhere(reply: Reply) -> bool:
        reply.send(302, b"", {"location": f"{other.url}/secret"})
        return True

    async def main() -> None:
        async with make_client() as http:
            await ask(http, "GET", f"{other.url}/secret")
            async with opened(http, Location(url=outside.url), {}, read_seconds=5):
                raise AssertionError

    with running_origin() as other:
        outside.faults.append(elsewhere)
        with pytest.raises(RemoteError, match="not on the internet"):
            asyncio.run(main())


@pytest.mark.parametrize("direct", [False, True])
def test_where_a_proxy_leads_is_for_the_proxy_to_judge(
    outside: FakeOrigin, monkeypatch: pytest.MonkeyPatch, direct: bool
) -> None:
    from corectl.transfer.client import make_client

    def elsewhere(reply: Reply) -> bool:
        if not reply.asked.path.endswith("/start"):
            return False
        host = outside.host if direct else "cdn.invalid"
        reply.send(302, b"", {"location": f"http://{host}/end"})
        return True

    async def main() -> bytes:
        async with (
            make_client() as http,
            opened(http, Location(url="http://registry.invalid/start"), {}, read_seconds=5) as response,
        ):
            return await response.aread()

    with running_origin() as proxy:
        monkeypatch.setenv("HTTP_PROXY", proxy.url)
        monkeypatch.setenv("NO_PROXY", "127.0.0.1")
        proxy.faults.append(elsewhere)
        proxy.content["http://cdn.invalid/end"] = outside.content["/end"] = b"there"
        assert asyncio.run(main()) == b"there"


@pytest.mark.parametrize(
    ("address", "inside"),
    [
        ("127.0.0.1", True),
        ("10.1.2.3", True),
        ("172.16.0.1", True),
        ("192.168.1.1", True),
        ("169.254.169.254", True),
        ("100.64.0.1", True),
        ("0.0.0.0", True),
        ("::1", True),
        ("fe80::1%eth0", True),
        ("fd00::1", True),
        ("::ffff:127.0.0.1", True),
        ("::ffff:8.8.8.8", False),
        ("8.8.8.8", False),
        ("2606:4700::1111", False),
    ],
)
def test_which_addresses_are_inside(address: str, inside: bool) -> None:
    class Stream:
        def get_extra_info(self, name: str) -> Any:
            return (address, 443) if name == "server_addr" else None

    assert peers._is_inside(Stream()) is inside


def test_the_client_tells_which_connections_are_direct(monkeypatch: pytest.MonkeyPatch) -> None:
    """It is asked in a way that the library does not promise to keep."""
    from corectl.transfer.client import make_client

    monkeypatch.setenv("HTTPS_PROXY", "http://127.0.0.1:9")
    monkeypatch.setenv("NO_PROXY", "near.example")

    async def main() -> list[bool]:
        async with make_client() as http:
            watching = peers.Peers(http)
            urls = ("https://far.example", "https://near.example", "http://far.example")
            return [watching._is_direct(httpx.URL(url)) for url in urls]

    assert asyncio.run(main()) == [False, True, True]


def test_errors_are_told_in_words_of_the_registry_only(
    origin: FakeOrigin, puller: Puller, layer: Layer
) -> None:
    def says(reply: Reply) -> bool:
        reply.send(400, b"secret of another host")
        return True

    with running_origin() as other:
        other.faults.append(says)
        origin.faults.append(redirecting(f"{other.url}/elsewhere?signature=x", layer))
        _, error = failure_of(puller)
        assert isinstance(error, RemoteError)
        assert error.message == f'status 400 from "{other.url}/elsewhere"'


def test_a_redirect_within_the_origin_keeps_them(origin: FakeOrigin, puller: Puller, layer: Layer) -> None:
    origin.content["/elsewhere"] = DATA
    origin.faults.append(redirecting("/elsewhere", layer))
    check(puller, layer)
    moved = [asked for asked in origin.log if asked.path == "/elsewhere"]
    assert moved and all(asked.headers["authorization"] == "Bearer secret" for asked in moved)


def test_a_circle_of_redirects(origin: FakeOrigin, puller: Puller, layer: Layer) -> None:
    origin.faults.append(redirecting(f"/blobs/{layer.digest}", layer))
    _, error = failure_of(puller)
    assert isinstance(error, RemoteError) and "redirects more than 10 times" in error.message


SECRET = {"authorization": "Bearer secret"}


@pytest.mark.parametrize(
    ("target", "keeps"),
    [
        ("https://registry.example/other", True),
        ("https://REGISTRY.example:443/other", True),
        ("other", True),
        ("//registry.example/other", True),
        ("https://registry.example:8443/other", False),
        ("https://cdn.example/other", False),
        ("https://registry.example.evil.example/", False),
        ("https://registry.example@evil.example/", None),
        ("http://registry.example/other", None),
        ("http://cdn.example/other", None),
        ("ftp://registry.example/other", None),
        ("file:///etc/passwd", None),
        ("https://[::1", None),
    ],
)
def test_where_redirects_may_lead(target: str, keeps: bool | None) -> None:
    here = Location(url="https://registry.example/blob", headers=SECRET)
    if keeps is None:
        with pytest.raises(RemoteError):
            next_location(here, target, allow_http=False)
    else:
        assert bool(next_location(here, target, allow_http=False).headers) is keeps


def test_headers_that_were_left_behind_do_not_come_back() -> None:
    here = Location(url="https://registry.example/blob", headers=SECRET)
    there = next_location(here, "https://cdn.example/", allow_http=False)
    assert not next_location(there, "https://registry.example/blob", allow_http=False).headers


def test_an_insecure_registry_may_lead_to_an_insecure_store() -> None:
    here = Location(url="http://registry.example/blob", headers=SECRET)
    assert not next_location(here, "http://cdn.example/", allow_http=True).headers
    # The same host without encryption is another origin than with it.
    assert not next_location(here, "https://registry.example/", allow_http=True).headers


def test_the_client_follows_nothing_by_itself(origin: FakeOrigin) -> None:
    from corectl.transfer.client import ask, make_client

    async def main() -> int:
        async with make_client() as http:
            return (await ask(http, "GET", f"{origin.url}/r")).status

    def elsewhere(reply: Reply) -> bool:
        reply.send(302, b"", {"location": "/x"})
        return True

    origin.faults.append(elsewhere)
    assert asyncio.run(main()) == 302
    assert [asked.path for asked in origin.log] == ["/r"]


def test_proxies_of_the_environment(origin: FakeOrigin, monkeypatch: pytest.MonkeyPatch) -> None:
    from corectl.transfer.client import ask, make_client

    monkeypatch.setenv("HTTP_PROXY", origin.url)
    monkeypatch.setenv("NO_PROXY", "direct.invalid")

    async def main(url: str) -> None:
        async with make_client() as http:
            await ask(http, "GET", url)

    asyncio.run(main("http://registry.invalid/v2/"))
    assert origin.log[0].path == "http://registry.invalid/v2/"
    with pytest.raises(RemoteError):
        asyncio.run(main("http://direct.invalid/v2/"))
    assert len(origin.log) == 1


def test_httpx_has_what_makes_large_reads() -> None:
    """It is an attribute of a class of the library: if it goes, pulls become slow and nothing else says so."""
    import httpcore

    assert isinstance(httpcore.AsyncHTTP11Connection.READ_NUM_BYTES, int)

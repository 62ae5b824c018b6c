"""Images that requests only name: what is fetched, what is not, and from where."""

from __future__ import annotations

import asyncio
import base64
import socket
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import NameOID

from corectl import addresses
from corectl.config import Settings
from corectl.errors import BadRequest, Canceled
from corectl.server import fetching
from corectl.server.fetching import MAX_IMAGES, fetch_images

Answer = Callable[[asyncio.StreamWriter], Awaitable[None]]

FIELD = "messages[0].content[1].image_url"
DATA = b"\x89PNG and so on"
PNG = b"HTTP/1.1 200 OK\r\ncontent-type: image/png\r\n"


class Target:
    """A server on loopback that gives one answer, and keeps what it was sent."""

    def __init__(self, answer: Answer, tls: ssl.SSLContext | None = None) -> None:
        self.asked: list[bytes] = []
        self._tls = tls
        self._answer = answer

    async def start(self) -> asyncio.Server:
        server = await asyncio.start_server(self._take, "127.0.0.1", 0, ssl=self._tls)
        self.port = server.sockets[0].getsockname()[1]
        return server

    async def _take(self, reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        try:
            self.asked.append(await reader.readuntil(b"\r\n\r\n"))
            await self._answer(writer)
            await writer.drain()
        except (ConnectionError, asyncio.IncompleteReadError):
            pass
        finally:
            writer.close()


def saying(*parts: bytes) -> Answer:
    async def answer(writer: asyncio.StreamWriter) -> None:
        writer.write(b"".join(parts))

    return answer


def whole(data: bytes = DATA) -> Answer:
    return saying(PNG, b"content-length: %d\r\n\r\n" % len(data), data)


class Client:
    """The request's other end: it stays, or leaves when `gone` is set."""

    def __init__(self) -> None:
        self.gone = asyncio.Event()

    async def receive(self) -> dict[str, Any]:
        await self.gone.wait()
        return {"type": "http.disconnect"}


def services(**settings: Any) -> Any:
    async def reading(record: Any, work: Callable[[], Any]) -> Any:
        return await asyncio.to_thread(work)

    return SimpleNamespace(
        settings=Settings(**{"image_urls": True, **settings}),
        reading=reading,
        capabilities=lambda record: record.can,
    )


def a_record(*can: str) -> Any:
    return SimpleNamespace(config=SimpleNamespace(remote_host=""), name=SimpleNamespace(full="m:1"), can=can)


async def fetched(*urls: str, client: Any = None, can: str = "vision", **settings: Any) -> dict[str, str]:
    request: Any = client or Client()
    fields = {FIELD if n == 0 else f"messages[{n}].content[0].image_url": url for n, url in enumerate(urls)}
    return await fetch_images(request, services(**settings), a_record(can), fields)


def from_target(target: Target, url: str = "http://127.0.0.1:{}/a.png?b=c#d", **settings: Any) -> str:
    async def main() -> str:
        async with await target.start():
            (image,) = (await fetched(url.format(target.port), **settings)).values()
            return image

    return asyncio.run(main())


def refused(target: Target, url: str = "http://127.0.0.1:{}/", **settings: Any) -> str:
    with pytest.raises(BadRequest) as caught:
        from_target(target, url, **settings)
    assert caught.value.status == 400 and caught.value.message.startswith(f"{FIELD}: ")
    return caught.value.message.removeprefix(f"{FIELD}: ")


@pytest.fixture
def inside(monkeypatch: pytest.MonkeyPatch) -> None:
    """Loopback is taken for the internet."""
    monkeypatch.setattr(addresses, "is_public", lambda address: address == "127.0.0.1")


@pytest.fixture
def names(monkeypatch: pytest.MonkeyPatch) -> dict[str, list[str]]:
    """What names mean; others mean nothing."""
    meant: dict[str, list[str]] = {}

    async def getaddrinfo(self: Any, host: str, port: int, **kwargs: Any) -> list[Any]:
        if host not in meant:
            raise socket.gaierror(socket.EAI_NONAME, "unknown")
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in meant[host]]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    return meant


def test_an_image_is_fetched_without_credentials(inside: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HTTP_PROXY", "http://127.0.0.1:9")
    target = Target(whole())
    assert base64.b64decode(from_target(target)) == DATA
    (asked,) = target.asked
    assert asked.startswith(b"GET /a.png?b=c HTTP/1.1\r\n")
    assert not {b"authorization", b"cookie", b"referer"} & {
        line.partition(b":")[0].lower() for line in asked.split(b"\r\n")
    }


def test_a_name_is_asked_for_by_name(inside: None, names: dict[str, list[str]]) -> None:
    names["images.example"] = ["127.0.0.1"]
    target = Target(whole())
    assert base64.b64decode(from_target(target, "http://images.example:{}/")) == DATA
    assert b"host: images.example:%d\r\n" % target.port in target.asked[0].lower()


def test_several_are_fetched_at_once(inside: None) -> None:
    """Each waits until the others are asked for."""

    async def main() -> dict[str, str]:
        barrier = asyncio.Barrier(3)

        async def answer(writer: asyncio.StreamWriter) -> None:
            await barrier.wait()
            await whole()(writer)

        target = Target(answer)
        async with await target.start():
            return await fetched(*(f"http://127.0.0.1:{target.port}/{n}" for n in range(3)))

    assert len(asyncio.run(main())) == 3


def test_one_that_is_named_twice_is_fetched_once_and_counts_twice(inside: None) -> None:
    async def main(room: int) -> int:
        target = Target(whole(bytes(3000)))
        async with await target.start():
            url = f"http://127.0.0.1:{target.port}/"
            assert list(await fetched(url, url, max_body=room)) == [url]
        return len(target.asked)

    assert asyncio.run(main(8000)) == 1
    with pytest.raises(BadRequest, match=r"^messages\[0\].*\(max_body\)"):
        asyncio.run(main(7000))


def test_without_urls_nothing_is_asked_of_anything() -> None:
    assert asyncio.run(fetched(can="", image_urls=False)) == {}


def test_the_setting_is_off_by_default_and_named(inside: None) -> None:
    target = Target(whole())
    assert not Settings().image_urls
    message = refused(target, image_urls=False)
    assert "image_urls (CORECTL_IMAGE_URLS)" in message and target.asked == []


def test_a_model_that_cannot_see_fetches_nothing(inside: None) -> None:
    target = Target(whole())
    with pytest.raises(BadRequest, match="m:1 does not support vision"):
        from_target(target, can="completion")
    assert target.asked == []


@pytest.mark.parametrize(
    "url",
    [
        *("http://127.0.0.1:{}/", "http://localhost:{}/", "http://2130706433:{}/", "http://0x7f.1:{}/"),
        *(
            "http://[::1]:{}/",
            "http://[::ffff:127.0.0.1]:{}/",
            "http://[64:ff9b::7f00:1]:{}/",
            "http://0:{}/",
        ),
        *("https://127.0.0.1:{}/", "http://169.254.169.254/latest", "http://[fe80::1]/", "http://224.0.0.1/"),
    ],
)
def test_nothing_inside_is_asked(url: str) -> None:
    target = Target(whole())
    assert "is not a host on the internet" in refused(target, url)
    assert target.asked == []


@pytest.mark.parametrize("meaning", [["127.0.0.1"], ["8.8.8.8", "127.0.0.1"], ["10.0.0.1"], []])
def test_nor_by_a_name_that_looks_public(names: dict[str, list[str]], meaning: list[str]) -> None:
    names["images.example"] = meaning
    target = Target(whole())
    message = refused(target, "http://images.example:{}/")
    assert message == "'images.example' is not a host on the internet; nothing else is asked"
    assert target.asked == []


def test_a_name_is_asked_for_once(monkeypatch: pytest.MonkeyPatch, inside: None) -> None:
    """So it cannot mean something else when the connection is made."""
    meant = [["127.0.0.1"], ["127.0.0.2"]]

    async def getaddrinfo(self: Any, host: str, port: int, **kwargs: Any) -> list[Any]:
        addresses = meant.pop(0) if host == "turning.example" else [host]
        return [(socket.AF_INET, socket.SOCK_STREAM, 6, "", (address, port)) for address in addresses]

    monkeypatch.setattr(asyncio.BaseEventLoop, "getaddrinfo", getaddrinfo)
    assert base64.b64decode(from_target(Target(whole()), "http://turning.example:{}/")) == DATA
    assert meant == [["127.0.0.2"]]


@pytest.mark.parametrize("location", ["http://127.0.0.1:{}/inner", "https://example.com/", "/b.png"])
def test_no_redirect_is_followed(inside: None, location: str) -> None:
    async def answer(writer: asyncio.StreamWriter) -> None:
        head = f"HTTP/1.1 302 Found\r\nlocation: {location.format(target.port)}\r\ncontent-length: 0\r\n\r\n"
        writer.write(head.encode())

    target = Target(answer)
    assert refused(target) == "the address redirects to another one; redirects are not followed"
    assert len(target.asked) == 1


@pytest.mark.parametrize(
    ("url", "message"),
    [
        ("http://user:word@127.0.0.1:{}/", "a name or a password"),
        ("ftp://127.0.0.1:{}/", "by http or https only"),
        ("file:///etc/hostname", "by http or https only"),
        ("http:///x", "by http or https only"),
        ("http://127.0.0.1:port/", "not a web address"),
        ("http://" + "x" * 70_000, "not a web address"),
        ("http://.example.com/", ""),
    ],
)
def test_only_plain_web_addresses(inside: None, url: str, message: str) -> None:
    target = Target(whole())
    assert message in refused(target, url)
    assert target.asked == []


@pytest.mark.parametrize(
    ("answer", "message"),
    [
        (saying(b"HTTP/1.1 200 OK\r\ncontent-type: text/html\r\n\r\nsecret"), "is not an image"),
        (
            saying(b"HTTP/1.1 403 secret\r\ncontent-length: 6\r\n\r\nsecret"),
            "no image at this address (status 403)",
        ),
        (saying(PNG, b"content-encoding: gzip\r\n\r\nsecret"), "compressed"),
        (saying(PNG, b"content-length: 99\r\n\r\nsecret"), "broke off"),
        (saying(b"secret\r\n\r\n"), "broke off"),
        (saying(), "broke off"),
        (saying(b"HTTP/1.1 200 OK\r\nx: " + b"secret" * 100_000), "broke off"),
    ],
)
def test_what_is_no_image_is_not_told(inside: None, answer: Answer, message: str) -> None:
    found = refused(Target(answer))
    assert message in found and "secret" not in found


async def endless(writer: asyncio.StreamWriter) -> None:
    writer.write(PNG + b"\r\n")
    while True:
        writer.write(bytes(2**16))
        await writer.drain()


def test_a_body_without_an_end(inside: None, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(fetching, "MAX_BYTES", 2**20)
    assert refused(Target(endless)) == "the image is larger than 1 MiB"


def test_all_images_are_bounded_together(inside: None) -> None:
    assert "(max_body)" in refused(Target(endless), max_body=2**20)


@pytest.mark.parametrize("head", [b"", PNG + b"\r\n"])
def test_a_reply_that_comes_slowly(inside: None, monkeypatch: pytest.MonkeyPatch, head: bytes) -> None:
    async def slowly(writer: asyncio.StreamWriter) -> None:
        writer.write(head)
        while True:
            writer.write(b"x")
            await writer.drain()
            await asyncio.sleep(0.05)

    monkeypatch.setattr(fetching, "SECONDS", 0.5)
    assert refused(Target(slowly)) == "the image did not come within 0.5 seconds"


def test_a_host_that_takes_no_connection(inside: None) -> None:
    with socket.create_server(("127.0.0.1", 0)) as closed:
        port = closed.getsockname()[1]
    with pytest.raises(BadRequest, match=r"'127\.0\.0\.1' cannot be reached"):
        asyncio.run(fetched(f"http://127.0.0.1:{port}/"))


def test_a_host_without_a_good_certificate(inside: None) -> None:
    assert "cannot be reached" in refused(Target(whole()), "https://127.0.0.1:{}/")


@pytest.fixture
def certified(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> ssl.SSLContext:
    """What a server has that is `images.example`, as those who fetch trust it."""
    key = ec.generate_private_key(ec.SECP256R1())
    name = x509.Name([x509.NameAttribute(NameOID.COMMON_NAME, "images.example")])
    now = datetime.now(UTC)
    certificate = (
        x509.CertificateBuilder(name, name, key.public_key(), x509.random_serial_number())
        .not_valid_before(now - timedelta(days=1))
        .not_valid_after(now + timedelta(days=1))
        .add_extension(x509.SubjectAlternativeName([x509.DNSName("images.example")]), critical=False)
        .sign(key, hashes.SHA256())
    )
    own = serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    public = certificate.public_bytes(serialization.Encoding.PEM)
    file = tmp_path / "server.pem"
    file.write_bytes(key.private_bytes(serialization.Encoding.PEM, *own) + public)
    served = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    served.load_cert_chain(file)
    trusting = ssl.create_default_context(cadata=public.decode())
    monkeypatch.setattr(fetching, "_tls", lambda: trusting)
    return served


def test_a_certificate_is_for_the_name(
    inside: None, names: dict[str, list[str]], certified: ssl.SSLContext
) -> None:
    """Although the connection is made to an address."""
    names |= {"images.example": ["127.0.0.1"], "others.example": ["127.0.0.1"]}
    target = Target(whole(), certified)
    assert base64.b64decode(from_target(target, "https://images.example:{}/")) == DATA
    message = refused(target, "https://others.example:{}/")
    assert message == "'others.example' cannot be reached" and len(target.asked) == 1


def test_so_many_and_no_more(inside: None) -> None:
    urls = [f"http://127.0.0.1:9/{n}" for n in range(MAX_IMAGES + 1)]
    with pytest.raises(BadRequest, match=rf"^messages\[{MAX_IMAGES}\].*; at most {MAX_IMAGES} may be"):
        asyncio.run(fetched(*urls))


def test_a_client_that_leaves_ends_it(inside: None) -> None:
    async def main() -> None:
        client = Client()

        async def answer(writer: asyncio.StreamWriter) -> None:
            client.gone.set()
            await asyncio.sleep(60)

        target = Target(answer)
        server = await target.start()
        with pytest.raises(Canceled):
            await fetched(f"http://127.0.0.1:{target.port}/", client=client)
        server.close()

    asyncio.run(main())

"""Who asks a registry: challenges, keys, signatures, passwords, and where none of it may go."""

from __future__ import annotations

import asyncio
import base64
import json
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import httpx
import pytest
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.asymmetric.rsa import generate_private_key
from cryptography.hazmat.primitives.serialization import Encoding, NoEncryption, PrivateFormat

from corectl.errors import BadRequest, RemoteError, Unauthorized
from corectl.registry.keys import SigningKey, key_path
from corectl_registry.auth import AuthorizedHttp
from corectl_registry.challenge import Challenge, checked_realm, read_challenge
from corectl_registry.docker_config import credentials
from corectl_registry.registry import OciRegistry
from tests.core.transfer_kit import FakeOrigin, Puller, Reply, failure_of, running_origin
from tests.plugins.registry_kit import Guard, guarded_origin

DATA = b"weights " * 10_000


@pytest.fixture(autouse=True)
def home(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.setenv("HOME", str(tmp_path / "home"))
    monkeypatch.delenv("DOCKER_CONFIG", raising=False)
    return tmp_path / "home"


@pytest.fixture
def guarded() -> Iterator[tuple[FakeOrigin, Guard]]:
    with guarded_origin() as found:
        yield found


def offering(origin: FakeOrigin, name: str = "m") -> None:
    """Puts a model where the protocol has it."""
    layer = origin.add(DATA)
    origin.publish(layer, name=name)
    for path, data in list(origin.content.items()):
        origin.content[f"/v2/library/{name}{path}"] = data
    origin.content[f"/v2/library/{name}/manifests/latest"] = origin.content[f"/manifests/{name}"]


def pull(tmp_path: Path, origin: FakeOrigin) -> Puller:
    puller = Puller(tmp_path / "models", OciRegistry())  # type: ignore[arg-type]
    assert puller.pull(f"{origin.host}/library/m", insecure=True)[-1].status == "success"
    return puller


def failing(tmp_path: Path, origin: FakeOrigin) -> Exception:
    puller = Puller(tmp_path / "models", OciRegistry())  # type: ignore[arg-type]
    return failure_of(puller, f"{origin.host}/library/m", insecure=True)[1]


@pytest.mark.parametrize(
    ("headers", "expected"),
    [
        (
            ['Bearer realm="https://r/token",service="s",scope="repository:a/b:pull,push"'],
            Challenge("bearer", "https://r/token", "s", ("repository:a/b:pull,push",)),
        ),
        (['bearer REALM="x" , scope="a b"'], Challenge("bearer", "x", "", ("a", "b"))),
        (['Bearer realm="a, b=\\"c\\", realm=d",service=s'], Challenge("bearer", 'a, b="c", realm=d', "s")),
        (['Basic realm="b", Bearer realm="x",service="s"'], Challenge("bearer", "x", "s")),
        (['Basic realm="b"', 'Bearer realm="x"'], Challenge("bearer", "x")),
        (['Negotiate, Basic realm="b"'], Challenge("basic", "b")),
    ],
)
def test_challenges(headers: list[str], expected: Challenge) -> None:
    assert read_challenge(headers) == expected


@pytest.mark.parametrize(
    "headers", [[], [""], ["Negotiate"], ["=,=,="], ["\0" * 100_000], ['Digest realm="x']]
)
def test_challenges_that_cannot_be_met(headers: list[str]) -> None:
    with pytest.raises(Unauthorized, match="unauthorized: access denied"):
        read_challenge(headers)


@pytest.mark.parametrize(
    ("realm", "registry", "good"),
    [
        ("https://r.example/token", "https://r.example", True),
        ("https://R.example:443/token", "https://r.example", True),
        ("https://r.example:5000/token", "http://r.example:5000", True),
        ("http://r.example:5000/token", "http://r.example:5000", True),
        ("https://auth.docker.io/token", "https://registry-1.docker.io", True),
        ("https://auth.docker.io/token", "https://r.example", False),
        ("https://evil.example/token", "https://r.example", False),
        ("https://r.example.evil.example/token", "https://r.example", False),
        ("https://r.example@evil.example/token", "https://r.example", False),
        ("https://evil.example\\@r.example/token", "https://r.example", False),
        ("https://r.example:8443/token", "https://r.example", False),
        ("http://r.example/token", "https://r.example", False),
        ("http://r.example:443/token", "https://r.example", False),
        ("file:///token", "https://r.example", False),
        ("", "https://r.example", False),
    ],
)
def test_realms(realm: str, registry: str, good: bool) -> None:
    if good:
        checked_realm(realm, httpx.URL(registry))
    else:
        with pytest.raises(RemoteError):
            checked_realm(realm, httpx.URL(registry))


def test_the_error_names_both_hosts() -> None:
    with pytest.raises(RemoteError) as caught:
        checked_realm("https://evil.example/t", httpx.URL("https://r.example"))
    assert caught.value.message == 'realm host "evil.example" does not match original host "r.example"'


def test_a_key_is_made_and_signs(tmp_path: Path, home: Path, guarded: tuple[FakeOrigin, Guard]) -> None:
    origin, guard = guarded
    offering(origin)
    pull(tmp_path, origin)
    private, public = home / ".ollama" / "id_ed25519", home / ".ollama" / "id_ed25519.pub"
    assert private.stat().st_mode & 0o777 == 0o600 and public.stat().st_mode & 0o777 == 0o644
    assert private.read_bytes().startswith(b"-----BEGIN OPENSSH PRIVATE KEY-----")
    assert public.read_text().split() == ["ssh-ed25519", guard.keys[0]]
    # One token does for all requests of a pull, and it is not kept for the next one.
    assert len(guard.keys) == 1
    pull(tmp_path, origin)
    assert len(guard.keys) == 2 and guard.keys[0] == guard.keys[1]


def test_a_key_that_another_program_has_made(
    tmp_path: Path, home: Path, guarded: tuple[FakeOrigin, Guard]
) -> None:
    key = Ed25519PrivateKey.generate()
    (home / ".ollama").mkdir(parents=True)
    pem = key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption())
    key_path().write_bytes(pem)
    origin, guard = guarded
    offering(origin)
    pull(tmp_path, origin)
    assert guard.keys == [SigningKey(key).public] and key_path().read_bytes() == pem


def test_two_programs_that_make_a_key_at_once_have_the_same() -> None:
    made: list[str] = []
    threads = [
        threading.Thread(target=lambda: made.append(SigningKey.load(key_path()).public)) for _ in range(8)
    ]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert len(made) == 8 and len(set(made)) == 1
    assert key_path().with_suffix(".pub").read_text().split()[1] == made[0]
    assert len(list(key_path().parent.iterdir())) == 2


@pytest.mark.parametrize("kind", ["rubbish", "rsa", "large"])
def test_keys_that_cannot_be_used(kind: str) -> None:
    key_path().parent.mkdir(parents=True)
    if kind == "rsa":
        key = generate_private_key(65537, 2048)
        key_path().write_bytes(key.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()))
    else:
        key_path().write_bytes(b"rubbish" * (1 if kind == "rubbish" else 100_000))
    with pytest.raises(Unauthorized, match="the key id_ed25519"):
        SigningKey.load(key_path())


def test_a_public_model_needs_no_key(tmp_path: Path, home: Path) -> None:
    with running_origin() as origin:
        offering(origin)
        pull(tmp_path, origin)
    assert not home.exists()


def test_a_second_refusal_is_final(tmp_path: Path, guarded: tuple[FakeOrigin, Guard]) -> None:
    origin, guard = guarded
    offering(origin)
    guard.accepts = False
    error = failing(tmp_path, origin)
    assert isinstance(error, Unauthorized)
    assert error.message == "pull model manifest: unauthorized: access denied"


def test_a_token_that_expires_meanwhile_is_got_again(
    tmp_path: Path, guarded: tuple[FakeOrigin, Guard]
) -> None:
    origin, guard = guarded
    offering(origin)
    origin.faults.insert(0, lambda reply: _change(guard) if "blobs" in reply.path else False)
    pull(tmp_path, origin)
    assert len(guard.keys) == 2


def _change(guard: Guard) -> bool:
    guard.token = "another"
    return False


def test_nothing_goes_to_a_realm_on_another_host(tmp_path: Path, guarded: tuple[FakeOrigin, Guard]) -> None:
    origin, guard = guarded
    offering(origin)
    with running_origin() as thief:
        guard.realm = f"{thief.url}/token"
        error = failing(tmp_path, origin)
        assert isinstance(error, RemoteError)
        assert error.message == (
            f'pull model manifest: realm host "{thief.host}" does not match original host "{origin.host}"'
        )
        assert thief.log == []


@pytest.mark.parametrize(
    "token", [b"{}", b"[]", b'{"token":"a\\r\\nx: y"}', b'{"token":"\xc3\xa9"}', b"x" * 70_000]
)
def test_tokens_that_are_none(tmp_path: Path, guarded: tuple[FakeOrigin, Guard], token: bytes) -> None:
    origin, _ = guarded
    offering(origin)

    def give(reply: Reply) -> bool:
        if not reply.path.startswith("/token"):
            return False
        reply.send(200, token)
        return True

    origin.faults.insert(0, give)
    assert isinstance(failing(tmp_path, origin), RemoteError)


def login(home: Path, *hosts: str, **more: str) -> str:
    """Writes a configuration of Docker's; returns what is sent."""
    auth = base64.b64encode(b"user:pass:word").decode()
    entry = more or {"auth": auth}
    (home / ".docker").mkdir(parents=True)
    (home / ".docker" / "config.json").write_text(
        json.dumps({"auths": dict.fromkeys(hosts, entry), "credsStore": "pass", "HttpHeaders": {"x": "y"}})
    )
    return auth


@pytest.mark.parametrize(
    ("key", "host", "found"),
    [
        ("r.example", "r.example", True),
        ("https://r.example/v1/", "r.example", True),
        ("R.example:5000", "r.example:5000", True),
        ("r.example", "r.example:5000", False),
        ("r.example.evil.example", "r.example", False),
        ("https://index.docker.io/v1/", "registry-1.docker.io", True),
        ("https://index.docker.io/v1/", "docker.evil.example", False),
    ],
)
def test_passwords_of_docker(home: Path, key: str, host: str, found: bool) -> None:
    login(home, key)
    assert credentials(httpx.URL(f"https://{host}")).reveal() == ("user:pass:word" if found else "")


@pytest.mark.parametrize(
    ("key", "registry", "found"),
    [
        ("r.example", "http://r.example", False),
        ("https://r.example", "http://r.example", False),
        ("http://r.example", "http://r.example", True),
        ("http://r.example", "https://r.example", True),
        ("127.0.0.1:5000", "http://127.0.0.1:5000", True),
        ("localhost:5000", "http://localhost:5000", True),
        ("[::1]:5000", "http://[::1]:5000", True),
        ("127.0.0.1.evil.example", "http://127.0.0.1.evil.example", False),
    ],
)
def test_a_password_is_not_sent_in_the_clear(home: Path, key: str, registry: str, found: bool) -> None:
    login(home, key)
    assert bool(credentials(httpx.URL(registry))) is found


def test_a_registry_without_encryption_gets_no_password(home: Path) -> None:
    auth, seen = login(home, "https://r.example"), []

    def answer(request: httpx.Request) -> httpx.Response:
        seen.append(request.headers.get("authorization", ""))
        return httpx.Response(
            401, headers={"www-authenticate": "Basic realm=r"}, stream=httpx.ByteStream(b"")
        )

    async def work() -> None:
        async with httpx.AsyncClient(transport=httpx.MockTransport(answer)) as http:
            with pytest.raises(Unauthorized):
                await AuthorizedHttp("http://r.example", http).ask("GET", "http://r.example/v2/")

    asyncio.run(work())
    assert seen and not any(auth in header for header in seen)


@pytest.mark.parametrize(
    "text", ["", "[]", "{", '{"auths": {"r.example": {"auth": "%%"}}}', '{"auths":{"r.example":{}}}']
)
def test_configurations_of_docker_that_say_nothing(home: Path, text: str) -> None:
    (home / ".docker").mkdir(parents=True)
    (home / ".docker" / "config.json").write_text(text)
    assert not credentials(httpx.URL("https://r.example"))


def test_a_password_gets_a_token(tmp_path: Path, home: Path, guarded: tuple[FakeOrigin, Guard]) -> None:
    origin, guard = guarded
    offering(origin)
    guard.password = login(home, origin.host, "other.example")
    pull(tmp_path, origin)
    given = [asked for asked in origin.log if "Basic" in asked.headers.get("authorization", "")]
    assert {asked.path.partition("?")[0] for asked in given} == {"/token"}
    assert not (home / ".ollama").exists()


def test_a_registry_that_wants_the_password_itself(tmp_path: Path, home: Path) -> None:
    with running_origin() as origin:
        offering(origin)
        auth = login(home, origin.host)

        def basic(reply: Reply) -> bool:
            if reply.asked.headers.get("authorization") == f"Basic {auth}":
                return False
            reply.send(401, b"", {"www-authenticate": 'Basic realm="r"'})
            return True

        origin.faults.append(basic)
        pull(tmp_path, origin)


def test_ssh_keygen_reads_the_key() -> None:
    public = SigningKey.load(key_path()).public
    try:
        done = subprocess.run(
            ["ssh-keygen", "-y", "-f", str(key_path())], capture_output=True, text=True, check=True
        )
    except FileNotFoundError:
        pytest.skip("ssh-keygen is not installed")
    assert done.stdout.split()[1] == public


@pytest.mark.parametrize(
    "name", ["r:abc/n/m", "127.0.0.1:99999/n/m", "127.0.0.1:/n/m", "a..b/n/m", f"{'a' * 70}.b/n/m"]
)
def test_hosts_that_are_none(tmp_path: Path, name: str) -> None:
    puller = Puller(tmp_path / "models", OciRegistry())  # type: ignore[arg-type]
    _, error = failure_of(puller, name, insecure=True)
    assert isinstance(error, BadRequest | RemoteError) and "transfer failed" not in error.message

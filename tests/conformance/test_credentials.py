"""Credentials reach only the origin that they belong to: each test has a listener that keeps all that arrives there."""

from __future__ import annotations

import base64
import json
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.conftest import DATA, Server
from tests.registry import faults, stock
from tests.registry.certificates import Authority
from tests.registry.docker import DockerRegistry
from tests.registry.faults import blobs, manifests, redirecting
from tests.registry.host import Answer, Asked, Handler, Host, forward, nothing, plain
from tests.registry.served import insecure_name, names, pull, steps, transfer_server
from tests.registry.tokens import TokenGate
from tests.registry.tunnel import Tunnel
from tests.registry.uploads import RedirectedUploads

WEIGHTS = (DATA / "tinybert.gguf").read_bytes()
LOGIN = "alice:open-sesame"


@pytest.fixture(scope="module")
def authority(tmp_path_factory: pytest.TempPathFactory) -> Authority:
    return Authority(tmp_path_factory.mktemp("authority"))


@pytest.fixture(scope="module")
def server(tmp_path_factory: pytest.TempPathFactory, authority: Authority) -> Iterator[Server]:
    running = transfer_server(tmp_path_factory.mktemp("credentials"), SSL_CERT_FILE=str(authority.file))
    yield running
    assert running.stop() == 0, running.log


@pytest.fixture
def gate() -> TokenGate:
    return TokenGate()


@pytest.fixture
def front(registry: DockerRegistry, gate: TokenGate) -> Iterator[Host]:
    """A registry that wants to know who asks."""
    with Host(forward(registry.url), gate) as host:
        yield host


@pytest.fixture
def encrypted(registry: DockerRegistry, gate: TokenGate, authority: Authority) -> Iterator[Host]:
    with Host(forward(registry.url), gate, tls=authority.context()) as host:
        yield host


@pytest.fixture
def listener() -> Iterator[Host]:
    """Somebody else, on another port, who would like to have credentials and answers nothing."""
    with Host(nothing) as host:
        yield host


@pytest.fixture
def name(registry: DockerRegistry, request: pytest.FixtureRequest) -> str:
    """A model of this test's own."""
    found = f"secret/{request.node.name.partition('[')[0].replace('_', '-')[:70]}"
    stock.put(registry, found, stock.model(("model", WEIGHTS), ("license", request.node.name.encode())))
    return found


def _secrets(host: Host) -> list[str]:
    """What nobody but the registry should have heard."""
    return host.received("authorization") + host.received("cookie") + host.received("proxy-authorization")


def _fails(found: list[dict[str, object]]) -> str:
    """The error that a pull or push must have ended with."""
    assert "error" in found[-1] and {"status": "success"} not in found, found
    return str(found[-1]["error"])


def test_a_registry_that_wants_to_know(server: Server, front: Host, gate: TokenGate, name: str) -> None:
    """The key signs what the protocol says, and the tokens are for what is asked for only."""
    assert pull(server, front, name)[-1] == {"status": "success"}
    assert gate.refused == []
    assert set(gate.scopes) == {f"repository:{name}:pull"}
    key = (server.folder / "home/.ollama/id_ed25519.pub").read_text().split()[1]
    kinds = {value.partition(" ")[0].partition(":")[0] for value in front.received("authorization")}
    assert kinds == {"Bearer", key}
    target = f"{name}-sent"
    copied = {"source": f"{front.netloc}/{name}", "destination": f"{front.netloc}/{target}"}
    assert server.client.post("/api/copy", json=copied).status_code == 200
    found = steps(server, "/api/push", model=insecure_name(front, target))
    assert found[-1] == {"status": "success"}, found
    assert f"repository:{target}:push,pull" in gate.scopes and gate.refused == []


def test_a_key_that_the_registry_does_not_know(server: Server, registry: DockerRegistry, name: str) -> None:
    with Host(forward(registry.url), TokenGate(keys=set())) as front:
        assert "unauthorized: access denied" in _fails(pull(server, front, name))
    assert f"{front.netloc}/{name}:latest" not in names(server)


def test_tokens_that_expire_meanwhile(server: Server, front: Host, gate: TokenGate, name: str) -> None:
    def forgetful(asked: Asked, further: Handler) -> Answer:
        if asked.is_blob:
            gate.forget()
        return further(asked)

    front.layers.insert(0, blobs(faults.times(1, forgetful)))
    assert pull(server, front, name)[-1] == {"status": "success"}
    assert gate.refused == []


@pytest.mark.parametrize(
    "realm",
    [
        "{listener}/token",
        "http://{front}@{elsewhere}/token",
        "http://{front}\\@{elsewhere}/token",
        "http://{elsewhere}#@{front}/token",
        "http://{front}.{elsewhere}/token",
        "//{elsewhere}/token",
        "file:///etc/hostname",
        "ftp://{front}/token",
        "http://",
        "",
    ],
)
def test_a_realm_elsewhere(
    server: Server, front: Host, gate: TokenGate, listener: Host, name: str, realm: str
) -> None:
    gate.realm = realm.format(listener=listener.url, front=front.netloc, elsewhere=listener.netloc) or "x"
    error = _fails(pull(server, front, name))
    assert "realm" in error
    assert listener.asked == [] and front.received("authorization") == []
    assert f"{front.netloc}/{name}:latest" not in names(server)


def test_a_realm_without_encryption(
    server: Server, encrypted: Host, gate: TokenGate, listener: Host, name: str
) -> None:
    for realm in (f"http://{encrypted.netloc}/token", f"http://{listener.netloc}/token"):
        gate.realm = realm
        found = steps(server, "/api/pull", model=f"{encrypted.netloc}/{name}", insecure=False)
        assert "realm" in _fails(found)
    assert listener.asked == [] and encrypted.received("authorization") == []
    gate.realm = ""
    found = steps(server, "/api/pull", model=f"{encrypted.netloc}/{name}", insecure=False)
    assert found[-1] == {"status": "success"} and gate.refused == []


def test_a_token_page_that_sends_elsewhere(server: Server, front: Host, listener: Host, name: str) -> None:
    front.layers.insert(0, faults.only(lambda asked: asked.route == "/token", redirecting(listener)))
    _fails(pull(server, front, name))
    assert _secrets(listener) == []


def test_blobs_on_another_host(
    server: Server, front: Host, registry: DockerRegistry, listener: Host, name: str
) -> None:
    """As most registries have it: their blobs are fetched from a store that must not be told who asks."""
    listener.handler = forward(registry.url)
    front.layers.append(blobs(redirecting(listener)))
    assert pull(server, front, name)[-1] == {"status": "success"}
    assert listener.count("GET", "/blobs/") and _secrets(listener) == []
    assert "Bearer" in " ".join(front.received("authorization"))


def test_blobs_behind_several_hosts(
    server: Server, front: Host, registry: DockerRegistry, listener: Host, name: str
) -> None:
    """What was taken away at the first other host does not come back at the next, or at the first again."""
    with Host(forward(registry.url), name="localhost") as last:
        listener.layers.append(redirecting(last))
        front.layers.append(blobs(redirecting(listener, status=302)))
        assert pull(server, front, name)[-1] == {"status": "success"}
        assert listener.asked and last.count("GET", "/blobs/")
        assert _secrets(listener) == _secrets(last) == []


def test_a_manifest_on_another_host(server: Server, front: Host, listener: Host, name: str) -> None:
    front.layers.append(manifests(redirecting(listener)))
    _fails(pull(server, front, name))
    assert _secrets(listener) == []


def test_blobs_without_encryption(
    server: Server, encrypted: Host, registry: DockerRegistry, listener: Host, name: str
) -> None:
    listener.handler = forward(registry.url)
    encrypted.layers.append(blobs(redirecting(listener)))
    found = steps(server, "/api/pull", model=f"{encrypted.netloc}/{name}", insecure=False)
    assert "not encrypted" in _fails(found)
    assert listener.asked == []


def test_cookies_are_not_kept(server: Server, front: Host, registry: DockerRegistry, name: str) -> None:
    def baking(asked: Asked, further: Handler) -> Answer:
        answer = further(asked)
        answer.headers.append(("set-cookie", "session=secret; Path=/"))
        return answer

    front.layers.insert(0, baking)
    assert pull(server, front, name)[-1] == {"status": "success"}
    assert front.received("cookie") == []


def _pushable(server: Server, front: Host, name: str) -> str:
    """A name under which the model is here and not there."""
    assert pull(server, front, name)[-1] == {"status": "success"}
    target = f"{name}-sent"
    copied = {"source": f"{front.netloc}/{name}", "destination": f"{front.netloc}/{target}"}
    assert server.client.post("/api/copy", json=copied).status_code == 200
    front.asked.clear()
    return insecure_name(front, target)


def test_parts_of_uploads_on_another_host(
    server: Server, front: Host, registry: DockerRegistry, name: str
) -> None:
    target = _pushable(server, front, name)
    uploads = RedirectedUploads()
    front.layers.append(uploads)
    assert steps(server, "/api/push", model=target)[-1] == {"status": "success"}
    assert uploads.host.count("PUT") == 3 and _secrets(uploads.host) == []
    uploads.close()


@pytest.mark.parametrize("header", ["location", "docker-upload-location"])
def test_uploads_that_go_on_elsewhere(
    server: Server, front: Host, listener: Host, name: str, header: str
) -> None:
    target = _pushable(server, front, name)

    def elsewhere(asked: Asked, further: Handler) -> Answer:
        return Answer(202, [(header, f"{listener.url}/upload"), ("content-length", "0")])

    front.layers.append(faults.only(lambda asked: asked.method == "POST", elsewhere))
    listener.layers.append(faults.failing(400))
    _fails(steps(server, "/api/push", model=target))
    assert listener.asked and _secrets(listener) == []


def _log_in(server: Server, host: Host) -> Path:
    path = server.folder / "home/.docker/config.json"
    path.parent.mkdir(exist_ok=True)
    auth = base64.b64encode(LOGIN.encode()).decode()
    path.write_text(json.dumps({"auths": {host.netloc: {"auth": auth}}}))
    return path


def basic(asked: Asked, further: Handler) -> Answer:
    """A layer that wants a password."""
    expected = f"Basic {base64.b64encode(LOGIN.encode()).decode()}"
    if asked.headers.get("authorization") == expected:
        return further(asked)
    return plain(401, www_authenticate='Basic realm="here"')


def test_passwords_go_to_their_own_registry(
    server: Server, registry: DockerRegistry, listener: Host, name: str
) -> None:
    with Host(forward(registry.url), basic) as front:
        config = _log_in(server, front)
        listener.layers.append(basic)
        assert "access denied" in _fails(pull(server, listener, name))
        assert listener.asked and _secrets(listener) == []
        listener.handler, listener.layers[:] = forward(registry.url), []
        front.layers.append(blobs(redirecting(listener)))
        assert pull(server, front, name)[-1] == {"status": "success"}
        assert listener.count("GET", "/blobs/") and _secrets(listener) == []
    config.unlink()


@pytest.fixture
def started(tmp_path: Path, authority: Authority) -> Iterator[Callable[..., Server]]:
    """Starts one server with flags and an environment of its own."""
    running: list[Server] = []

    def start(*flags: str, **environment: str) -> Server:
        environment = {"SSL_CERT_FILE": str(authority.file), **environment}
        running.append(transfer_server(tmp_path, *flags, **environment))
        return running[0]

    yield start
    assert [server.stop() for server in running] == [0]


def test_a_proxy_sees_no_credentials_but_its_own(
    started: Callable[..., Server], encrypted: Host, gate: TokenGate, name: str
) -> None:
    with Tunnel() as tunnel:
        server = started(HTTPS_PROXY=f"http://{LOGIN}@{tunnel.netloc}")
        found = steps(server, "/api/pull", model=f"{encrypted.netloc}/{name}", insecure=False)
        assert found[-1] == {"status": "success"}, found
        assert gate.refused == []
        own = f"Basic {base64.b64encode(LOGIN.encode()).decode()}"
        assert tunnel.heads and all(head.startswith(f"CONNECT {encrypted.netloc}") for head in tunnel.heads)
        for head in tunnel.heads:
            lines = dict(line.lower().split(": ", 1) for line in head.split("\r\n")[1:])
            assert lines.get("proxy-authorization") == own.lower() and "authorization" not in lines
        assert encrypted.received("proxy-authorization") == []
    assert LOGIN.partition(":")[2] not in server.log


def test_no_proxy_for_hosts_that_need_none(
    started: Callable[..., Server], encrypted: Host, name: str
) -> None:
    with Tunnel() as tunnel:
        proxy = f"http://{tunnel.netloc}"
        server = started(HTTPS_PROXY=proxy, HTTP_PROXY=proxy, NO_PROXY="127.0.0.1")
        found = steps(server, "/api/pull", model=f"{encrypted.netloc}/{name}", insecure=False)
        assert found[-1] == {"status": "success"}
        assert tunnel.heads == []


def test_a_proxy_that_is_not_there(started: Callable[..., Server], encrypted: Host, name: str) -> None:
    """The error does not show the password, and nothing goes past the proxy."""
    server = started(HTTPS_PROXY=f"http://{LOGIN}@127.0.0.1:9")
    error = _fails(steps(server, "/api/pull", model=f"{encrypted.netloc}/{name}", insecure=False))
    assert encrypted.asked == []
    for text in (error, server.log):
        assert "sesame" not in text


def test_nothing_secret_is_logged(
    started: Callable[..., Server], registry: DockerRegistry, name: str
) -> None:
    gate = TokenGate()
    server = started("--log-level", "debug")
    with Host(forward(registry.url), gate) as front:
        assert pull(server, front, name)[-1] == {"status": "success"}
        gate.keys = set()
        gate.forget()
        _fails(pull(server, front, "secret/other"))
        values = front.received("authorization")
    proofs = {value.partition(" ")[2] or value.partition(":")[2] for value in values}
    assert proofs and not any(proof in server.log for proof in proofs)
    assert "PRIVATE KEY" not in server.log

"""Models on other servers: their names here, and which servers there may be."""

from __future__ import annotations

import asyncio
import threading
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corectl import config
from corectl.errors import BadRequest, NotSupported, RemoteError
from corectl.messages import LoadOptions
from corectl.model.name import ModelName
from corectl.remote.backend import RemoteServer
from corectl.remote.bounded import BoundedRemoteBackend
from corectl.remote.names import local_name
from corectl.remote.remotes import MAX_UNNAMED, Remotes
from corectl.secret import Secret
from tests.core.remote_fake import KEY, URL, FakeBackend, FakeHost, make, stub
from tests.core.stories import play, until


@pytest.mark.parametrize(
    ("id", "name"),
    [
        ("smollm2:latest", "lab/smollm2:latest"),
        ("qwen3:8b", "lab/qwen3:8b"),
        ("gpt-4.1", "lab/gpt-4.1:latest"),
        ("Qwen/Qwen3-8B-AWQ", "lab/Qwen/Qwen3-8B-AWQ:latest"),
        ("hf.co/bartowski/Some.Model-GGUF:Q4_K_M", "lab/bartowski/Some.Model-GGUF:Q4_K_M"),
        ("my.org/m", "lab/my-org/m:latest"),
        ("/home/me/models/a.gguf", "lab/a.gguf:latest"),
        ("a b@c#d", "lab/a-b-c-d:latest"),
        ("m:a b", "lab/m:a-b"),
        ("ünïcode", "lab/n-code:latest"),
        ("gpt-oss:20b-cloud", "lab/gpt-oss:20b"),
        ("glm:cloud", "lab/glm:latest"),
        ("x:local", "lab/x:latest"),
        ("x" * 500, f"lab/{'x' * 80}:latest"),
    ],
)
def test_names(id: str, name: str) -> None:
    found = local_name("lab", id)
    assert found is not None and found.short == name
    assert ModelName.parse(found.short) == found, "a client can type it"


@pytest.mark.parametrize("id", ["", "/", "...", "@", "a/", ":b"])
def test_ids_that_no_name_can_be_made_of(id: str) -> None:
    assert local_name("lab", id) is None or id == "a/"


def test_servers_of_the_settings() -> None:
    made = make(
        remotes={"Lab": "10.0.0.2:8000/v1/", "cloud": "https://ollama.com"}, remote_keys={"lab": Secret(KEY)}
    )
    lab, cloud = made.named["lab"].server, made.named["cloud"].server
    assert (lab.name, lab.url, lab.key) == ("Lab", "http://10.0.0.2:8000/v1", Secret(KEY))
    assert (cloud.url, bool(cloud.key)) == ("https://ollama.com:443", False)
    assert lab.label == "Lab (http://10.0.0.2:8000/v1)"


@pytest.mark.parametrize(
    ("settings", "text"),
    [
        ({"remotes": {"a/b": URL}}, "'a/b' is no name for a server"),
        ({"remotes": {"": URL}}, "'' is no name for a server"),
        ({"remotes": {"a": URL, "A": URL}}, "'A' is there twice"),
        ({"remotes": {"a": URL, "b": f"{URL}/"}}, "'b' has the address of 'a'"),
        ({"remotes": {"a": "ftp://x"}}, "no plugin speaks to ftp:// addresses; known: http, https"),
        ({"remotes": {"a": "http://me:secret@x"}}, "an address that is none"),
        ({"remotes": {"a": "http://"}}, "an address that is none"),
        ({"remotes": {"a": "http://x:port"}}, "an address that is none"),
        ({"remote_keys": {"b": Secret(KEY)}}, "there is no server 'b' in remotes"),
        ({"remotes": {"a": URL}, "remote_keys": {"a": Secret("two words")}}, "characters that no key has"),
        ({"remotes": {"a": URL}, "remote_keys": {"a": Secret("x\r\ny: z")}}, "characters that no key has"),
        ({"remotes": {"a": URL}, "remote_keys": {"a": Secret("ü")}}, "characters that no key has"),
        ({"remotes": {"a": URL}, "remote_keys": {"a": Secret("")}}, "characters that no key has"),
    ],
)
def test_settings_that_are_wrong(settings: dict[str, Any], text: str) -> None:
    with pytest.raises(BadRequest, match="setting remote") as caught:
        make(**settings)
    assert text in caught.value.message
    assert "secret" not in caught.value.message and KEY not in caught.value.message


def test_settings_from_everywhere(tmp_path: Path) -> None:
    path = tmp_path / "corectl.toml"
    path.write_text(f'remotes = {{lab = "{URL}"}}\n[remote_keys]\nlab = "{KEY}"\n')
    environment = {"CORECTL_CONFIG": str(path), "OLLAMA_REMOTES": "a.example, b.example"}
    found = config.load({}, environment)
    assert found.remotes == {"lab": URL} and found.remote_keys["lab"].reveal() == KEY
    assert found.remote_hosts == ("a.example", "b.example")
    environment |= {"CORECTL_REMOTES": "den=http://h", "CORECTL_REMOTE_KEYS": "den=a=b=="}
    found = config.load({}, environment)
    assert found.remotes == {"den": "http://h"} and found.remote_keys["den"].reveal() == "a=b=="


def test_a_key_is_shown_nowhere(tmp_path: Path, caplog: pytest.LogCaptureFixture) -> None:
    settings = config.load({}, {"CORECTL_REMOTES": f"lab={URL}", "CORECTL_REMOTE_KEYS": f"lab={KEY}"})
    made = Remotes(settings, {"fake": FakeBackend()})
    for shown in (settings, settings.remote_keys, made.named["lab"].server, [settings.remote_keys["lab"]]):
        assert KEY not in repr(shown) and KEY not in str(shown) and KEY not in f"{shown}"
    assert config.load({}, {"CORECTL_REMOTE_KEYS": KEY}).remote_keys == {}
    assert "CORECTL_REMOTE_KEYS is left out" in caplog.text and KEY not in caplog.text
    path = tmp_path / "corectl.toml"
    for text in (f'remote_keys = "{KEY}"', f'remote_keys = ["{KEY}"]', f'remote_keys = {{lab = ["{KEY}"]}}'):
        path.write_text(text)
        with pytest.raises(BadRequest) as caught:
            config.load({}, {"CORECTL_CONFIG": str(path)})
        assert "remote_keys" in caught.value.message and KEY not in caught.value.message
    with pytest.raises(TypeError):
        msgspec.json.encode(settings.remote_keys)


def test_secrets() -> None:
    assert Secret("a") == Secret("a") != Secret("b") and len({Secret("a"), Secret("a")}) == 1
    assert not Secret() and repr(Secret()) == "" and repr(Secret("a")) == "***"
    assert Secret("ab").removed_from("xaby") == "x***y" and Secret().removed_from("x") == "x"


def test_a_stub_at_the_address_of_a_named_server_is_a_model_of_it() -> None:
    made = make(remotes={"lab": URL}, remote_keys={"lab": Secret(KEY)})
    model = made.model(stub())
    assert model.server is made.named["lab"] and model.id == "x"
    assert model.reason == f"it runs on lab ({URL}), which speaks fake"


@pytest.mark.parametrize(
    "url", ["http://10.0.0.2:8000", "http://10.0.0.2:8001/v1", "https://10.0.0.2:8000/v1"]
)
def test_the_key_is_for_its_own_address(url: str) -> None:
    made = make(remotes={"lab": URL}, remote_keys={"lab": Secret(KEY)}, remote_hosts=("10.0.0.2",))
    server = made.model(stub(url)).server.server
    assert server.url == url and not server.key


@pytest.mark.parametrize("hosts", [(), ("other.example",), ("10.0.0.20",), ("10.0.0.2:8000",)])
def test_stubs_may_not_point_anywhere(hosts: tuple[str, ...]) -> None:
    """Whoever may create models could make the server ask machines that only it can reach."""
    with pytest.raises(BadRequest, match="this server cannot run this remote model"):
        make(remote_hosts=hosts).model(stub())


def test_hosts_that_stubs_may_point_to() -> None:
    made = make(remote_hosts=("Example.com", "::1"))
    for url in ("http://example.com:1", "https://example.com:443/x", "http://[::1]:80"):
        server = made.model(stub(url)).server.server
        assert server.url == url and server.label == url
    assert made.model(stub("http://[::1]:80")).server is made.model(stub("http://[::1]:80")).server


def test_no_more_servers_of_stubs_are_remembered_than_needed() -> None:
    made = make(remote_hosts=("h",))
    first = made.model(stub("http://h:1")).server
    for port in range(2, MAX_UNNAMED + 1):
        made.model(stub(f"http://h:{port}"))
    assert made.model(stub("http://h:1")).server is first
    made.model(stub("http://h:9999"))
    assert made.model(stub("http://h:1")).server is first, "the one that was not used for longest has gone"
    assert len(made._unnamed) == MAX_UNNAMED


def test_without_a_plugin_there_are_no_remote_models() -> None:
    with pytest.raises(BadRequest, match="no plugin speaks to http"):
        make({}, remotes={"lab": URL})
    with pytest.raises(NotSupported, match="no plugin here speaks to http"):
        make({}, remote_hosts=("10.0.0.2",)).model(stub())


def test_of_several_backends_the_first_by_name_has_a_scheme() -> None:
    class Other(FakeBackend):
        name = "another"

    class Own(FakeBackend):
        name = "own"
        schemes = ("own",)

    made = make(
        {"fake": FakeBackend(), "another": Other(), "own": Own()},
        remotes={"a": "http://h", "b": "own://h:1"},
    )
    assert [watched.backend for watched in made.named.values()] == ["another", "own"]
    assert made.named["b"].server.url == "own://h:1"


class Late(FakeBackend):
    """Its way to a server is there only once it is `ready`."""

    def __init__(self) -> None:
        self.ready = False

    def connect(self, server: RemoteServer) -> FakeHost:
        if not self.ready:
            raise ZeroDivisionError("bug")
        return FakeHost(server)


def test_a_backend_that_gives_no_way_keeps_nothing_from_starting(caplog: pytest.LogCaptureFixture) -> None:
    made = make({"fake": BoundedRemoteBackend(Late())}, remotes={"lab": URL})
    assert "ZeroDivisionError: bug" in caplog.text

    async def story() -> None:
        it = made.named["lab"]
        await it.check()
        assert it.problem is not None and "backend fake failed: ZeroDivisionError: bug" in it.problem.message
        with pytest.raises(RemoteError, match="cannot be used"):
            made.model(stub()).runner(LoadOptions(), None)
        for question in (it.host.describe("x"), it.host.unload("x")):
            with pytest.raises(RemoteError, match="cannot be used"):
                await question
        assert caplog.text.count("Traceback") == 1, "it is told of once"
        await made.close()

    play(story())


def test_a_way_that_is_there_later_is_taken_without_a_restart() -> None:
    backend = Late()
    made = make({"fake": BoundedRemoteBackend(backend)}, remotes={"lab": URL}, remote_hosts=("h",))

    async def story() -> None:
        it, elsewhere = made.named["lab"], stub("http://h:1")
        await it.check()
        assert not it.up and it.host.protocol == ""
        with pytest.raises(RemoteError, match="cannot be used"):
            made.model(elsewhere)
        assert not made.at_hand(elsewhere)
        backend.ready = True
        await it.check()
        assert it.up and it.host.protocol == "fake"
        assert (await it.host.describe("x")).id == "x"
        host: Any = made.model(stub()).runner(LoadOptions(), None)
        assert made.model(elsewhere).server.host.protocol == "fake" and made.at_hand(elsewhere)
        await made.close()
        assert host.closed

    play(story())


def test_a_way_that_is_there_after_a_check_has_ended_is_there_for_the_next_one() -> None:
    go = threading.Event()
    tries: list[RemoteServer] = []

    def connect(server: RemoteServer) -> FakeHost:
        tries.append(server)
        if len(tries) == 1:
            raise RemoteError("not yet")
        go.wait(10)
        return FakeHost(server)

    async def story() -> None:
        backend = FakeBackend()
        backend.connect = connect  # type: ignore[method-assign]
        host = make({"fake": backend}, remotes={"lab": URL}).named["lab"].host
        with pytest.raises(TimeoutError):
            await asyncio.wait_for(host.models(), 0.05)
        go.set()
        await until(lambda: host.protocol == "fake")
        assert await host.models() == () and len(tries) == 2

    play(story())


def test_a_way_that_takes_long_keeps_nobody_else_waiting() -> None:
    begun, go = threading.Event(), threading.Event()

    class Slow(FakeBackend):
        def connect(self, server: RemoteServer) -> FakeHost:
            if server.url == "http://h:1":
                begun.set()
                go.wait(10)
            return FakeHost(server)

    made = make({"fake": Slow()}, remote_hosts=("h",))
    found: list[Any] = []
    threads = [
        threading.Thread(target=lambda: found.append(made.model(stub("http://h:1")).server)) for _ in range(2)
    ]
    for thread in threads:
        thread.start()
    assert begun.wait(10)
    assert made.model(stub("http://h:2")).server.server.url == "http://h:2"
    assert not found
    go.set()
    for thread in threads:
        thread.join(10)
    assert found[0] is found[1] is made.model(stub("http://h:1")).server


@pytest.mark.parametrize("schemes", [(), ("",), ("HTTP",), ("a b",), ("http", "x/y")])
def test_schemes_that_are_none(schemes: tuple[str, ...]) -> None:
    backend = FakeBackend()
    backend.schemes = schemes
    with pytest.raises(ValueError, match="schemes that are none"):
        BoundedRemoteBackend(backend)

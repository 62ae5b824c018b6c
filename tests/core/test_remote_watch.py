"""What is known of other servers: whether they answer, and what they offer."""

from __future__ import annotations

import asyncio
import logging

import msgspec
import pytest

from corectl import trace
from corectl.errors import (
    NotFound,
    RemoteError,
    RemoteUnreachable,
)
from corectl.model.manifest import ModelConfig
from corectl.model.name import ModelName
from corectl.model.record import ModelRecord
from corectl.remote import remotes as remotes_module
from corectl.remote import watch
from corectl.remote.backend import RemoteEntry
from corectl.remote.registry import RemoteModels
from tests.core.remote_fake import (
    URL,
    entries,
    host_of,
    make,
    stub,
    watched_server,
)
from tests.core.stories import play, until


def test_a_server_that_answers_is_up_and_lists_its_models(caplog: pytest.LogCaptureFixture) -> None:
    caplog.set_level(logging.INFO)

    async def story() -> None:
        it = watched_server()
        host_of(it).offers = [
            RemoteEntry(id="a", family="llama", capabilities=("completion",)),
            *entries("b/c"),
        ]
        assert not it.known.is_set()
        await it.check()
        await it.check()
        assert it.up and it.problem is None and it.known.is_set()
        a, b = it.records.values()
        assert (a.name.short, b.name.short) == ("lab/a:latest", "lab/b/c:latest")
        assert (a.config.remote_model, a.config.remote_host) == ("a", URL)
        assert a.config.capabilities == ("completion",) and a.config.model_family == "llama"
        assert a.origin == f"remote server lab ({URL})" and a.size == 0 and a.files is None
        assert a.digest != b.digest and len(a.digest) == 64

    play(story())
    assert caplog.text.count("remote server lab") == 1 and "fake, 2 models" in caplog.text


def test_a_server_that_is_gone_is_told_of_once(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        it = watched_server()
        host = host_of(it)
        host.offers = entries("a")
        await it.check()
        host.problem = RemoteUnreachable("remote server lab cannot be reached")
        for _ in range(3):
            await it.check()
        assert not it.up and it.problem is host.problem
        assert it.records, "what it had is remembered"
        host.problem = RemoteError("remote server lab refuses")
        await it.check()
        host.problem = None
        await it.check()
        assert it.up and it.problem is None

    play(story())
    assert [
        record.message.partition(";")[0] for record in caplog.records if record.levelname == "WARNING"
    ] == [
        "remote server lab cannot be reached",
        "remote server lab refuses",
    ]


def test_a_check_that_takes_too_long_or_fails_otherwise(
    monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(watch, "CHECK_SECONDS", 0.02)

    async def story() -> None:
        it = watched_server()
        host_of(it).gate.clear()
        await it.check()
        assert it.problem is not None and "did not answer within 0.02 seconds" in it.problem.message
        host_of(it).gate.set()
        host_of(it).problem = ZeroDivisionError("bug")
        await it.check()
        assert it.problem.message == "the backend fake failed: ZeroDivisionError"

    play(story())
    assert "ZeroDivisionError: bug" in caplog.text


def test_those_who_ask_at_once_share_a_check() -> None:
    async def story() -> None:
        it = watched_server()
        host_of(it).gate.clear()
        leaving, *staying = (asyncio.ensure_future(it.check()) for _ in range(4))
        await until(lambda: host_of(it).checks == 1)
        leaving.cancel()
        host_of(it).gate.set()
        await asyncio.gather(*staying)
        assert host_of(it).checks == 1 and it.up
        await it.refresh()
        assert host_of(it).checks == 1, "it is fresh"

    play(story())


def test_a_server_is_checked_again_and_again(monkeypatch: pytest.MonkeyPatch) -> None:
    """Pauses are noted instead of waited for."""
    pauses: list[float] = []

    class Timeout:
        def __init__(self, seconds: float) -> None:
            self.seconds = seconds

        async def __aenter__(self) -> None:
            if self.seconds == watch.CHECK_SECONDS:
                return
            pauses.append(self.seconds)
            await asyncio.sleep(0)
            raise TimeoutError

        async def __aexit__(self, *_: object) -> None:
            return None

    async def story() -> None:
        it = watched_server()
        host = host_of(it)
        with monkeypatch.context() as patch:
            patch.setattr(watch.asyncio, "timeout", Timeout)  # type: ignore[attr-defined]
            task = asyncio.ensure_future(it.watch())
            await until(lambda: len(pauses) >= 2)
            host.problem = RemoteUnreachable("gone")
            await until(lambda: pauses.count(watch.LONGEST_PAUSE) >= 2)
            host.problem = None
            await until(lambda: pauses[-1] == watch.PERIOD)
            task.cancel()
        await asyncio.gather(task, return_exceptions=True)

    play(story())
    assert pauses[:2] == [watch.PERIOD] * 2
    gone = pauses[pauses.index(1.0) :][:8]
    assert gone == [1.0, 2.0, 4.0, 8.0, 16.0, 32.0, 60.0, 60.0]
    assert pauses[-1] == watch.PERIOD


def test_a_request_that_goes_otherwise_than_expected_causes_a_check() -> None:
    async def story() -> None:
        made = make(remotes={"lab": URL})
        it = made.named["lab"]
        host_of(it).offers = entries("a")
        await made.start()
        await until(lambda: it.up)
        model = made.model(stub())
        model.reached(None)
        model.reached(NotFound("no such model"))
        await asyncio.sleep(0.01)
        assert host_of(it).checks == 1
        host_of(it).problem = RemoteUnreachable("gone")
        model.reached(RemoteUnreachable("gone"))
        await until(lambda: not it.up)
        host_of(it).problem = None
        model.reached(None)
        await until(lambda: it.up)
        await made.close()
        assert host_of(it).closed

    play(story())


def test_names_that_two_models_would_have(caplog: pytest.LogCaptureFixture) -> None:
    async def story() -> None:
        it = watched_server()
        host_of(it).offers = entries("a b", "a@b", "A-B", "...")
        await it.check()
        await it.check()
        assert [record.config.remote_model for record in it.records.values()] == ["a b"]

    play(story())
    assert caplog.text.count("cannot have a name of their own here: '...', 'A-B', 'a@b'") == 1


def test_a_server_with_more_models_than_anybody_needs(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "MAX_MODELS", 3)

    async def story() -> None:
        it = watched_server()
        host_of(it).offers = entries(*map(str, range(10)))
        await it.check()
        assert len(it.records) == 3

    play(story())


async def listed(registry: RemoteModels) -> list[str]:
    return [record.name.short for record in await asyncio.to_thread(lambda: list(registry.list()))]


async def found(registry: RemoteModels, name: str) -> ModelRecord | None:
    return await asyncio.to_thread(registry.find, ModelName.parse(name))


def test_the_list_waits_for_first_answers_only(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("corectl.remote.registry.WAIT_SECONDS", 0.1)

    async def story() -> None:
        made = make(remotes={"lab": URL, "den": "http://h:1", "gone": "http://h:2"})
        registry = RemoteModels(made)
        lab, den, gone = (host_of(watched) for watched in made.named.values())
        lab.offers, den.offers, gone.offers = entries("a"), entries("b"), entries("c")
        den.gate.clear()
        gone.problem = RemoteUnreachable("gone")
        await made.start()
        assert await listed(registry) == ["lab/a:latest"], "one does not answer, one is not there"
        den.gate.set()
        await until(lambda: made.named["den"].up)
        lab.gate.clear()
        made.named["lab"]._nudge.set()
        await until(lambda: lab.checks > 1)
        assert await listed(registry) == ["lab/a:latest", "den/b:latest"], "what is known is listed meanwhile"
        lab.gate.set()
        await made.close()

    play(story())


def test_a_model_that_is_new_there_is_found(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(watch, "FRESH", 0.0)

    async def story() -> None:
        made = make(remotes={"lab": URL})
        registry, host = RemoteModels(made), host_of(made.named["lab"])
        host.offers = entries("a")
        await made.start()
        await until(lambda: made.named["lab"].up)
        for name in ("lab/a", "LAB/A", "lab/a:latest"):
            assert await found(registry, name) is not None
        assert host.checks == 1, "what is known need not be asked for"
        assert await found(registry, "lab/b") is None
        host.offers = entries("a", "b", "org/c")
        assert await found(registry, "lab/b") is not None
        assert await found(registry, "lab/org/c") is not None
        checks = host.checks
        assert await found(registry, "other/b") is None and await found(registry, "b") is None
        assert host.checks == checks, "these are nobody's models"
        await made.close()

    play(story())


def test_a_model_of_a_server_that_is_gone() -> None:
    async def story() -> None:
        made = make(remotes={"lab": URL})
        registry, host = RemoteModels(made), host_of(made.named["lab"])
        host.offers = entries("a")
        await made.start()
        await until(lambda: made.named["lab"].up)
        host.problem = RemoteUnreachable("remote server lab cannot be reached: why")
        await made.named["lab"].check()
        assert await found(registry, "lab/a") is not None, "a request will see whether it is back"
        with pytest.raises(RemoteUnreachable, match="cannot be reached: why"):
            await found(registry, "lab/b")
        assert await listed(registry) == []
        await made.close()

    play(story())


def test_nobody_waits_for_a_server_that_is_known_to_be_gone(monkeypatch: pytest.MonkeyPatch) -> None:
    # However long the lines below take, no check begins by itself.
    monkeypatch.setattr(watch, "FIRST_PAUSE", 60.0)
    monkeypatch.setattr(watch, "FRESH", float("inf"))

    async def story() -> None:
        made = make(remotes={"lab": URL})
        registry, watched = RemoteModels(made), made.named["lab"]
        host = host_of(watched)
        host.problem = RemoteUnreachable("gone")
        await made.start()
        await until(lambda: watched.known.is_set())
        host.gate.clear()
        with pytest.raises(RemoteUnreachable, match="gone"):
            await asyncio.wait_for(found(registry, "lab/a"), watch.CHECK_SECONDS / 2)
        # But it is looked after; an answer that came while the name is looked up would be used at once.
        monkeypatch.setattr(watch, "FRESH", -1.0)
        with pytest.raises(RemoteUnreachable, match="gone"):
            await found(registry, "lab/a")
        await until(lambda: host.checks == 2)
        host.problem = None
        host.offers = entries("a")
        host.gate.set()
        await until(lambda: watched.up)
        assert await found(registry, "lab/a") is not None
        await made.close()

    play(story())


def test_checks_are_nobodys_requests() -> None:
    async def story() -> None:
        it = watched_server()
        seen: list[str] = []

        async def models() -> list[RemoteEntry]:
            seen.append(trace.current().id)
            return []

        host_of(it).models = models  # type: ignore[method-assign]
        trace.begin(trace.Trace(id="abc"))
        await it.check()
        assert seen == [""]

    play(story())


def test_nobody_waits_for_a_loop_that_does_not_run() -> None:
    made = make(remotes={"lab": URL})
    assert RemoteModels(made).find(ModelName.parse("lab/a")) is None


def test_a_stub_is_described_by_its_server(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(remotes_module, "WAIT_SECONDS", 0.05)

    async def story() -> None:
        made = make(remotes={"lab": URL})
        host = host_of(made.named["lab"])
        record = await made.described(stub())
        assert record.config.capabilities == ("completion",) and record.config.context_length == 64
        own = msgspec.structs.replace(
            stub(), config=ModelConfig(remote_host=URL, remote_model="x", capabilities=("vision",))
        )
        assert (await made.described(own)).config.capabilities == ("vision",), "the stub's own word counts"
        host.problem = NotFound("no")
        assert (await made.described(own)).config == own.config
        host.problem = None
        host.gate.clear()
        assert (await made.described(own)).config == own.config, "it does not wait for ever"
        elsewhere = stub("http://evil:1")
        assert await made.described(elsewhere) is elsewhere

    play(story())

"""Runner processes that do not load, hang, crash, or talk nonsense."""

from __future__ import annotations

import asyncio
import logging
import os
import re
import threading
from typing import Any

import msgspec
import psutil
import pytest

from corectl.errors import LoadFailed, RunnerDied
from corectl.messages import Delta
from corectl.runner import protocol, supervisor
from corectl.runner.supervisor import Runner
from tests.core.stories import Loader, collect, completion, events_of, play, start, until


@pytest.mark.parametrize(
    ("how", "message"),
    [
        ({"load": "refuse"}, "no such tensor"),
        ({"load": "raise"}, "who knows"),
        ({"load": "exit"}, "process has terminated: exit status 7; last log lines: .*the engine gives up"),
        ({"load": "kill"}, "process has terminated: killed by SIGKILL"),
        (
            {"load": "foreign"},
            "terminated: killed by SIGILL: the engine was built for another processor, .* hardware",
        ),
        (
            {"load": "alarm"},
            "killed by SIGALRM: a prompt took more than 90 seconds to be rendered and tokenised",
        ),
        ({"load": "realtime"}, "process has terminated: killed by signal"),
        ({"backend": "other"}, "backend 'other' cannot be used: it is not installed"),
        ({"plugin": "none"}, "backend 'fake' cannot be used: it is not installed"),
    ],
    ids=lambda value: "-".join(value.values()) if isinstance(value, dict) else "",
)
def test_a_load_that_fails_says_why_and_leaves_nothing(loader: Loader, how: Any, message: str) -> None:
    async def story() -> None:
        with pytest.raises(LoadFailed, match=message):
            await start(loader(**how))
        await no_children()

    play(story())


def test_weights_that_the_runner_cannot_read(loader: Loader) -> None:
    async def story() -> None:
        load = loader()
        load.model.weights.write_bytes(b"\xff")
        with pytest.raises(LoadFailed, match=r"\S"):
            await start(load)

    play(story())


def test_a_runner_that_floods_the_log_is_cut_and_named(
    loader: Loader, caplog: pytest.LogCaptureFixture
) -> None:
    async def story() -> None:
        runner = await start(loader(load="flood"))
        await until(lambda: "noise 199" in caplog.text)
        assert await collect(runner, completion())
        await runner.stop()
        await runner.ended
        assert f"runner {runner.pid} writes more than 200 lines in 10 seconds" in caplog.text

    with caplog.at_level(logging.INFO):
        play(story())
    assert caplog.text.count("noise") == 200


def test_a_load_that_makes_no_progress_times_out(loader: Loader) -> None:
    async def story() -> None:
        with pytest.raises(LoadFailed, match=r"timed out waiting for the model to load - progress 0\.00"):
            await start(loader(load="hang"), load_timeout=0.5)
        await no_children()

    play(story())


def test_progress_starts_the_time_limit_again() -> None:
    """Without a process: progress arrives again and again, well past the limit, and then the end."""

    async def story() -> None:
        runner = Runner()
        waiting = asyncio.ensure_future(runner._wait_ready(1.0))
        loop = asyncio.get_running_loop()
        begun = loop.time()
        while loop.time() < begun + 1.5:
            runner.received(protocol.Progress(0.5))
            await asyncio.sleep(0.01)
        assert not waiting.done()
        with pytest.raises(LoadFailed, match=r"progress 0\.50"):
            await waiting

    play(story())


def test_a_cancelled_start_leaves_nothing_behind(loader: Loader) -> None:
    async def story() -> None:
        starting = asyncio.ensure_future(start(loader(load="hang")))
        await until(lambda: bool(children()))
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await no_children()
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})

    play(story())


def test_a_start_that_is_cancelled_twice_leaves_nothing_behind(loader: Loader) -> None:
    async def story() -> None:
        starting = asyncio.ensure_future(start(loader(load="hang")))
        await until(lambda: bool(children()))
        starting.cancel()
        await asyncio.sleep(0)
        starting.cancel()
        with pytest.raises(asyncio.CancelledError):
            await starting
        await no_children()

    play(story())


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("exit", "exit status 7; last log lines: .*the engine gives up"),
        ("kill", "killed by SIGKILL"),
        ("realtime", "killed by signal"),
    ],
)
def test_a_crash_in_mid_stream_reaches_every_stream(loader: Loader, what: str, reason: str) -> None:
    async def story() -> None:
        runner = await start(loader(at=what, after=12, seconds=0.01))
        streams = [collect(runner, completion(predict=30)) for _ in range(3)]
        for error in await asyncio.gather(*streams, return_exceptions=True):
            assert isinstance(error, RunnerDied)
            assert error.message.startswith(supervisor.DIED)
        assert runner.lost.done()
        assert re.match(reason, await runner.ended)
        with pytest.raises(RunnerDied, match="unexpectedly stopped"):
            await collect(runner, completion())
        await runner.stop()
        await no_children()

    play(story())


def test_a_crash_reaches_who_waits_for_an_answer(loader: Loader) -> None:
    async def story() -> None:
        runner = await start(loader(at="hang"))
        stuck = runner.complete(completion())

        async def take_all() -> None:
            # It may say that it has read the prompt.
            while True:
                await stuck.take()

        taking = asyncio.ensure_future(take_all())
        await asyncio.sleep(0)
        os.kill(runner.pid, 9)
        with pytest.raises(RunnerDied, match="SIGKILL"):
            await taking

    play(story())


def test_text_before_a_crash_is_not_lost(loader: Loader) -> None:
    async def story() -> None:
        runner = await start(loader(at="exit", after=10, seconds=0.01))
        seen = ""
        with pytest.raises(RunnerDied):
            async for event in events_of(runner.complete(completion(predict=30))):
                seen += event.text if isinstance(event, Delta) else ""
        assert 1 <= len(seen) <= 8

    play(story())


def test_stop_waits_for_a_polite_end_and_kills_after_that(loader: Loader) -> None:
    async def story() -> None:
        runner = await start(loader(close="hang"))
        await runner.stop(grace=0.2)
        assert "SIGKILL" in await runner.ended
        await no_children()

    play(story())


def test_stop_in_the_middle_of_a_step_that_hangs(loader: Loader, monkeypatch: pytest.MonkeyPatch) -> None:
    async def story() -> None:
        runner = await start(loader(at="hang"))
        stuck = asyncio.ensure_future(collect(runner, completion()))
        await asyncio.sleep(0)
        await runner.stop(grace=0.2)
        with pytest.raises(RunnerDied):
            await stuck

    play(story())


def test_a_stop_that_was_asked_for_is_no_error_in_the_log(
    loader: Loader, caplog: pytest.LogCaptureFixture
) -> None:
    async def story(how: dict[str, str]) -> None:
        runner = await start(loader(**how))
        if how:
            with pytest.raises(RunnerDied):
                await collect(runner, completion())
        await runner.stop()
        await runner.ended

    with caplog.at_level(logging.ERROR):
        play(story({}))
        assert not caplog.records
        play(story({"at": "kill"}))
        assert "has died: killed by SIGKILL" in caplog.text


@pytest.mark.parametrize("data", [(2**31).to_bytes(4, "big"), (1).to_bytes(4, "big") + b"\xc1"])
def test_a_runner_that_sends_nonsense_is_given_up(loader: Loader, data: bytes) -> None:
    async def story() -> None:
        runner = await start(loader())
        asyncio.get_running_loop().set_exception_handler(lambda *_: None)
        link = runner._transport.get_protocol()
        assert isinstance(link, supervisor._Link)
        with pytest.raises((ValueError, msgspec.DecodeError)):
            link.data_received(data)
        await runner.stop(grace=0)

    play(story())


def children() -> list[psutil.Process]:
    """Runners of this process that have not been waited for. Other tests may have servers in it."""
    return [child for child in psutil.Process().children() if runs_models(child)]


def runs_models(process: psutil.Process) -> bool:
    try:
        return process.status() == psutil.STATUS_ZOMBIE or "corectl.runner" in process.cmdline()
    except psutil.NoSuchProcess:
        return False


async def no_children() -> None:
    """Returns when they are gone, and asyncio knows.

    A start that was cancelled in mid-spawn leaves the wait to asyncio, which in Python 3.11 waits in a thread. A loop
    that ends before it hears of the end leaves a `Popen` that complains in whatever test comes next.
    """
    await until(lambda: not children())
    await until(
        lambda: not any(thread.name.startswith("asyncio-waitpid") for thread in threading.enumerate())
    )
    await asyncio.sleep(0)

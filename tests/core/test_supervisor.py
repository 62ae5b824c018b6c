"""Runner processes, started for real, with an engine that does what each test wants."""

from __future__ import annotations

import asyncio
import gc
from contextlib import aclosing
from pathlib import Path
from typing import Any

import psutil
import pytest

from corectl.errors import BadRequest, EngineError, LoadFailed, NotSupported
from corectl.messages import Delta, Detokenize, Embedding, Rerank, Started, Tokenize
from corectl.output.vectors import rows
from corectl.runner import protocol, supervisor
from corectl.runner.state import LoopState
from corectl.runner.stream import EventStream
from corectl.runner.supervisor import Runner
from tests.core.fake import FIRST
from tests.core.stories import Loader, collect, completion, events_of, play, start, until


def test_loads_and_generates(loader: Loader) -> None:
    async def story() -> None:
        runner = await start(loader())
        assert (runner.info.num_ctx, runner.info.cells, runner.info.max_sequences) == (64, 256, 4)
        text, finish = await collect(runner, completion(want_context=True))
        assert (len(text), finish.reason) == (8, "length")
        assert (finish.usage.prompt_tokens, finish.usage.output_tokens) == (3, 8)
        assert len(finish.context) == 11 and finish.fit.num_ctx == 64
        assert (await collect(runner, completion()))[0] == text
        assert (runner.stats.steps, runner.stats.tokens, runner.stats.largest) == (16, 2 * (3 + 7), 1)
        await runner.stop()
        assert "exit status 0" in await runner.ended
        assert runner.lost.done()

    play(story())


def test_many_requests_at_once_give_what_each_gives_alone(loader: Loader) -> None:
    async def story() -> None:
        runner = await start(loader(seconds=0.002))
        prompts = [completion("x" * (number + 1), predict=12) for number in range(6)]
        alone = [await collect(runner, prompt) for prompt in prompts]
        together = await asyncio.gather(*(collect(runner, prompt) for prompt in prompts))
        assert [text for text, _ in together] == [text for text, _ in alone]
        assert runner.stats.largest > 1
        await runner.stop()

    play(story())


def test_a_stop_string_ends_the_text_before_it(loader: Loader) -> None:
    async def story() -> None:
        runner = await start(loader())
        whole, _ = await collect(runner, completion(predict=12))
        text, finish = await collect(runner, completion(predict=12, sampling={"stop": (whole[4:6],)}))
        assert (text, finish.reason) == (whole[: whole.index(whole[4:6])], "stop")
        assert finish.usage.output_tokens == len(text) + 2
        await runner.stop()

    play(story())


def test_answers_that_are_not_streamed(loader: Loader) -> None:
    async def story() -> None:
        runner = await start(loader(embedding=True))
        assert (await runner.render(completion("as it is", render_only=True))).text == "as it is"
        vectors = await runner.embed(Embedding(inputs=tuple("x" * (n + 1) for n in range(20))))
        last = FIRST + ord("x")
        assert [[row[0] / row[1] * last] for row in rows(vectors)] == [
            pytest.approx([n + 1]) for n in range(20)
        ]
        assert vectors.prompt_tokens == 210
        assert (await runner.embed(Embedding(inputs=("x" * 100,)))).dropped_tokens == 68
        tokens = (await runner.tokenize(Tokenize(text="hi"))).tokens
        assert (await runner.detokenize(Detokenize(tokens=tokens))).text == "hi"
        with pytest.raises(BadRequest, match="does not support reranking"):
            await runner.rerank(Rerank(query="q", documents=("d",)))
        await runner.stop()

    play(story())


def test_a_bad_request_fails_alone(loader: Loader) -> None:
    async def story() -> None:
        runner = await start(loader())
        with pytest.raises(BadRequest, match="the prompt is empty"):
            await collect(runner, completion(""))
        with pytest.raises(BadRequest, match="exceeds the available context size"):
            await collect(runner, completion("x" * 99, truncate=False))
        with pytest.raises(NotSupported):
            await runner.embed(Embedding(inputs=("x",)))
        assert (await collect(runner, completion()))[1].reason == "length"
        await runner.stop()

    play(story())


def test_an_engine_error_fails_the_request_with_its_message(loader: Loader) -> None:
    async def story() -> None:
        runner = await start(loader(at="raise", after=5))
        with pytest.raises(EngineError, match="ValueError: who knows"):
            await collect(runner, completion())
        assert (await collect(runner, completion(predict=2)))[1].reason == "length"
        await runner.stop()

    play(story())


def test_progress_keeps_a_slow_load_alive(loader: Loader) -> None:
    """It takes 1.5 seconds, with a word every 0.15; a process needs a while to start, so the limit is larger."""

    async def story() -> None:
        runner = await start(loader(load="slowly"))
        assert runner.progress == 1.0
        await runner.stop()

    play(story())


def test_no_time_limit(loader: Loader) -> None:
    async def story() -> None:
        runner = await start(loader(load="slowly"), load_timeout=float("inf"))
        await runner.stop()

    play(story())


def test_closing_a_stream_cancels_its_work(loader: Loader) -> None:
    async def story() -> None:
        runner = await start(loader(seconds=0.01))
        async with aclosing(
            events_of(runner.complete(completion(predict=600, shift=False, text="x")))
        ) as events:
            await first_delta(events)
        assert runner._streams == {}
        # The pool is empty again when a prompt that fills it is answered.
        before = runner.stats.tokens
        await collect(runner, completion("y" * 60, predict=1))
        await collect(runner, completion("y" * 60, predict=1))
        assert runner.stats.tokens - before < 60 + 60 + 50
        await runner.stop()

    play(story())


def test_cancelling_who_waits_for_an_answer(loader: Loader) -> None:
    async def story() -> None:
        runner = await start(loader(at="hang"))
        asking = asyncio.ensure_future(runner.render(completion(render_only=True)))
        await asyncio.sleep(0)
        asking.cancel()
        with pytest.raises(asyncio.CancelledError):
            await asking
        assert runner._streams == {}
        assert (await runner.render(completion("b", render_only=True))).text == "b"
        await runner.stop(grace=0)

    play(story())


def test_stop_twice_and_at_once(loader: Loader) -> None:
    async def story() -> None:
        runner = await start(loader())
        await asyncio.gather(runner.stop(), runner.stop())
        await runner.stop()
        assert "exit status 0" in await runner.ended

    play(story())


def test_a_module_in_the_current_folder_is_not_ours(
    loader: Loader, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Servers are started anywhere; a `queue.py` that lies there must not end up in a runner."""
    folder = tmp_path / "cwd"
    folder.mkdir()
    (folder / "queue.py").write_text("raise SystemExit('from the wrong folder')")
    monkeypatch.chdir(folder)

    async def story() -> None:
        runner = await start(loader())
        await runner.stop()

    play(story())


def test_frames_arrive_whatever_their_pieces() -> None:
    """Cut at every place, a stream of frames gives the same events."""

    async def story() -> None:
        values = [protocol.Steps([protocol.Computed(1, 1)], [(1, [Delta("é" * n)])], []) for n in range(3)]
        data = b"".join(map(protocol.frame, values))
        for size in range(1, len(data) + 1):
            runner = Runner()
            stream = runner._streams[1] = EventStream(1, lambda id, cancel: None)
            link = supervisor._Link(runner)
            for at in range(0, len(data), size):
                link.data_received(data[at : at + size])
            assert await stream.take() == [value.deltas[0][1][0] for value in values]
            assert runner.stats.steps == 3

    play(story())


def test_runners_leave_no_open_files(loader: Loader) -> None:
    async def story() -> None:
        await cycle()
        before = open_files()
        for _ in range(3):
            await cycle()
        assert open_files() == before

    async def cycle() -> None:
        runner = await start(loader())
        await collect(runner, completion())
        await runner.stop()
        await runner.ended
        with pytest.raises(LoadFailed):
            await start(loader(load="refuse"))
        await until(lambda: asyncio.all_tasks() == {asyncio.current_task()})
        gc.collect()

    play(story())


async def first_delta(events: Any) -> None:
    assert isinstance(await anext(events), Started)
    assert isinstance(await anext(events), Delta)


def open_files() -> int:
    return psutil.Process().num_fds()


def test_the_steps_of_a_frame_are_counted() -> None:
    async def story() -> None:
        runner = Runner()
        steps = [protocol.Computed(2, 20), protocol.Computed(3, 3, 0.25), protocol.Computed(0, 0)]
        runner.received(protocol.Steps(steps, [], [], LoopState(running=3)))
        stats = runner.stats
        assert (stats.steps, stats.sequences, stats.tokens, stats.largest) == (2, 5, 23, 3)
        assert (sum(stats.sizes.counts), sum(stats.gaps.counts), stats.gaps.total) == (2, 1, 0.25)
        assert stats.state.running == 3

    play(story())

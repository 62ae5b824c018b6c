"""Checks through a runner process, as the server uses one."""

from __future__ import annotations

import asyncio
import itertools
import json
import os
import re
import signal
import time
from typing import Any

import pytest

from corectl.errors import CorectlError, RunnerDied
from corectl.messages import Completion, Delta, Grammar, RawPrompt, SamplingOptions
from corectl.runner.engine import Engine
from corectl.runner.supervisor import Runner
from corectl.testing.backend.base import TEXT, BackendChecks
from corectl.testing.served import Served, collect
from corectl.testing.suite import optional

LETTERS = "[あいう🦙é\n]{8}"
JSON = r'\{"answer": "(yes|no)", "digit": [0-9]\}'

FEW, AT_ONCE = 50, 0.5
"""Steps and seconds that a request may go on after it was cancelled, whichever ends first."""

_salts = itertools.count()


def _request(text: str, predict: int = 24, *, salt: str | None = None, **changes: Any) -> Completion:
    """A greedy request, which shares nothing with others unless it has their salt."""
    sampling = SamplingOptions(temperature=0, num_predict=predict, stop=changes.pop("stop", ()))
    salt = f"alone {next(_salts)}" if salt is None else salt
    return Completion(prompt=RawPrompt(text=text), sampling=sampling, cache_salt=salt, **changes)


def _refuses_grammars(suite: BackendChecks, corectl_runner: Served) -> None:
    with pytest.raises(CorectlError):
        corectl_runner.ask(_request(suite.prompts[0], grammar=Grammar(kind="json")))
    corectl_runner.ask(_request(suite.prompts[0], predict=2))


def _computes_all_again(suite: BackendChecks, corectl_runner: Served) -> None:
    requests = [_request(TEXT[:100], predict=1, salt="same") for _ in range(2)]
    replies = [reply for request in requests for reply in corectl_runner.ask(request)]
    assert [reply.finish.usage.cached_tokens for reply in replies] == [0, 0]


class ServingChecks(BackendChecks):
    def test_streaming(self, corectl_runner: Served, corectl_engine: Engine) -> None:
        """The pieces of a stream are whole characters, and together the text of all its tokens."""
        tokenizer = corectl_engine.tokenizer
        for prompt in self.prompts:
            (reply,) = corectl_runner.ask(_request(prompt, want_context=True))
            tokens = reply.finish.context[reply.prompt_tokens :]
            spelled = b"".join(map(tokenizer.piece, tokens)).decode("utf-8", "replace")
            assert reply.text == spelled
            assert reply.prompt_tokens == reply.finish.usage.prompt_tokens > 0
            # The token that ends an answer is counted, and may not be among those to go on with.
            assert len(tokens) <= reply.finish.usage.output_tokens <= 24
            assert reply.finish.reason in ("stop", "length")
        if not {"masks", "any text"} & set(self.cannot):
            grammar = Grammar(kind="regex", text=LETTERS)
            (reply,) = corectl_runner.ask(_request(prompt, predict=64, grammar=grammar))
            assert re.fullmatch(LETTERS, reply.text), f"{reply.text!r} is not what the grammar allows"

    def test_stop_strings(self, corectl_runner: Served) -> None:
        """A text ends right before a stop string, wherever tokens end."""
        for prompt in self.prompts:
            # What begins with cached tokens may be computed a little otherwise: all of these do.
            corectl_runner.ask(_request(prompt))
            (whole,) = corectl_runner.ask(_request(prompt))
            text = whole.text
            assert len(text) > 8, f"the model says only {text!r}"
            for stop in (text[len(text) // 2], text[4:7]):
                (reply,) = corectl_runner.ask(_request(prompt, stop=(stop,)))
                assert (reply.text, reply.finish.reason) == (text[: text.index(stop)], "stop")

    def test_requests_together(self, corectl_runner: Served) -> None:
        """More requests than there is room for are answered, as many at a time as the engine takes."""
        runner = corectl_runner.runner
        count = runner.info.max_sequences + 2
        texts = [self.prompts[number % len(self.prompts)] for number in range(count)]
        replies = corectl_runner.ask(*(_request(text) for text in texts))
        assert all(reply.text and reply.finish.usage.output_tokens > 0 for reply in replies)
        assert runner.stats.largest <= runner.info.max_sequences

    def test_cancelling(self, corectl_runner: Served) -> None:
        """A request that nobody reads any more ends within a few steps, and others are served."""
        runner = corectl_runner.runner

        async def story() -> tuple[int, float]:
            stream = runner.complete(_request(self.prompts[0], predict=100_000, shift=True))
            while not any(isinstance(event, Delta) for event in await stream.take()):
                pass
            stream.close()
            steps, began = runner.stats.steps, time.monotonic()
            while runner.stats.state.running:  # noqa: ASYNC110 - the runner says so with one of its frames
                await asyncio.sleep(0.001)
            return runner.stats.steps - steps, time.monotonic() - began

        steps, seconds = corectl_runner.play(story)
        # Engines that take no time at all take many steps while the word is on its way.
        assert steps < FEW or seconds < AT_ONCE, f"it went on for {steps} steps and {seconds:.1f} s"
        assert corectl_runner.ask(_request(self.prompts[1]))[0].text

    def test_full_context(self, corectl_runner: Served, corectl_engine: Engine) -> None:
        """An answer that fills the context ends with `length`; a prompt that is too long is cut, or refused."""
        num_ctx = corectl_runner.runner.info.num_ctx
        long = TEXT * (1 + num_ctx // 64)
        almost = tuple(corectl_engine.tokenizer.encode(long)[: num_ctx - 8])
        (reply,) = corectl_runner.ask(_request("", predict=num_ctx, context=almost, shift=False))
        assert num_ctx - 8 <= reply.prompt_tokens < num_ctx
        assert reply.prompt_tokens + reply.finish.usage.output_tokens <= num_ctx + 1
        (reply,) = corectl_runner.ask(_request(long, predict=2))
        assert reply.prompt_tokens <= num_ctx and reply.finish.fit.dropped_tokens > 0
        for truncate, shift in ((False, True), (True, False)):
            with pytest.raises(CorectlError, match="context"):
                corectl_runner.ask(_request(long, truncate=truncate, shift=shift))

    @optional(_computes_all_again)
    def test_prompt_reuse(self, corectl_runner: Served) -> None:
        """A prompt that was computed is not computed again."""
        requests = [_request(TEXT[:200], predict=4, salt="same") for _ in range(2)]
        first, second = [reply for request in requests for reply in corectl_runner.ask(request)]
        assert first.finish.usage.cached_tokens == 0
        cached = second.finish.usage.cached_tokens
        assert cached >= second.prompt_tokens // 2, f"{cached} of {second.prompt_tokens} tokens were there"

    @optional(_refuses_grammars)
    def test_structured_output(self, corectl_runner: Served) -> None:
        """Output matches a grammar, of several requests at once."""
        grammar = Grammar(kind="regex", text=JSON)
        for reply in corectl_runner.ask(
            *(_request(text, grammar=grammar, predict=64) for text in self.prompts)
        ):
            found = json.loads(reply.text)
            assert found["answer"] in ("yes", "no") and 0 <= found["digit"] <= 9, found
            assert reply.finish.reason == "stop"

    def test_crash(self, corectl_runner: Served) -> None:
        """A runner that is killed is reported with the signal, and the next load works."""
        request = _request(self.prompts[0], predict=100_000, shift=True)

        async def killed(runner: Runner) -> str:
            stream = runner.complete(request)
            await stream.take()
            os.kill(runner.pid, signal.SIGKILL)
            with pytest.raises(RunnerDied) as caught:
                await collect(stream)
            assert "SIGKILL" in await runner.ended
            return caught.value.message

        async def story() -> None:
            assert "SIGKILL" in await killed(await corectl_runner.start())
            again = await corectl_runner.start()
            assert (await collect(again.complete(_request(self.prompts[0])))).text

        corectl_runner.play(story)
        assert corectl_runner.ask(_request(self.prompts[0]))[0].text, "another runner was harmed"

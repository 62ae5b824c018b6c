"""The conformance suite for remote backends."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Coroutine
from typing import Any, ClassVar, TypeVar

import msgspec
import pytest

from corectl.errors import CorectlError, RemoteError, RemoteUnreachable
from corectl.messages import ChatPrompt, Completion, Delta, LoadOptions, Message, SamplingOptions, Template
from corectl.remote.backend import RemoteBackend, RemoteHost, RemoteServer
from corectl.runner.model_runner import ModelRunner
from corectl.secret import Secret
from corectl.testing.served import Reply, collect
from corectl.testing.suite import Suite

T = TypeVar("T")

SECONDS = 60.0
"""After so long a check has failed."""

KEY = "sk-conformance-0123456789"
PLAIN = Template(kind="jinja", text="{% for message in messages %}{{ message.content }}\n{% endfor %}")


class RemoteSuite(Suite):
    """Everything that a remote backend promises. A subclass gives `backend`, `server` and `model`."""

    kind = "remote backend"

    model: ClassVar[str]
    """What the server calls a model that chats."""

    def backend(self) -> RemoteBackend:
        raise NotImplementedError

    def server(self) -> RemoteServer:
        """One that is there, with a model."""
        raise NotImplementedError

    def subject(self) -> str:
        return self.backend().name

    def _play(
        self, story: Callable[[RemoteHost], Coroutine[Any, Any, T]], server: RemoteServer | None = None
    ) -> T:
        """Runs a check with a host, and closes that; nothing may go on afterwards."""

        async def limited() -> T:
            async with asyncio.timeout(SECONDS):
                host = self.backend().connect(server or self.server())
                try:
                    return await story(host)
                finally:
                    await host.close()

        return asyncio.run(limited())

    def _runner(self, host: RemoteHost, model: str = "") -> ModelRunner:
        return host.runner(model or self.model, LoadOptions(), None)

    def _request(self, text: str = "Why is the sky blue?", **sampling: Any) -> Completion:
        options = SamplingOptions(**{"temperature": 0, "seed": 1, "num_predict": 12, **sampling})
        messages = (Message(role="user", content=text),)
        return Completion(prompt=ChatPrompt(template=PLAIN, messages=messages, given=1), sampling=options)

    def _unreachable(self) -> RemoteServer:
        """A server that is not there, with a key."""
        return msgspec.structs.replace(
            self.server(), name="nowhere", url=f"{self.backend().schemes[0]}://127.0.0.1:9", key=Secret(KEY)
        )

    def test_schemes(self) -> None:
        """It says which addresses are its own, and makes a way to one without asking it."""
        schemes = self.backend().schemes
        assert schemes and all(scheme == scheme.lower() and scheme.isascii() for scheme in schemes)

        async def story(host: RemoteHost) -> None:
            assert isinstance(host.protocol, str)

        self._play(story, self._unreachable())

    def test_models(self) -> None:
        """It lists the server's models, each once, describes one, and says so if there is none of a name."""

        async def story(host: RemoteHost) -> None:
            entries = await host.models()
            ids = [entry.id for entry in entries]
            assert len(set(ids)) == len(ids) and self.model in ids, ids
            assert (await host.describe(self.model)).id == self.model
            assert host.protocol
            with pytest.raises(CorectlError):
                await host.describe("no-such-model")

        self._play(story)

    def test_streaming(self) -> None:
        """An answer comes in pieces, with its counts at the end; a greedy one begins in the same way again."""

        async def story(host: RemoteHost) -> list[Reply]:
            runner = self._runner(host)
            await runner.ready()
            # Later words may be close decisions, which fall another way where a prompt is known or threads are fewer.
            return [await collect(runner.complete(self._request(num_predict=6))) for _ in range(2)]

        first, second = self._play(story)
        assert first.text and first.text.split()[0] == second.text.split()[0]
        assert len(first.deltas) > 1, "all of it came at once"
        assert first.finish.reason in ("length", "stop")
        assert 0 < first.finish.usage.output_tokens <= 6 and first.finish.usage.prompt_tokens > 0

    def test_stop_strings(self) -> None:
        """A text ends before a stop string."""

        async def story(host: RemoteHost) -> None:
            runner = self._runner(host)
            reply = await collect(runner.complete(self._request(stop=(" ",))))
            assert reply.text and " " not in reply.text
            assert reply.finish.reason == "stop"

        self._play(story)

    def test_cancelling(self) -> None:
        """A request that nobody reads any more ends, and the next one is served."""

        async def story(host: RemoteHost) -> None:
            runner = self._runner(host)
            before = asyncio.all_tasks()
            stream = runner.complete(self._request(num_predict=10_000))
            while not any(isinstance(event, Delta) for event in await stream.take()):
                pass
            stream.close()
            await _until(lambda: asyncio.all_tasks() <= before)
            assert (await collect(runner.complete(self._request()))).text

        self._play(story)

    def test_many_at_once(self) -> None:
        """Requests do not mix."""

        async def story(host: RemoteHost) -> None:
            runner = self._runner(host)
            texts = [f"Say {number}." for number in range(4)]
            alone = [(await collect(runner.complete(self._request(text)))).finish.usage for text in texts]
            replies = await asyncio.gather(*(collect(runner.complete(self._request(text))) for text in texts))
            assert [reply.finish.usage.prompt_tokens for reply in replies] == [
                use.prompt_tokens for use in alone
            ]
            assert all(reply.text for reply in replies)

        self._play(story)

    def test_unknown_model(self) -> None:
        """A request for a model that the server does not have is a typed error."""

        async def story(host: RemoteHost) -> None:
            with pytest.raises(CorectlError) as caught:
                await collect(self._runner(host, "no-such-model").complete(self._request()))
            assert caught.value.message and not isinstance(caught.value, RemoteUnreachable)

        self._play(story)

    def test_unreachable(self) -> None:
        """A server that is not there is named in the error, for every question; its key is not."""
        server = self._unreachable()

        async def story(host: RemoteHost) -> None:
            questions: list[Awaitable[object]] = [
                host.models(),
                host.describe(self.model),
                self._runner(host).ready(),
                collect(self._runner(host).complete(self._request())),
            ]
            for question in questions:
                with pytest.raises(RemoteUnreachable) as caught:
                    await question
                assert server.label in caught.value.message, caught.value.message
                assert KEY not in f"{caught.value!r} {caught.value.message}"
            assert KEY not in f"{host!r} {server!r} {server.label}"

        self._play(story, server)

    def test_silent_server(self) -> None:
        """What answers with something else, or with nothing, is a typed error that names the server."""

        async def story() -> None:
            for answer in (b"", b"what?\r\n", b"HTTP/1.1 200 OK\r\ncontent-length: 5\r\n\r\n[1, 2"):
                await self._ask_stranger(answer)

        asyncio.run(story())

    async def _ask_stranger(self, answer: bytes) -> None:
        async def serve(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
            await reader.read(1)
            writer.write(answer)
            writer.close()

        listener = await asyncio.start_server(serve, "127.0.0.1", 0)
        port = listener.sockets[0].getsockname()[1]
        url = f"{self.backend().schemes[0]}://127.0.0.1:{port}"
        server = msgspec.structs.replace(self.server(), name="stranger", url=url)
        host = self.backend().connect(server)
        try:
            async with asyncio.timeout(SECONDS):
                with pytest.raises(RemoteError, match="stranger"):
                    await host.models()
                with pytest.raises(RemoteError, match="stranger"):
                    await collect(self._runner(host).complete(self._request()))
        finally:
            await host.close()
            listener.close()
            await listener.wait_closed()


async def _until(condition: Callable[[], bool]) -> None:
    """Returns when the condition holds; the check's time limit ends the wait."""
    while not condition():  # noqa: ASYNC110 - no event can tell what is to come
        await asyncio.sleep(0.005)

"""The replies of /v1/completions: one object, or the events of a stream."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from itertools import accumulate
from typing import Any

import msgspec
from msgspec import UNSET

from corectl.messages import Delta, Event, Finish, Logprob
from corectl.server.context import Clock
from corectl_openai.objects import TextChoice, TextCompletion, TextHead, TextLogprobs
from corectl_openai.replies import DONE, Usage, encode, new_id, said_of, usage_of

NO_USAGE = b',"usage":{"prompt_tokens":0,"completion_tokens":0,"total_tokens":0}'
"""What events before the last have in a stream that counts tokens, as clients know it."""


class TextReply:
    """One reply: `n` choices of each of its prompts, one prompt after another."""

    def __init__(self, model: str, created: int, clock: Clock, *, prompts: int, n: int) -> None:
        self.clock = clock
        self._head = TextHead(id=new_id("cmpl-"), created=created, model=model)
        self._ends: list[list[Finish]] = [[] for _ in range(prompts)]
        self._left = prompts * n
        self._n = n

    def object(self, choices: list[TextChoice], usage: Usage, **said: Any) -> TextCompletion:
        """The reply as a whole; `said` is what `corectl_openai.replies.said_of` gives."""
        head = msgspec.structs.asdict(self._head)
        return TextCompletion(**(head | said), choices=choices, usage=usage)

    def encoders(self, shown: Sequence[str], *, usage: bool) -> list[Callable[[Event], bytes]]:
        """What writes the events of each choice, which begins with what is `shown` for its prompt."""
        head = b"data: " + encode(self._head)[:-1]
        return [
            _Choice(self, head, index, shown[index // self._n], usage=usage).encode
            for index in range(self._left)
        ]

    def end(self, index: int, finish: Finish, head: bytes, *, usage: bool) -> bytes:
        """What follows the end of a choice: nothing before the last."""
        self._ends[index // self._n].append(finish)
        self._left -= 1
        if self._left:
            return b""
        last = b'%s,"choices":[],"usage":%s}\n\n' % (head, encode(usage_of(self._ends))) if usage else b""
        return last + DONE


class _Choice:
    """The events of one choice. What is the same in all of them is encoded once."""

    def __init__(self, reply: TextReply, head: bytes, index: int, shown: str, *, usage: bool) -> None:
        self._reply = reply
        self._head = head
        self._index = index
        self._shown = shown
        self._usage = usage
        self._offset = 0
        self._begin = b'%s,"choices":[{"text":' % head
        self._middle = b',"index":%d,"finish_reason":' % index
        self._rest = self._middle + b"null}]" + (NO_USAGE if usage else b"") + b"}\n\n"

    def encode(self, event: Event) -> bytes:
        if type(event) is Delta:
            return self._piece(event)
        assert isinstance(event, Finish)
        said = said_of([event], self._reply.clock)
        more = (NO_USAGE if self._usage else b"") + (b"," + encode(said)[1:-1] if said else b"")
        begun = self._piece(Delta("")) if self._shown else b""
        end = b'%s""%s%s}]%s}\n\n' % (self._begin, self._middle, encode(event.reason), more)
        return begun + end + self._reply.end(self._index, event, self._head, usage=self._usage)

    def _piece(self, delta: Delta) -> bytes:
        """Thoughts and calls have no place in this protocol."""
        text, self._shown = self._shown + delta.text, ""
        if not (text or delta.logprobs):
            return b""
        rest = self._rest
        if delta.logprobs:
            found = encode(self._next(delta.logprobs))
            rest = rest.replace(b"null}]", b'null,"logprobs":%s}]' % found, 1)
        return self._begin + encode(text) + rest

    def _next(self, found: Sequence[Logprob]) -> TextLogprobs:
        """Those of the next tokens, which stand behind those that were shown before."""
        shown = legacy_logprobs(found, self._offset)
        self._offset += sum(map(len, shown.tokens))
        return shown


def text_choice(index: int, delta: Delta, finish: Finish, *, logprobs: bool) -> TextChoice:
    found = legacy_logprobs(delta.logprobs) if logprobs else UNSET
    return TextChoice(delta.text, index, finish.reason, found)


def legacy_logprobs(found: Sequence[Logprob], offset: int = 0) -> TextLogprobs:
    """Probabilities as this route has them, of tokens of which the first stands at `offset`, in characters."""
    tokens = [item.chosen.token for item in found]
    return TextLogprobs(
        tokens=tokens,
        token_logprobs=[item.chosen.logprob for item in found],
        top_logprobs=[{top.token: top.logprob for top in item.top} for item in found],
        text_offset=[*accumulate(map(len, tokens), initial=offset)][:-1],
    )

"""From a request to tokens."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from corectl.errors import BadRequest
from corectl.messages import (
    ChatPrompt,
    Completion,
    Fit,
    Message,
    Prompt,
    RawPrompt,
    Rendered,
    SamplingOptions,
    Template,
    TextPrompt,
)
from corectl.runner.prepare import prepare_completion, render_prompt
from corectl.testing.outputs import read
from corectl_dialects.tagged_calls import DIALECTS
from tests.core.fake import BOS, FIRST, FakeTokenizer, engine_info

GO = Template(kind="go", text="{{ .Prompt }}!")
JINJA = Template(
    kind="jinja", text="{{ bos_token }}{% for m in messages %}{{ m.role[0] }}:{{ m.content }};{% endfor %}"
)


def tokens_of(text: str) -> list[int]:
    return [FIRST + byte for byte in text.encode()]


def completion(prompt: str | Prompt, **changes: Any) -> Completion:
    raw = RawPrompt(text=prompt) if isinstance(prompt, str) else prompt
    return Completion(prompt=raw, **{"sampling": SamplingOptions(num_keep=2), **changes})


def prepare(prompt: str | Prompt, *, bos: bool = False, num_ctx: int = 64, **changes: Any) -> Any:
    tokenizer = FakeTokenizer(adds_bos=bos)
    return prepare_completion(7, completion(prompt, **changes), tokenizer, engine_info(num_ctx=num_ctx), {})


def test_a_prompt_that_fits() -> None:
    prepared = prepare("hello", shift=False)
    assert (prepared.job.id, prepared.job.tokens, prepared.job.shift) == (7, tokens_of("hello"), False)
    assert (prepared.fit.num_ctx, prepared.fit.dropped_tokens, prepared.fit.dropped_messages) == (64, 0, 0)


def test_probabilities_only_where_they_were_asked_for() -> None:
    assert prepare("x", top_logprobs=5).job.top_logprobs == -1
    assert prepare("x", logprobs=True).job.top_logprobs == 0
    assert prepare("x", logprobs=True, top_logprobs=5).job.top_logprobs == 5


def test_a_prompt_that_is_too_long_is_cut_and_says_so() -> None:
    prepared = prepare("abcdefghij", num_ctx=8)
    assert prepared.job.tokens == tokens_of("ab" + "hij")
    assert prepared.fit.dropped_tokens == 5


def test_a_request_with_a_shorter_context_keeps_to_it() -> None:
    prepared = msgspec.structs.replace(completion("abcdefghij"), num_ctx=8)
    found = prepare_completion(7, prepared, FakeTokenizer(), engine_info(num_ctx=64), {})
    assert found.job.tokens == tokens_of("ab" + "hij")
    assert found.job.num_ctx == found.fit.num_ctx == 8
    longer = msgspec.structs.replace(prepared, num_ctx=128)
    assert prepare_completion(7, longer, FakeTokenizer(), engine_info(num_ctx=64), {}).job.num_ctx == 64


def test_a_prompt_that_is_too_long_and_may_not_be_cut() -> None:
    with pytest.raises(BadRequest, match=r"request \(10 tokens\) exceeds the available context size \(8 "):
        prepare("abcdefghij", num_ctx=8, truncate=False)


def test_old_messages_are_dropped_first() -> None:
    messages = tuple(Message(role="user", content=text) for text in ("one", "two", "six"))
    prepared = prepare(ChatPrompt(template=JINJA, messages=messages), bos=True, num_ctx=15)
    assert prepared.job.tokens == [BOS, *tokens_of("u:two;u:six;")]
    assert (prepared.fit.dropped_messages, prepared.fit.dropped_tokens) == (1, 0)


def test_a_begin_token_that_the_template_writes_is_not_doubled() -> None:
    assert prepare("<s>hi", bos=True).job.tokens == [BOS, *tokens_of("hi")]
    assert prepare("hi", bos=True).job.tokens == [BOS, *tokens_of("hi")]
    assert prepare("<s>hi").job.tokens == tokens_of("<s>hi")


def test_a_tokenizer_that_recalls_prompts_is_told_who_shares_them() -> None:
    class Recalling(FakeTokenizer):
        asked: tuple[str, str] = ("", "")

        def encode_prompt(self, text: str, *, salt: str, add_special: bool = True) -> list[int]:
            self.asked = (text, salt)
            return self.encode(text, add_special=add_special)

    tokenizer = Recalling(adds_bos=True)
    request = completion("<s>hi", cache_salt="mine")
    prepared = prepare_completion(7, request, tokenizer, engine_info(num_ctx=64), {})
    assert tokenizer.asked == ("hi", "mine")
    assert prepared.job.tokens == [BOS, *tokens_of("hi")]


def test_earlier_context_goes_in_front_behind_its_own_begin_token() -> None:
    assert prepare("x", bos=True, context=(BOS, 5, 6)).job.tokens == [BOS, 5, 6, *tokens_of("x")]
    assert prepare("x", context=(5, 6)).job.tokens == [5, 6, *tokens_of("x")]


@pytest.mark.parametrize("token", [-1, FakeTokenizer.size, 2**40])
def test_context_that_is_none_is_refused_before_an_engine_sees_it(token: int) -> None:
    with pytest.raises(BadRequest, match=rf"context: {token} is not a token of this model \(0 to 257\)"):
        prepare("x", context=(3, token))


def test_an_empty_prompt() -> None:
    assert prepare("", bos=True).job.tokens == [BOS]
    with pytest.raises(BadRequest, match="the prompt is empty"):
        prepare("")


def test_rendering_alone() -> None:
    tokenizer, info = FakeTokenizer(adds_bos=True), engine_info(num_ctx=12)
    found = render_prompt(completion(TextPrompt(template=GO, prompt="hi")), tokenizer, info)
    assert found == Rendered(text="hi!", prompt_tokens=4, fit=Fit(num_ctx=12))
    messages = tuple(Message(role="user", content=text) for text in ("hello", "hi"))
    found = render_prompt(completion(ChatPrompt(template=JINJA, messages=messages)), tokenizer, info)
    assert found == Rendered(text="<s>u:hi;", prompt_tokens=6, fit=Fit(num_ctx=12, dropped_messages=1))
    with pytest.raises(BadRequest, match="exceeds the available context"):
        render_prompt(completion("x" * 50, truncate=False), tokenizer, info)


def test_a_template_that_fails_is_the_requests_fault() -> None:
    with pytest.raises(BadRequest):
        prepare(ChatPrompt(template=Template(kind="jinja", text="{{ 1 / 0 }}"), messages=()))


@pytest.mark.parametrize(
    ("parameters", "codes"),
    [
        (
            {"properties": {"days": {"type": "integer"}, "zone": {"enum": list(range(30_000))}}},
            ["tool_schema_relaxed"],
        ),
        (
            {
                "properties": {"days": {"$ref": "#whole"}},
                "$defs": {"whole": {"$anchor": "whole", "type": "integer"}},
            },
            [],
        ),
    ],
    ids=["too large", "anchor"],
)
def test_arguments_are_read_by_all_that_is_known_of_their_types(
    parameters: dict[str, Any], codes: list[str]
) -> None:
    """The schema as it came, where none of it can be enforced; else as it is enforced, with its references resolved."""
    function = {"name": "plan", "description": "", "parameters": parameters}
    prompt = ChatPrompt(
        template=JINJA,
        messages=(Message(role="user", content="Hi"),),
        tools=({"type": "function", "function": function},),
    )
    dialects = {dialect.name: dialect for dialect in DIALECTS}
    prepared = prepare_completion(
        7, completion(prompt, parser="qwen3-coder"), FakeTokenizer(), engine_info(num_ctx=64), dialects
    )
    assert [notice.code for notice in prepared.notices] == codes
    text = "<tool_call>\n<function=plan>\n<parameter=days>\n3\n</parameter>\n</function>\n</tool_call>"
    output = read(prepared.reader, [text])
    assert output.calls == (("plan", {"days": 3}),)

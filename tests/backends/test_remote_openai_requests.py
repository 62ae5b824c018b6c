"""Requests in the words of OpenAI's protocol, and what servers have added to it."""

from __future__ import annotations

import json
from typing import Any

import pytest

from corectl.errors import CorectlError, NotSupported
from corectl.messages import (
    Completion,
    Finish,
    GivenOptions,
    Grammar,
    LoadOptions,
    Message,
    RawPrompt,
    SamplingOptions,
    Template,
    TextPrompt,
    ToolChoice,
)
from tests.backends.remote_kit import (
    OWN_TEMPLATE,
    chat,
    complete,
    events,
    failure,
    finish_of,
    hosted,
    openai,
    raw,
    text_of,
)
from tests.core.stories import play

TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
PATHS = ("/v1/chat/completions", "/v1/completions")


def said(content: str | None = None, *, finish: str | None = None, **delta: Any) -> dict[str, Any]:
    """A chunk of a chat."""
    if content is not None:
        delta["content"] = content
    return {"id": "x", "choices": [{"index": 0, "delta": delta, "finish_reason": finish}]}


END = said(finish="stop")


def asked(
    request: Completion,
    owner: str = "somebody",
    options: LoadOptions = LoadOptions(),  # noqa: B008
) -> tuple[str, dict[str, Any], Finish]:
    """Path and body of what a completion becomes, and the end of its reply."""
    found: list[tuple[str, dict[str, Any], Finish]] = []

    async def story() -> None:
        upstream = openai(owner)
        for path in PATHS:
            upstream.on(path, events(END))
        async with hosted(upstream, "/v1") as host:
            last = finish_of(await complete(host, request, options))
            sent = upstream.asked[-1]
            found.append((sent.path, sent.json, last))

    play(story())
    path, body, finish = found[0]
    assert body.pop("model") == "m" and body.pop("stream") is True
    assert body.pop("stream_options") == {"include_usage": True}
    return path, body, finish


def ignored(finish: Finish) -> list[str]:
    return [notice.message.split()[0] for notice in finish.notices if notice.code == "option_ignored"]


def refused(request: Completion, owner: str = "somebody") -> CorectlError:
    found: list[CorectlError] = []

    async def story() -> None:
        upstream = openai(owner)
        async with hosted(upstream, "/v1") as host:
            found.append(await failure(host, request))
            assert [item.path for item in upstream.asked] == ["/v1/models"], "it must not be asked"

    play(story())
    return found[0]


def test_a_chat_says_only_what_was_said() -> None:
    path, body, finish = asked(chat())
    assert path == "/v1/chat/completions"
    assert body == {"messages": [{"role": "user", "content": "Hi"}]}
    assert finish.notices == ()


def test_a_server_that_is_found_out_has_its_protocol_under_v1() -> None:
    async def story() -> None:
        upstream = openai().on("/v1/chat/completions", events(said("a"), END))
        async with hosted(upstream) as host:
            assert text_of(await complete(host, chat())) == "a"

    play(story())


CALL = {"function": {"name": "f", "arguments": {"a": "ß", "b": [1]}}}


def test_a_conversation_with_images_and_calls() -> None:
    turns = (
        Message(role="system", content="Be brief."),
        Message(role="user", content="Look: [img]!", images=("iVBORw0KGgo=", "/9j/4AAQ")),
        Message(role="assistant", thinking="Hm.", content="So:", tool_calls=(CALL, {"id": "x", **CALL})),
        Message(role="tool", content="1", tool_name="f"),
        Message(role="tool", content="2", tool_call_id="x"),
    )
    _, body, _ = asked(chat(*turns, tools=(TOOL,)))
    system, user, assistant, one, two = body["messages"]
    assert system == {"role": "system", "content": "Be brief."}
    assert user["content"] == [
        {"type": "image_url", "image_url": {"url": "data:image/jpeg;base64,/9j/4AAQ"}},
        {"type": "text", "text": "Look: "},
        {"type": "image_url", "image_url": {"url": "data:image/png;base64,iVBORw0KGgo="}},
        {"type": "text", "text": "!"},
    ]
    first, second = assistant["tool_calls"]
    assert (first["type"], json.loads(first["function"]["arguments"])) == ("function", {"a": "ß", "b": [1]})
    assert second["id"] == "x" and assistant["content"] == "So:"
    assert "reasoning_content" not in assistant
    assert one == {"role": "tool", "content": "1", "tool_call_id": first["id"]}
    assert two == {"role": "tool", "content": "2", "tool_call_id": "x"}
    assert body["tools"] == [TOOL] and "tool_choice" not in body
    _, body, _ = asked(chat(*turns), "vllm")
    assert body["messages"][2]["reasoning_content"] == "Hm."


GIVEN = GivenOptions(
    temperature=0.8,
    top_p=0.5,
    seed=3,
    num_predict=9,
    stop=("a",),
    presence_penalty=0.1,
    frequency_penalty=0.2,
    top_k=7,
    min_p=0.1,
    typical_p=0.9,
    repeat_penalty=1.1,
    repeat_last_n=5,
    num_keep=2,
    given=(
        *("temperature", "top_p", "seed", "num_predict", "stop", "presence_penalty", "frequency_penalty"),
        *("top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n", "num_keep"),
    ),
)
STANDARD = {
    "temperature": 0.8,
    "top_p": 0.5,
    "seed": 3,
    "max_tokens": 9,
    "stop": ["a"],
    "presence_penalty": 0.1,
    "frequency_penalty": 0.2,
}


@pytest.mark.parametrize(
    ("owner", "more", "left_out"),
    [
        ("somebody", {}, {"top_k", "min_p", "typical_p", "repeat_penalty", "repeat_last_n", "num_keep"}),
        (
            "vllm",
            {"top_k": 7, "min_p": 0.1, "repetition_penalty": 1.1},
            {"typical_p", "repeat_last_n", "num_keep"},
        ),
        (
            "llamacpp",
            {"top_k": 7, "min_p": 0.1, "typical_p": 0.9, "repeat_penalty": 1.1, "repeat_last_n": 5},
            {"num_keep"},
        ),
    ],
)
def test_options_reach_the_model_or_are_said_not_to(
    owner: str, more: dict[str, Any], left_out: set[str]
) -> None:
    _, body, finish = asked(chat(sampling=GIVEN), owner, LoadOptions(num_ctx=512, backend="remote"))
    del body["messages"]
    assert body == {**STANDARD, **more}
    assert set(ignored(finish)) == {*left_out, "num_ctx"}


def test_numbers_that_mean_as_you_like_are_left_out() -> None:
    sampling = GivenOptions(seed=-1, num_predict=-1, given=("seed", "num_predict"))
    _, body, finish = asked(chat(sampling=sampling))
    assert body.keys() == {"messages"} and finish.notices == ()


@pytest.mark.parametrize(
    ("choice", "words"),
    [
        (ToolChoice(), {}),
        (ToolChoice(mode="none"), {"tool_choice": "none"}),
        (ToolChoice(mode="required"), {"tool_choice": "required"}),
        (
            ToolChoice(mode="required", name="f"),
            {"tool_choice": {"type": "function", "function": {"name": "f"}}},
        ),
        (ToolChoice(parallel=False), {"parallel_tool_calls": False}),
    ],
)
def test_which_tools_are_called(choice: ToolChoice, words: dict[str, Any]) -> None:
    _, body, finish = asked(chat(tools=(TOOL,), tool_choice=choice))
    assert body == {**body, **words} and body.keys() == {"messages", "tools", *words}
    assert finish.notices == ()


@pytest.mark.parametrize(
    ("owner", "think", "words", "left_out"),
    [
        ("somebody", None, {}, []),
        ("somebody", True, {}, ["think"]),
        ("somebody", False, {}, ["think"]),
        ("somebody", "low", {"reasoning_effort": "low"}, []),
        ("somebody", "max", {"reasoning_effort": "high"}, []),
        ("vllm", True, {"chat_template_kwargs": {"enable_thinking": True}}, []),
        ("llamacpp", False, {"chat_template_kwargs": {"enable_thinking": False}}, []),
        (
            "vllm",
            "medium",
            {"chat_template_kwargs": {"enable_thinking": True}, "reasoning_effort": "medium"},
            [],
        ),
    ],
)
def test_thinking(owner: str, think: Any, words: dict[str, Any], left_out: list[str]) -> None:
    _, body, finish = asked(chat(think=think), owner)
    del body["messages"]
    assert body == words and ignored(finish) == left_out


SCHEMA = {"type": "object", "properties": {"a": {"type": "string"}}}
NAMED = {"name": "reply", "strict": True, "schema": SCHEMA}


@pytest.mark.parametrize(
    ("request_", "owner", "words"),
    [
        (
            chat(grammar=Grammar(kind="json")),
            "somebody",
            {"response_format": {"type": "json_object"}},
        ),
        (
            chat(grammar=Grammar(kind="schema", text=json.dumps(SCHEMA))),
            "somebody",
            {"response_format": {"type": "json_schema", "json_schema": NAMED}},
        ),
        (chat(grammar=Grammar(kind="gbnf", text="root ::= x")), "llamacpp", {"grammar": "root ::= x"}),
        (
            raw(grammar=Grammar(kind="schema", text=json.dumps(SCHEMA))),
            "llamacpp",
            {"json_schema": SCHEMA},
        ),
        (raw(grammar=Grammar(kind="json")), "vllm", {"response_format": {"type": "json_object"}}),
        (chat(logprobs=True, top_logprobs=2), "somebody", {"logprobs": True, "top_logprobs": 2}),
        (raw(logprobs=True, top_logprobs=2), "somebody", {"logprobs": 2}),
        (chat(cache_salt="s"), "vllm", {"cache_salt": "s"}),
    ],
)
def test_what_else_is_asked_for(request_: Completion, owner: str, words: dict[str, Any]) -> None:
    _, body, finish = asked(request_, owner)
    assert words.items() <= body.items() and finish.notices == ()


def test_what_no_server_of_this_kind_takes_is_said() -> None:
    request = chat(cache_salt="s", think_budget=5, template=Template(kind="go", text="x"))
    assert set(ignored(asked(request)[2])) == {"cache_salt", "think_budget", "template"}


@pytest.mark.parametrize(
    ("request_", "text"),
    [
        (chat(grammar=Grammar(kind="regex", text="a+")), "leave out grammar"),
        (raw(grammar=Grammar(kind="json")), "leave out format"),
        (chat(context=(1, 2)), "leave out context"),
        (
            Completion(
                prompt=TextPrompt(template=Template(kind="go", text="x"), prompt="a"),
                sampling=SamplingOptions(),
            ),
            "leave out template",
        ),
        (
            Completion(prompt=RawPrompt(text="a", images=("aGk=",)), sampling=SamplingOptions()),
            "images in chats only",
        ),
    ],
)
def test_what_would_change_the_question_is_refused(request_: Completion, text: str) -> None:
    error = refused(request_)
    assert isinstance(error, NotSupported) and text in error.message and "lab" in error.message


def test_prompts() -> None:
    path, body, _ = asked(raw())
    assert (path, body) == ("/v1/completions", {"prompt": "Once"})
    filling = TextPrompt(template=OWN_TEMPLATE, prompt="def f(", suffix="return", system="s")
    path, body, finish = asked(Completion(prompt=filling, sampling=SamplingOptions()))
    assert (path, body) == ("/v1/completions", {"prompt": "def f(", "suffix": "return"})
    assert ignored(finish) == ["system"]

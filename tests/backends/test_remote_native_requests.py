"""Requests in the words of the native API, to another corectl or to an Ollama."""

from __future__ import annotations

import math
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
    OLLAMA,
    OWN_TEMPLATE,
    VERSION,
    chat,
    complete,
    failure,
    finish_of,
    hosted,
    native,
    stream,
)
from tests.core.stories import play

TOOL = {"type": "function", "function": {"name": "f", "parameters": {}}}
USER = Message(role="user", content="Hi")
SYSTEM = Message(role="system", content="Be brief.")


def said(text: str = "", **more: Any) -> dict[str, Any]:
    """A line of a chat."""
    return {"model": "m", "message": {"role": "assistant", "content": text, **more}, "done": False}


def done(**more: Any) -> dict[str, Any]:
    return {**said(), "done": True, "done_reason": "stop", **more}


def asked(
    request: Completion,
    *,
    version: dict[str, str] = VERSION,
    options: LoadOptions = LoadOptions(),  # noqa: B008
    keep_alive: float | None = None,
) -> tuple[str, dict[str, Any], Finish]:
    """Path and body of what a completion becomes, and the end of its reply."""
    found: list[tuple[str, dict[str, Any], Finish]] = []

    async def story() -> None:
        answer = stream(done(), {"model": "m", "response": "", "done": True})
        upstream = native(**version).on("/api/chat", answer).on("/api/generate", answer)
        async with hosted(upstream) as host:
            last = finish_of(await complete(host, request, options, keep_alive))
            sent = upstream.asked[-1]
            found.append((sent.path, sent.json, last))

    play(story())
    return found[0]


def codes(finish: Finish) -> list[str]:
    return [notice.message.split()[0] for notice in finish.notices if notice.code == "option_ignored"]


def refused(request: Completion, version: dict[str, str] = OLLAMA) -> CorectlError:
    found: list[CorectlError] = []

    async def story() -> None:
        upstream = native(**version)
        async with hosted(upstream) as host:
            found.append(await failure(host, request))
            assert [item.path for item in upstream.asked] == ["/api/version"], "it must not be asked"

    play(story())
    return found[0]


def test_a_chat_says_only_what_was_said() -> None:
    path, body, finish = asked(chat())
    assert path == "/api/chat"
    assert body == {"model": "m", "messages": [{"role": "user", "content": "Hi"}], "stream": True}
    assert finish.notices == ()


def test_a_conversation_goes_through_as_it_is() -> None:
    turns = (
        SYSTEM,
        Message(role="user", content="Look", images=("aGk=",)),
        Message(
            role="assistant", thinking="Hm.", tool_calls=({"function": {"name": "f", "arguments": {"a": 1}}},)
        ),
        Message(role="tool", content="2", tool_name="f", tool_call_id="x"),
    )
    _, body, _ = asked(chat(*turns, tools=(TOOL,), think="high"))
    assert body["messages"] == [
        {"role": "system", "content": "Be brief."},
        {"role": "user", "content": "Look", "images": ["aGk="]},
        {
            "role": "assistant",
            "thinking": "Hm.",
            "tool_calls": [{"function": {"name": "f", "arguments": {"a": 1}}}],
        },
        {"role": "tool", "content": "2", "tool_name": "f", "tool_call_id": "x"},
    ]
    assert (body["tools"], body["think"]) == ([TOOL], "high")


def test_options_that_were_given_and_no_others() -> None:
    sampling = GivenOptions(
        temperature=0.8, num_predict=-1, stop=("a",), given=("temperature", "num_predict", "stop")
    )
    options = LoadOptions(num_ctx=512, num_gpu=3, backend="mlx")
    _, body, _ = asked(chat(sampling=sampling), options=options, keep_alive=60)
    assert body["options"] == {
        "num_ctx": 512,
        "num_gpu": 3,
        "backend": "mlx",
        "temperature": 0.8,
        "num_predict": -1,
        "stop": ["a"],
    }
    assert body["keep_alive"] == 60


def test_without_a_record_of_what_was_given_all_but_defaults_is() -> None:
    _, body, _ = asked(chat(sampling=SamplingOptions(temperature=0, top_k=40)))
    assert body["options"] == {"temperature": 0}


def test_for_ever_is_below_nothing() -> None:
    assert asked(chat(), keep_alive=math.inf)[1]["keep_alive"] == -1


def test_the_backend_remote_is_us() -> None:
    assert "options" not in asked(chat(), options=LoadOptions(backend="remote"))[1]


@pytest.mark.parametrize(
    ("prompt", "body"),
    [
        (RawPrompt(text="Once"), {"prompt": "Once", "raw": True}),
        (RawPrompt(text="Once", images=("aGk=",)), {"prompt": "Once", "raw": True, "images": ["aGk="]}),
        (
            TextPrompt(template=OWN_TEMPLATE, prompt="def f(", suffix="return"),
            {"prompt": "def f(", "suffix": "return"},
        ),
        (
            TextPrompt(
                template=Template(kind="go", text="{{ .Prompt }}"),
                prompt="a",
                system="b",
                images=("aGk=",),
                think=True,
            ),
            {"prompt": "a", "system": "b", "template": "{{ .Prompt }}", "images": ["aGk="], "think": True},
        ),
    ],
)
def test_prompts(prompt: Any, body: dict[str, Any]) -> None:
    path, found, _ = asked(Completion(prompt=prompt, sampling=SamplingOptions()))
    assert path == "/api/generate"
    assert found == {"model": "m", "stream": True, **body}


def test_a_prompt_that_became_a_chat_is_one_again() -> None:
    """So that its reply has the tokens that the next request may bring."""
    path, body, _ = asked(chat(SYSTEM, USER, want_context=True, context=(1, 2), think=False))
    assert path == "/api/generate"
    assert body == {
        "model": "m",
        "stream": True,
        "prompt": "Hi",
        "system": "Be brief.",
        "context": [1, 2],
        "think": False,
    }


@pytest.mark.parametrize("turns", [(USER, USER), (SYSTEM, SYSTEM, USER), (SYSTEM,)])
def test_a_longer_one_stays_a_chat(turns: tuple[Message, ...]) -> None:
    assert asked(chat(*turns, want_context=True))[0] == "/api/chat"


def test_a_template_has_no_place_in_a_chat() -> None:
    _, body, finish = asked(chat(template=Template(kind="go", text="{{ .Prompt }}")))
    assert "template" not in body and codes(finish) == ["template"]


@pytest.mark.parametrize(
    ("changes", "body"),
    [
        ({"grammar": Grammar(kind="json")}, {"format": "json"}),
        ({"grammar": Grammar(kind="schema", text='{"type":"object"}')}, {"format": {"type": "object"}}),
        ({"logprobs": True, "top_logprobs": 3}, {"logprobs": True, "top_logprobs": 3}),
        ({"truncate": False, "shift": False}, {"truncate": False, "shift": False}),
        ({"think": False}, {"think": False}),
    ],
)
@pytest.mark.parametrize("version", [VERSION, OLLAMA])
def test_what_every_server_has_words_for(
    version: dict[str, str], changes: dict[str, Any], body: dict[str, Any]
) -> None:
    _, found, finish = asked(chat(**changes), version=version)
    assert body.items() <= found.items() and finish.notices == ()


ADDITIONS = [
    ({"think_budget": 5}, {"think_budget": 5}),
    ({"cache_salt": "s"}, {"cache_salt": "s"}),
]


@pytest.mark.parametrize(("changes", "body"), ADDITIONS)
def test_what_only_corectl_has_words_for(changes: dict[str, Any], body: dict[str, Any]) -> None:
    _, found, finish = asked(chat(**changes))
    assert body.items() <= found.items() and finish.notices == ()
    _, found, finish = asked(chat(**changes), version=OLLAMA)
    assert not found.keys() & body.keys() and codes(finish) == list(body)


@pytest.mark.parametrize(
    ("choice", "word"),
    [
        (ToolChoice(mode="required"), "required"),
        (ToolChoice(mode="required", name="f"), {"type": "function", "function": {"name": "f"}}),
    ],
)
def test_a_tool_that_must_be_called(choice: ToolChoice, word: object) -> None:
    request = chat(tools=(TOOL,), tool_choice=choice)
    assert asked(request)[1]["tool_choice"] == word
    error = refused(request)
    assert isinstance(error, NotSupported) and "leave out tool_choice" in error.message


def test_a_tool_that_must_not_be_called_is_not_shown() -> None:
    request = chat(tools=(TOOL,), tool_choice=ToolChoice(mode="none"))
    for version in (VERSION, OLLAMA):
        assert not asked(request, version=version)[1].keys() & {"tools", "tool_choice"}


def test_one_call_at_a_time_cannot_be_asked_for() -> None:
    _, _, finish = asked(chat(tools=(TOOL,), tool_choice=ToolChoice(parallel=False)))
    assert codes(finish) == ["parallel"]


def test_grammars() -> None:
    request = chat(grammar=Grammar(kind="regex", text="a+"))
    assert asked(request)[1]["grammar"] == {"regex": "a+"}
    assert isinstance(refused(request), NotSupported)


def test_an_ollama_has_no_backends() -> None:
    _, body, finish = asked(chat(), version=OLLAMA, options=LoadOptions(backend="mlx", num_ctx=9))
    assert body["options"] == {"num_ctx": 9} and codes(finish) == ["backend"]

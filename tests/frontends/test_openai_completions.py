"""POST /v1/completions, on real weights."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import MODEL, Server
from tests.frontends.conftest import SKY, post
from tests.frontends.openai_kit import GREEDY, SAY, ask, chat, events, recorded_model, refused

PATH = "/v1/completions"


def complete(server: Server, /, **body: Any) -> dict[str, Any]:
    return ask(server, PATH, **{"prompt": SKY, **GREEDY, **body})


def texts(reply: dict[str, Any]) -> list[str]:
    assert [choice["index"] for choice in reply["choices"]] == list(range(len(reply["choices"])))
    return [choice["text"] for choice in reply["choices"]]


def test_a_prompt_is_a_chat_with_one_message(server: Server) -> None:
    reply = complete(server)
    assert reply["object"] == "text_completion" and reply["id"].startswith("cmpl-")
    assert texts(reply) == [chat(server)["choices"][0]["message"]["content"]]
    assert reply["choices"][0]["finish_reason"] == "length" and reply["usage"]["completion_tokens"] == 8


def test_a_stream_says_the_same(server: Server) -> None:
    *chunks, last = events(server, PATH, prompt=SKY, stream_options={"include_usage": True}, **GREEDY)
    assert "".join(chunk["choices"][0]["text"] for chunk in chunks) == texts(complete(server))[0]
    assert [chunk["choices"][0]["finish_reason"] for chunk in chunks[-2:]] == [None, "length"]
    assert all(chunk["usage"]["total_tokens"] == 0 for chunk in chunks)
    assert last["choices"] == [] and last["usage"]["completion_tokens"] == 8


def test_a_prompt_that_is_cut_is_said(shop: Server) -> None:
    shop.client.post("/api/copy", json={"source": MODEL, "destination": "completions-tight"})
    body = {"model": "completions-tight", "prompt": "word " * 600, "num_ctx": 256, "max_tokens": 1}
    assert ask(shop, PATH, **body)["context_fit"]["dropped_tokens"] > 0
    assert events(shop, PATH, **body)[-1]["context_fit"]["dropped_tokens"] > 0


def test_several_prompts_and_choices(server: Server) -> None:
    prompts = [SKY, "Name a colour."]
    reply = complete(server, prompt=prompts, n=2)
    # Later words may differ: prompts that are computed together are rounded together.
    first = [texts(complete(server, prompt=prompt))[0].split()[:2] for prompt in prompts]
    assert [text.split()[:2] for text in texts(reply)] == [first[0], first[0], first[1], first[1]]
    assert reply["usage"]["completion_tokens"] == 32
    chunks = events(server, PATH, prompt=prompts, n=2, **GREEDY)
    for index in range(4):
        own = [c["choices"][0]["text"] for c in chunks if c["choices"][0]["index"] == index]
        assert "".join(own).split()[:2] == first[index // 2]


def test_an_empty_prompt_among_others_has_a_choice_of_its_own(server: Server) -> None:
    reply = complete(server, prompt=[SKY, "", "Name a colour."], echo=True, max_tokens=1)
    assert [choice["index"] for choice in reply["choices"]] == [0, 1, 2]
    assert texts(reply)[0].startswith(SKY) and texts(reply)[2].startswith("Name a colour.")


def test_echo_and_tokens(server: Server) -> None:
    said = texts(complete(server, prompt=SAY, max_tokens=6))[0]
    assert texts(complete(server, prompt=SAY, max_tokens=6, echo=True))[0] == SAY + said
    chunks = events(server, PATH, prompt=SAY, echo=True, **GREEDY | {"max_tokens": 6})
    assert "".join(c["choices"][0]["text"] for c in chunks) == SAY + said
    counting = "one two three four five six. one two three four five six. one two"
    counted = ask(server, "/v1/tokenize", prompt=counting, add_special_tokens=False)
    assert counted["count"] == len(counted["tokens"]) == 16
    reply = complete(server, prompt=counted["tokens"], echo=True)
    assert texts(reply)[0].startswith(counting) and reply["usage"]["prompt_tokens"] == 16
    raw = post(server, "/api/generate", model=MODEL, prompt=counting, raw=True, stream=False,
               options={"temperature": 0, "seed": 42, "num_predict": 6}).json()  # fmt: skip
    assert texts(complete(server, prompt=[counted["tokens"]], max_tokens=6)) == [raw["response"]]


def test_the_best_of_several_are_the_likeliest(server: Server) -> None:
    warm = {"temperature": 1.5, "seed": 3, "max_tokens": 6, "logprobs": 0}
    reply = complete(server, best_of=4, n=3, **warm)
    found = [choice["logprobs"]["token_logprobs"] for choice in reply["choices"]]
    means = [sum(values) / len(values) for values in found]
    assert len(means) == 3 and means == sorted(means, reverse=True)
    assert reply["usage"]["completion_tokens"] > 18, "the one that was not chosen has cost its tokens as well"


def test_probabilities(server: Server) -> None:
    (choice,) = complete(server, prompt=SAY, logprobs=2, max_tokens=3)["choices"]
    found = choice["logprobs"]
    assert "".join(found["tokens"]) == choice["text"]
    assert found["text_offset"] == [0, len(found["tokens"][0]), len("".join(found["tokens"][:2]))]
    assert all(len(top) == 2 for top in found["top_logprobs"])
    chunks = events(server, PATH, prompt=SAY, **GREEDY | {"logprobs": 0, "max_tokens": 3})
    streamed = [c["choices"][0]["logprobs"]["tokens"] for c in chunks if "logprobs" in c["choices"][0]]
    assert [token for part in streamed for token in part] == found["tokens"]
    offsets = [c["choices"][0]["logprobs"]["text_offset"] for c in chunks if "logprobs" in c["choices"][0]]
    assert [offset for part in offsets for offset in part] == found["text_offset"]


def test_a_suffix_needs_a_model_that_fills_in(shop: Server) -> None:
    filler = recorded_model(shop, "openai-fills", "smolinsert")
    assert texts(complete(shop, model=filler, prompt="def f(", suffix="return 1"))[0]
    error = refused(shop, PATH, prompt="a", suffix="b")
    assert error["param"] == "suffix"


def test_without_a_prompt_the_model_is_loaded(server: Server) -> None:
    reply = complete(server, prompt=None)
    assert texts(reply) == [""] and reply["choices"][0]["finish_reason"] == "load"


@pytest.mark.parametrize(("prompt", "n", "count"), [(None, 1, 1), ("", 2, 2), (["", ""], 2, 4)])
def test_empty_prompts_have_a_choice_each_in_streams_too(
    server: Server, prompt: Any, n: int, count: int
) -> None:
    reply = complete(server, prompt=prompt, n=n)
    assert texts(reply) == [""] * count
    assert {choice["finish_reason"] for choice in reply["choices"]} == {"load"}
    *chunks, last = events(server, PATH, prompt=prompt, n=n, stream_options={"include_usage": True})
    assert [chunk["choices"] for chunk in chunks] == [[choice] for choice in reply["choices"]]
    assert last["choices"] == [] and last["usage"] == reply["usage"]


@pytest.mark.parametrize(
    ("body", "param"),
    [
        ({"prompt": 5}, "prompt"),
        ({"prompt": ["a", 5]}, "prompt[1]"),
        ({"prompt": [[-1]]}, "prompt[0]"),
        ({"prompt": [99_999_999]}, "prompt"),
        ({"prompt": [99_999_999], "echo": True}, "prompt"),
        ({"prompt": ["a"] * 65, "n": 2}, "prompt"),
        ({"best_of": 1, "n": 2}, "best_of"),
        ({"best_of": 2, "stream": True}, "best_of"),
        ({"echo": True, "logprobs": 1}, "echo"),
        ({"logprobs": 21}, "logprobs"),
        ({"stop": [5]}, "stop[0]"),
        ({"suffix": 5}, "suffix"),
    ],
)
def test_what_is_wrong_is_named(server: Server, body: dict[str, Any], param: str) -> None:
    error = refused(server, PATH, **{"prompt": SKY, "max_tokens": 1, **body})
    assert (error["type"], error["param"]) == ("invalid_request_error", param), error

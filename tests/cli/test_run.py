"""`run` without a conversation."""

from __future__ import annotations

from collections.abc import Callable
from typing import TYPE_CHECKING, Any

import pytest

from corectl.cli.answers import fit_warning, report, statistics

if TYPE_CHECKING:
    from tests.cli.conftest import FakeServer, Result

    Corectl = Callable[..., Result]

FINAL = {
    "response": "",
    "done": True,
    "done_reason": "stop",
    "total_duration": 185372449,
    "load_duration": 3854987,
    "prompt_eval_count": 15,
    "prompt_eval_duration": 10716000,
    "eval_count": 16,
    "eval_duration": 164788000,
}


@pytest.fixture
def model(server: FakeServer) -> FakeServer:
    """A server with one model that says `Hi there`."""
    server.reply("POST /api/show", {"capabilities": ["completion"], "details": {}})
    server.reply("POST /api/generate", [{"response": "Hi"}, {"response": " there\u2028."}, FINAL])
    return server


def asked(server: FakeServer) -> dict[str, Any]:
    body: dict[str, Any] = server.bodies("POST /api/generate")[0]
    return body


def test_the_words_are_the_prompt(model: FakeServer, corectl: Corectl) -> None:
    result = corectl("run", "t0", "Why", "is", "the", "sky", "blue?")
    assert (result.code, result.out, result.err) == (0, "Hi there\u2028.\n\n", "")
    assert asked(model) == {"model": "t0", "prompt": "Why is the sky blue?"}


def test_what_is_piped_in_need_not_be_utf_8(model: FakeServer, corectl: Corectl) -> None:
    corectl("run", "t0", "caf\udce9", stdin="naïve".encode("latin-1"))
    assert model.bodies("POST /api/generate")[-1]["prompt"] == "na\ufffdve caf\ufffd"


def test_what_is_piped_in_comes_first(model: FakeServer, corectl: Corectl) -> None:
    corectl("run", "t0", "Summarize", stdin="a text\n")
    assert asked(model)["prompt"] == "a text\n Summarize"


@pytest.mark.parametrize(
    ("flags", "sent"),
    [
        (["--format", "json"], {"format": "json"}),
        (["--format", '{"type": "integer"}'], {"format": {"type": "integer"}}),
        (["--format", "yaml"], {"format": "yaml"}),
        (["--think"], {"think": True}),
        (["--think=false"], {"think": False}),
        (["--think=high"], {"think": "high"}),
        (["--keepalive", "1h30m"], {"keep_alive": "1h30m"}),
        (["--keepalive", "-1"], {"keep_alive": -1}),
        (["--keepalive", "300"], {"keep_alive": 300}),
    ],
)
def test_flags(model: FakeServer, corectl: Corectl, flags: list[str], sent: dict[str, Any]) -> None:
    assert corectl("run", "t0", *flags, "hi").code == 0
    assert asked(model) == {"model": "t0", "prompt": "hi", **sent}


def test_timings(model: FakeServer, corectl: Corectl) -> None:
    assert corectl("run", "t0", "--verbose", "hi").err == (
        "total duration:       185.372449ms\n"
        "load duration:        3.854987ms\n"
        "prompt eval count:    15 token(s)\n"
        "prompt eval duration: 10.716ms\n"
        "prompt eval rate:     1399.78 tokens/s\n"
        "eval count:           16 token(s)\n"
        "eval duration:        164.788ms\n"
        "eval rate:            97.09 tokens/s\n"
    )
    assert statistics({"eval_count": 2}) == "eval count:           2 token(s)\n"


def test_an_empty_prompt_loads_the_model(model: FakeServer, corectl: Corectl) -> None:
    model.reply("POST /api/generate", {"response": "", "done": True, "done_reason": "load"})
    result = corectl("run", "t0", "")
    assert (result.code, result.out, result.err) == (0, "", "")


def test_thinking(model: FakeServer, corectl: Corectl) -> None:
    events = [
        {"response": "", "thinking": "hm"},
        {"response": "", "thinking": "m"},
        {"response": "Yes"},
        FINAL,
    ]
    model.reply("POST /api/generate", events)
    assert corectl("run", "t0", "hi").out == "Thinking...\nhmm\n...done thinking.\n\nYes\n\n"
    assert corectl("run", "t0", "--hidethinking", "hi").out == "Yes\n\n"


def test_an_answer_that_breaks_off_is_an_error(model: FakeServer, corectl: Corectl) -> None:
    model.reply("POST /api/generate", [{"response": "Hi"}])
    result = corectl("run", "t0", "hi")
    assert (result.code, result.out) == (1, "Hi\n\n")
    assert result.err == "Error: the server ended its reply before the answer was complete\n"


def test_what_did_not_fit_is_said(model: FakeServer, corectl: Corectl) -> None:
    fit = {"num_ctx": 64, "dropped_messages": 1, "dropped_tokens": 30}
    model.reply("POST /api/generate", [{**FINAL, "context_fit": fit}])
    assert corectl("run", "t0", "hi").err == (
        "warning: 1 message and 30 tokens dropped to fit the context of 64 tokens; "
        "num_ctx sets a larger one\n"
    )
    assert fit_warning({"context_fit": {"num_ctx": 64}}) == fit_warning({}) == ""


def test_warnings_are_said(capsys: pytest.CaptureFixture[str]) -> None:
    report({"warnings": [{"code": "unknown_tool", "message": "there is no tool 'x'"}]}, verbose=False)
    assert capsys.readouterr().err == "warning: there is no tool 'x'\n"


def test_a_missing_model_is_pulled(model: FakeServer, corectl: Corectl) -> None:
    shown = [(404, {"error": "model 'new:latest' not found"}), (200, {"capabilities": ["completion"]})]
    model.replies["POST /api/show"] = shown[0]
    model.on("POST /api/pull", lambda: model.replies.update({"POST /api/show": shown[1]}))
    model.reply("POST /api/pull", [{"status": "pulling manifest"}, {"status": "success"}])
    result = corectl("run", "new", "--insecure", "hi")
    assert (result.code, result.out) == (0, "Hi there\u2028.\n\n")
    assert result.err == "pulling manifest\nsuccess\n"
    assert model.bodies("POST /api/pull") == [{"model": "new", "insecure": True, "stream": True}]


def test_a_missing_model_that_cannot_be_pulled(model: FakeServer, corectl: Corectl) -> None:
    model.reply("POST /api/show", {"error": "model 'nope:latest' not found"}, 404)
    steps = [{"status": "pulling manifest"}, {"error": "pull model manifest: file does not exist"}]
    model.reply("POST /api/pull", steps)
    result = corectl("run", "nope", "hi")
    assert (result.code, result.out) == (1, "")
    assert result.err == "pulling manifest\nError: pull model manifest: file does not exist\n"
    assert model.bodies("POST /api/generate") == []


def test_an_embedding_model(server: FakeServer, corectl: Corectl) -> None:
    server.reply("POST /api/show", {"capabilities": ["embedding"]})
    server.reply("POST /api/embed", {"embeddings": [[0.5, -1.0]]})
    assert corectl("run", "bert", "--dimensions", "2", "--truncate=false", "hi").out == "[0.5,-1.0]\n"
    assert server.bodies("POST /api/embed") == [
        {"model": "bert", "input": "hi", "truncate": False, "dimensions": 2}
    ]
    assert corectl("run", "bert").err == (
        'Error: embedding models require input text. Usage: corectl run bert "your text here"\n'
    )


def test_a_remote_model(model: FakeServer, corectl: Corectl) -> None:
    remote = {"remote_model": "big:1", "remote_host": "https://ollama.com:443"}
    model.reply("POST /api/show", remote)
    assert corectl("run", "stub", "hi").err == "Connecting to 'big:1' on 'ollama.com' ⚡\n"

"""POST /api/generate: replies, prompts, limits, probabilities."""

from __future__ import annotations

import itertools
import json
import math
import re
import time
from typing import Any

import pytest

from tests.conftest import MODEL, Server
from tests.frontends.conftest import SKY, ask, options, post, refused, rendered, stream

GENERATE = "/api/generate"
TIME = re.compile(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d{1,9})?Z")
FINAL = {
    *("model", "created_at", "response", "done", "done_reason", "context", "total_duration"),
    *("load_duration", "prompt_eval_count", "prompt_eval_duration", "eval_count", "eval_duration"),
}
ADDITIONS = {"context_fit", "prompt_cached_count"}
SYSTEM = "You are a helpful AI assistant named SmolLM, trained by Hugging Face"


def _turn(role: str, text: str) -> str:
    return f"<|im_start|>{role}\n{text}<|im_end|>\n"


def test_a_stream_is_chunks_and_a_final_one(server: Server) -> None:
    *chunks, final = stream(server, GENERATE, prompt=SKY)
    assert len(chunks) > 1
    for chunk in chunks:
        assert list(chunk) == ["model", "created_at", "response", "done"]
        assert chunk["done"] is False and chunk["response"]
    assert all(chunk["model"] == MODEL and TIME.fullmatch(chunk["created_at"]) for chunk in [*chunks, final])
    assert final.keys() - ADDITIONS == FINAL
    assert final["done"] is True and final["response"] == ""


def test_one_reply_is_the_stream_put_together(server: Server) -> None:
    *chunks, final = stream(server, GENERATE, prompt=SKY)
    whole = ask(server, GENERATE, prompt=SKY)
    assert whole["response"] == "".join(chunk["response"] for chunk in chunks)
    assert whole.keys() - ADDITIONS == final.keys() - ADDITIONS
    same = ("done", "done_reason", "context", "prompt_eval_count", "eval_count", "context_fit")
    assert all(whole[key] == final[key] for key in same)


def test_each_chunk_is_sent_at_once(server: Server) -> None:
    body = {"model": MODEL, "prompt": "Tell me a story.", "options": options(num_predict=30)}
    arrivals = []
    with server.client.stream("POST", GENERATE, json=body) as reply:
        for line in reply.iter_lines():
            arrivals.append(time.monotonic())
            assert line == json.dumps(json.loads(line), separators=(",", ":"), ensure_ascii=False)
    spent = json.loads(line)["eval_duration"] / 1e9
    assert arrivals[-1] - arrivals[0] > spent / 2


def test_figures(server: Server) -> None:
    before = time.monotonic_ns()
    reply = ask(server, GENERATE, prompt=SKY)
    spent = time.monotonic_ns() - before
    assert reply["eval_count"] == 8 and reply["done_reason"] == "length"
    assert len(reply["context"]) == reply["prompt_eval_count"] + reply["eval_count"]
    assert 0 < reply["load_duration"] < reply["total_duration"] <= spent
    assert 0 < reply["prompt_eval_duration"] + reply["eval_duration"] < reply["total_duration"]
    fit = {"num_ctx": 4096, "requested_ctx": 0, "dropped_messages": 0, "dropped_tokens": 0, "shifts": 0}
    assert reply["context_fit"] == fit


def test_tokens_that_were_not_computed_again_are_counted(server: Server) -> None:
    prompt = "Tell me what a cache is, and why it is not a cash."
    first, again = (ask(server, GENERATE, prompt=prompt) for _ in range(2))
    assert "prompt_cached_count" not in first or first["prompt_cached_count"] < again["prompt_cached_count"]
    # One token at least is computed: the first of the answer comes from it.
    assert 0 < again["prompt_cached_count"] < again["prompt_eval_count"] == first["prompt_eval_count"]
    assert again["response"] == first["response"]
    assert "prompt_cached_count" not in ask(server, GENERATE, prompt=prompt, cache_salt="s" * 256)


def test_the_end_of_the_text_is_a_stop(server: Server) -> None:
    reply = ask(server, GENERATE, prompt="Say only: yes", options=options(num_predict=200))
    assert reply["done_reason"] == "stop"
    assert 1 < reply["eval_count"] < 200
    assert "<|im_end|>" not in reply["response"]


@pytest.mark.parametrize("count", [1, 5])
def test_num_predict(server: Server, count: int) -> None:
    reply = ask(server, GENERATE, prompt=SKY, options=options(num_predict=count))
    assert (reply["eval_count"], reply["done_reason"]) == (count, "length")


def test_the_model_is_named_as_it_was_asked_for(server: Server) -> None:
    assert ask(server, GENERATE, model="SmolLM2:Latest", prompt=SKY)["model"] == "SmolLM2:Latest"
    assert ask(server, GENERATE, model=f"{MODEL}:local", prompt=SKY)["model"] == f"{MODEL}:local"


def test_stop_strings_are_cut_out_wherever_they_lie(server: Server) -> None:
    # Each computes the prompt afresh: on some processors the rest of one is not quite what the whole is.
    salts = (f"stop {number}" for number in itertools.count())
    *chunks, _ = stream(server, GENERATE, prompt=SKY, options=options(num_predict=24), cache_salt=next(salts))
    parts = [chunk["response"] for chunk in chunks]
    text = "".join(parts)
    border = parts[4][-2:] + parts[5] + parts[6][:1]
    assert text.count(border) == 1
    for stop in (border, parts[6].strip(), text[9:12]):
        *cut, final = stream(
            server,
            GENERATE,
            prompt=SKY,
            options=options(num_predict=24, stop=["@@", stop]),
            cache_salt=next(salts),
        )
        assert "".join(chunk["response"] for chunk in cut) == text[: text.index(stop)]
        assert final["done_reason"] == "stop"
        assert final["eval_count"] < 24


def test_a_stop_string_that_does_not_come_changes_nothing(server: Server) -> None:
    plain = ask(server, GENERATE, prompt=SKY)["response"]
    assert (
        ask(server, GENERATE, prompt=SKY, options=options(stop=["zzz", plain[-3:] + "!!"]))["response"]
        == plain
    )


def test_the_prompt_is_a_users_turn_in_the_models_template(server: Server) -> None:
    expected = _turn("system", SYSTEM) + _turn("user", SKY) + "<|im_start|>assistant\n"
    assert rendered(server, GENERATE, prompt=SKY) == expected


def test_system_replaces_the_models(server: Server) -> None:
    expected = _turn("system", "Be brief.") + _turn("user", SKY) + "<|im_start|>assistant\n"
    assert rendered(server, GENERATE, prompt=SKY, system="Be brief.") == expected


def test_raw_is_the_prompt_and_nothing_else(server: Server) -> None:
    assert rendered(server, GENERATE, prompt="2 + 2 =", raw=True) == "2 + 2 ="
    reply = ask(server, GENERATE, prompt="The capital of France is", raw=True)
    assert reply["prompt_eval_count"] == 5
    assert reply["response"].startswith(" Paris")
    assert "context" not in reply


@pytest.mark.parametrize("extra", [{"system": "x"}, {"template": "x"}, {"context": [1]}])
def test_raw_goes_with_no_template(server: Server, extra: dict[str, Any]) -> None:
    error = refused(server, GENERATE, prompt="x", raw=True, **extra)
    assert error == "raw mode does not support template, system, or context"


def test_a_template_of_the_request(server: Server) -> None:
    template = "{{ if .System }}S:{{ .System }} {{ end }}Q: {{ .Prompt }}\nA:"
    assert rendered(server, GENERATE, prompt=SKY, template=template) == f"Q: {SKY}\nA:"
    assert rendered(server, GENERATE, prompt="x", template=template, system="s") == "S:s Q: x\nA:"
    error = refused(server, GENERATE, prompt=SKY, template="{{ .Prompt")
    assert "unclosed action" in error


def test_context_continues_a_conversation(server: Server) -> None:
    first = ask(server, GENERATE, prompt="My name is Bob.", system="S", options=options(num_predict=6))
    second = ask(server, GENERATE, prompt="What is my name?", context=first["context"])
    added = second["prompt_eval_count"] - len(first["context"])
    assert second["context"][: len(first["context"])] == first["context"]
    assert 5 < added < 60
    alone = ask(server, GENERATE, prompt="What is my name?")
    assert alone["prompt_eval_count"] == added
    assert "Bob" in second["response"] and "Bob" not in alone["response"]


@pytest.mark.parametrize("token", [-1, 49152, 99999999])
def test_context_must_be_tokens_of_the_model(server: Server, token: int) -> None:
    assert str(token) in refused(server, GENERATE, prompt="x", context=[token])


def test_seeds(server: Server) -> None:
    first, again, other = (
        ask(server, GENERATE, prompt=SKY, options=options(temperature=1, seed=seed))["response"]
        for seed in (7, 7, 8)
    )
    assert first == again != other


def test_sampling_options_have_an_effect(server: Server) -> None:
    plain = ask(server, GENERATE, prompt="Say: la la la la la", options=options(num_predict=24))["response"]
    hot = options(num_predict=24, temperature=1.9, top_k=0, top_p=1.0)
    assert ask(server, GENERATE, prompt="Say: la la la la la", options=hot)["response"] != plain
    # Further on a close decision may fall another way: the prompt is not computed again.
    only = {**hot, "top_k": 1, "num_predict": 6}
    assert plain.startswith(ask(server, GENERATE, prompt="Say: la la la la la", options=only)["response"])


def _check_logprobs(entries: list[dict[str, Any]], top: int) -> None:
    for entry in entries:
        assert entry["logprob"] <= 0
        assert bytes(entry["bytes"]).decode("utf-8", "replace") == entry["token"]
        best = entry.get("top_logprobs", [])
        assert len(best) == top
        values = [item["logprob"] for item in best]
        assert values == sorted(values, reverse=True)
        assert sum(map(math.exp, values)) <= 1.000001
        if best:
            assert best[0]["token"] == entry["token"] and values[0] == entry["logprob"]


@pytest.mark.parametrize("top", [0, 1, 20])
def test_logprobs(server: Server, top: int) -> None:
    reply = ask(server, GENERATE, prompt=SKY, logprobs=True, top_logprobs=top)
    assert len(reply["logprobs"]) == reply["eval_count"]
    assert "".join(entry["token"] for entry in reply["logprobs"]) == reply["response"]
    _check_logprobs(reply["logprobs"], top)


def test_logprobs_in_a_stream(server: Server) -> None:
    *chunks, final = stream(server, GENERATE, prompt=SKY, logprobs=True, top_logprobs=2)
    for chunk in chunks:
        assert "".join(entry["token"] for entry in chunk["logprobs"]) == chunk["response"]
        _check_logprobs(chunk["logprobs"], 2)
    assert sum(len(chunk["logprobs"]) for chunk in chunks) == final["eval_count"]
    assert "logprobs" not in final


def test_no_logprobs_unless_asked_for(server: Server) -> None:
    assert "logprobs" not in ask(server, GENERATE, prompt=SKY, top_logprobs=3)
    for count in (-1, 21):
        error = refused(server, GENERATE, prompt=SKY, logprobs=True, top_logprobs=count)
        assert error == "top_logprobs must be between 0 and 20"


def test_a_rendered_prompt_is_no_answer(server: Server) -> None:
    reply = ask(server, GENERATE, prompt=SKY, _debug_render_only=True)
    assert reply.keys() == {"model", "created_at", "response", "done", "_debug_info"}
    assert reply["response"] == "" and reply["done"] is False


def test_text_beyond_ascii(server: Server) -> None:
    prompt = "Repeat after me: h\u00e9llo \u65e5\u672c\u8a9e \U0001f999"
    assert prompt in rendered(server, GENERATE, prompt=prompt)
    # Both are computed afresh: what is taken from the cache may differ in its last bits.
    body = {"prompt": prompt, "options": options(num_predict=20)}
    *chunks, final = stream(server, GENERATE, cache_salt="streamed", **body)
    text = "".join(chunk["response"] for chunk in chunks)
    assert text == ask(server, GENERATE, cache_salt="whole", **body)["response"]
    assert final["done"] and text


def test_unknown_keys_and_options_are_ignored(server: Server) -> None:
    plain = ask(server, GENERATE, prompt=SKY)["response"]
    legacy = {"numa": True, "low_vram": "x", "f16_kv": 1, "mirostat": 2, "tfs_z": 0.5, "zork": [1]}
    assert ask(server, GENERATE, prompt=SKY, zork={"a": 1}, options=options(**legacy))["response"] == plain


def test_keys_in_any_case_and_nulls(server: Server) -> None:
    plain = ask(server, GENERATE, prompt=SKY)["response"]
    nulls = dict.fromkeys(("system", "template", "context", "images", "keep_alive", "format", "think", "raw"))
    body = {"MODEL": MODEL, "Prompt": SKY, "sTREAM": False, "Options": options(top_k=None), **nulls}
    reply = post(server, GENERATE, **body)
    assert reply.status_code == 200 and reply.json()["response"] == plain


@pytest.mark.parametrize("kind", ["text/plain", "application/x-www-form-urlencoded", "nonsense"])
def test_the_content_type_does_not_matter(server: Server, kind: str) -> None:
    body = json.dumps({"model": MODEL, "prompt": SKY, "stream": False, "options": options(num_predict=2)})
    reply = server.client.post(GENERATE, content=body, headers={"Content-Type": kind})
    assert reply.status_code == 200 and reply.json()["done"]


def test_what_follows_the_first_value_is_ignored(server: Server) -> None:
    body = json.dumps({"model": MODEL, "prompt": SKY, "stream": False, "options": options(num_predict=2)})
    assert server.client.post(GENERATE, content=body + '} {"model": "nope"}').status_code == 200

"""POST /v1/chat/completions: what is wrong with a request."""

from __future__ import annotations

from typing import Any

import pytest

from tests.conftest import MODEL, Server
from tests.frontends.openai_kit import QUESTION, WEATHER, chat, refused


@pytest.mark.parametrize(
    ("body", "param", "code"),
    [
        ({"messages": []}, "messages", "empty_array"),
        ({"messages": "x"}, "messages", "invalid_type"),
        ({"messages": ["x"]}, "messages[0]", "invalid_type"),
        ({"messages": [{"content": "x"}]}, "messages[0].role", "missing_required_parameter"),
        ({"messages": [{"role": "user", "content": None}]}, "messages[0].content", "invalid_type"),
        ({"messages": [{"role": "user", "content": 5}]}, "messages[0].content", "invalid_type"),
        ({"messages": [*QUESTION, {"role": 5, "content": "x"}]}, "messages[1].role", "invalid_type"),
        (
            {"messages": [{"role": "user", "content": [{"type": "text", "text": 5}]}]},
            "messages[0].content[0].text",
            "invalid_type",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "zzz"}]}]},
            "messages[0].content[0].type",
            "invalid_value",
        ),
        (
            {"messages": [{"role": "user", "content": [{"type": "image_url", "image_url": {"url": "x"}}]}]},
            "messages[0].content[0].image_url",
            "invalid_value",
        ),
        (
            {
                "messages": [
                    {"role": "assistant", "tool_calls": [{"function": {"name": "f", "arguments": 5}}]}
                ]
            },
            "messages[0].tool_calls[0].function.arguments",
            "invalid_value",
        ),
        ({"messages": [{"role": "assistant", "refusal": ["No."]}]}, "messages[0].refusal", "invalid_type"),
        ({"temperature": "hot"}, "temperature", "invalid_type"),
        ({"temperature": -1}, "temperature", "invalid_value"),
        ({"top_p": 2}, "top_p", "invalid_value"),
        ({"max_tokens": "many"}, "max_tokens", "invalid_type"),
        ({"max_tokens": 10**12}, "max_tokens", "invalid_value"),
        ({"max_completion_tokens": 10**12}, "max_completion_tokens", "invalid_value"),
        ({"logit_bias": {"a": 1}}, "logit_bias", "invalid_value"),
        ({"logit_bias": {"5": 101}}, "logit_bias[]", "invalid_value"),
        ({"logit_bias": {"99999999": 1}}, "logit_bias", "invalid_value"),
        ({"stop": 5}, "stop", "invalid_type"),
        ({"stop": ["a", 5]}, "stop[1]", "invalid_type"),
        ({"n": 0}, "n", "invalid_value"),
        ({"n": 129}, "n", "invalid_value"),
        ({"seed": 0.5}, "seed", "invalid_type"),
        ({"stream": "yes"}, "stream", "invalid_type"),
        ({"stream_options": {"include_usage": 1}}, "stream_options.include_usage", "invalid_type"),
        ({"top_logprobs": 2}, "top_logprobs", "invalid_value"),
        ({"logprobs": True, "top_logprobs": 21}, "top_logprobs", "invalid_value"),
        ({"response_format": {"type": "xml"}}, "response_format.type", "invalid_value"),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"name": "a"}}},
            "response_format.json_schema.schema",
            "invalid_value",
        ),
        (
            {"response_format": {"type": "json_schema", "json_schema": {"schema": {"type": "zzz"}}}},
            "response_format.json_schema.schema.type",
            "invalid_value",
        ),
        ({"reasoning_effort": "zzz"}, "reasoning_effort", "invalid_value"),
        ({"reasoning": {"effort": "zzz"}}, "reasoning.effort", "invalid_value"),
        ({"tools": [WEATHER]}, "tools", "invalid_value"),
        ({"tools": {}}, "tools", "invalid_type"),
        (
            {"tools": [{"type": "function", "function": {"name": "f", "description": 5}}]},
            "tools[0].function.description",
            "invalid_value",
        ),
        ({"tool_choice": "required"}, "tool_choice", "invalid_value"),
        ({"tool_choice": "zzz"}, "tool_choice", "invalid_value"),
        (
            {"tools": [WEATHER], "tool_choice": {"type": "allowed_tools", "allowed_tools": {"mode": "auto"}}},
            "tool_choice.type",
            "invalid_value",
        ),
        ({"functions": [{"name": "f"}]}, "functions", "unsupported_parameter"),
        ({"keep_alive": "soon"}, "keep_alive", "invalid_value"),
        ({"num_ctx": -1}, "num_ctx", "invalid_value"),
        ({"options": {"num_ctx": "x"}}, "options.num_ctx", "invalid_type"),
        ({"options": {"num_ctx": -5}}, "options.num_ctx", "invalid_value"),
        ({"options": {"num_ctx": -5}, "num_ctx": -6}, "num_ctx", "invalid_value"),
        ({"model": ""}, "model", "missing_required_parameter"),
        ({"model": "../x"}, "model", "invalid_value"),
    ],
)
@pytest.mark.parametrize("stream", [False, True])
def test_what_is_wrong_is_named(
    server: Server, body: dict[str, Any], param: str, code: str, stream: bool
) -> None:
    request = {"messages": QUESTION, "stream": stream, "max_tokens": 1, **body}
    error = refused(server, "/v1/chat/completions", **request)
    assert (error["type"], error["param"], error["code"]) == ("invalid_request_error", param, code), error
    assert error["message"] and "Traceback" not in error["message"]


def test_what_asks_for_nothing_is_no_mistake(server: Server) -> None:
    (choice,) = chat(server, top_logprobs=0, functions=[], max_tokens=1)["choices"]
    assert "logprobs" not in choice


def test_a_model_that_is_not_here(server: Server) -> None:
    assert refused(server, "/v1/chat/completions", status=404, model="nope", messages=QUESTION) == {
        "message": "model 'nope' not found",
        "type": "not_found_error",
        "param": "model",
        "code": "model_not_found",
    }


def test_a_model_of_the_cloud_is_refused(server: Server) -> None:
    error = refused(server, "/v1/chat/completions", status=403, model=f"{MODEL}:cloud", messages=QUESTION)
    assert (error["type"], error["param"]) == ("permission_error", "model")

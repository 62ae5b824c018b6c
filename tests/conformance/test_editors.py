"""Editors with a window cannot be started here: what they are known to send is answered with what they read.

It is known from their source where that is public, and else from programs that stand in for Ollama before them.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Literal

import pytest
from msgspec import Struct

from tests.conformance.editor_kit import (
    ARGUMENTS,
    SUNNY,
    SYSTEM,
    TOOL,
    USER,
    good,
    read,
    read_lines,
    walk,
)
from tests.conftest import MODEL, Server
from tests.integrations.loop import DONE, FULL_NAME, create_loop


@pytest.fixture(scope="module")
def editors(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Server]:
    running = Server(tmp_path_factory.mktemp("editors"))
    create_loop(running)
    yield running
    assert running.stop() == 0, running.log


# Zed: its crate `ollama`, and the provider of that name.


class ZedDetails(Struct):
    format: str
    family: str
    parameter_size: str
    quantization_level: str
    families: list[str] | None = None


class ZedListed(Struct):
    name: str
    modified_at: str
    size: int
    digest: str
    details: ZedDetails


class ZedList(Struct):
    models: list[ZedListed]


class ZedShown(Struct):
    capabilities: list[str]


class ZedFunction(Struct):
    name: str
    arguments: dict[str, Any]


class ZedCall(Struct):
    id: str
    function: ZedFunction


class ZedMessage(Struct):
    role: Literal["assistant"]
    content: str
    tool_calls: list[ZedCall] | None = None
    thinking: str | None = None


class ZedLine(Struct):
    model: str
    created_at: str
    message: ZedMessage
    done: bool
    prompt_eval_count: int | None = None
    eval_count: int | None = None


def zed_turn(server: Server, *messages: dict[str, Any]) -> list[ZedLine]:
    options: dict[str, Any] = {
        "num_ctx": 4096,
        "num_predict": None,
        "stop": [],
        "temperature": 1.0,
        "top_p": None,
    }
    return read_lines(
        server,
        ZedLine,
        model=FULL_NAME,
        messages=[SYSTEM, USER, *messages],
        stream=True,
        keep_alive=-1,
        options=options,
        tools=[TOOL],
        think=False,
    )


def test_zed_lists_the_models_and_what_each_can(editors: Server) -> None:
    names = [model.name for model in read(editors, "/api/tags", ZedList).models]
    assert {FULL_NAME, f"{MODEL}:latest"} <= set(names)
    assert "tools" in read(editors, "/api/show", ZedShown, model=FULL_NAME).capabilities


def test_zed_walks_the_loop(editors: Server) -> None:
    """It takes the first call of a line, numbers it itself, and names the tool in the result."""
    first = zed_turn(editors)
    calls = [line.message.tool_calls for line in first if line.message.tool_calls]
    assert [call[0].function for call in calls] == [ZedFunction("get_weather", ARGUMENTS)]
    assert first[-1].done and first[-1].prompt_eval_count and first[-1].eval_count

    function = {"name": "get_weather", "arguments": ARGUMENTS}
    call = {"id": calls[0][0].id, "function": function}
    called = {"role": "assistant", "content": "", "tool_calls": [call], "thinking": None}
    second = zed_turn(editors, called, {"role": "tool", "tool_name": "get_weather", "content": SUNNY})
    assert "".join(line.message.content for line in second) == DONE


def test_zed_predicts_an_edit(editors: Server) -> None:
    """It writes the marks of a gap into the prompt itself, and reads one reply."""
    reply = read(
        editors,
        "/api/generate",
        dict[str, Any],
        model=MODEL,
        prompt="<fim_prefix>def one():\n    return <fim_suffix>\n<fim_middle>",
        raw=True,
        stream=False,
        options={
            "num_predict": 8,
            "temperature": 0.2,
            "stop": ["<|endoftext|>", "<fim_prefix>", "<PRE>", "[SUFFIX]"],
        },
    )
    assert isinstance(reply["response"], str) and reply["done"] is True


# Copilot's chat in VS Code: its provider `Ollama`, which asks for models in one protocol and chats in another.


class CopilotModel(Struct):
    model: str


class CopilotModels(Struct):
    models: list[CopilotModel]


class CopilotShown(Struct):
    capabilities: list[str]
    model_info: dict[str, Any]


def test_copilot_in_vs_code_takes_the_version_and_the_models(editors: Server) -> None:
    version = read(editors, "/api/version", dict[str, str])["version"]
    assert tuple(int(part) for part in version.split(".")) >= (0, 6, 4)
    names = [model.model for model in read(editors, "/api/tags", CopilotModels).models]
    assert FULL_NAME in names
    for name in names:
        shown = read(editors, "/api/show", CopilotShown, model=name)
        length = shown.model_info[f"{shown.model_info['general.architecture']}.context_length"]
        assert isinstance(length, int) and length > 0
    assert "tools" in read(editors, "/api/show", CopilotShown, model=FULL_NAME).capabilities


def test_copilot_in_vs_code_walks_the_loop(editors: Server) -> None:
    headers = {
        "authorization": "Bearer",  # and a key that is empty
        "openai-intent": "conversation-agent",
        "x-initiator": "user",
        "origin": "vscode-file://vscode-app",
    }
    for chunks in walk(
        editors,
        headers,
        [{"type": "text", "text": USER["content"]}],
        temperature=0.1,
        top_p=1,
        n=1,
        stream_options={"include_usage": True},
    ):
        assert chunks[-1].usage and chunks[-1].usage.prompt_tokens > 0


# Ollama's own extension of VS Code, which asks with Ollama's JavaScript client.


class Loaded(Struct):
    name: str
    model: str
    context_length: int


class LoadedModels(Struct):
    models: list[Loaded]


class CalledFunction(Struct):
    name: str
    arguments: dict[str, Any]


class NativeCall(Struct):
    function: CalledFunction
    id: str | None = None


class NativeMessage(Struct):
    content: str = ""
    tool_calls: list[NativeCall] = []


class NativeLine(Struct):
    message: NativeMessage
    done: bool
    prompt_eval_count: int | None = None
    eval_count: int | None = None


def native_turn(server: Server, *messages: dict[str, Any], **body: Any) -> list[NativeLine]:
    lines = read_lines(
        server,
        NativeLine,
        {"user-agent": "ollama-js/0.6.4 (x64 linux Node.js/v24.21.0)"},
        model=FULL_NAME,
        messages=messages,
        stream=True,
        **body,
    )
    assert lines[-1].done and lines[-1].prompt_eval_count and lines[-1].eval_count
    return lines


def test_ollamas_extension_of_vs_code_walks_the_loop(editors: Server) -> None:
    """It looks how long the context is that the model was loaded with."""
    (call,) = [call for line in native_turn(editors, USER, tools=[TOOL]) for call in line.message.tool_calls]
    assert call.function.name == "get_weather" and call.function.arguments == ARGUMENTS
    loaded = [one for one in read(editors, "/api/ps", LoadedModels).models if one.name == FULL_NAME]
    assert [one.context_length > 0 for one in loaded] == [True]

    function = {"name": call.function.name, "arguments": call.function.arguments}
    called = {"role": "assistant", "content": "", "tool_calls": [{"id": call.id, "function": function}]}
    result = {"role": "tool", "content": SUNNY, "tool_call_id": call.id}
    lines = native_turn(editors, USER, called, result, tools=[TOOL])
    assert "".join(line.message.content for line in lines) == DONE


# Roo Code: axios for the models, Ollama's JavaScript client for the chats.


class RooDetails(Struct):
    family: str
    parameter_size: str
    families: list[str] | None = None


class RooListed(Struct):
    name: str
    model: str
    details: RooDetails


class RooList(Struct):
    models: list[RooListed]


class RooShown(Struct):
    details: RooDetails
    model_info: dict[str, Any]
    capabilities: list[str]


def test_roo_code_finds_models_with_tools_and_their_contexts(editors: Server) -> None:
    headers = {"accept": "application/json, text/plain, */*", "user-agent": "axios/1.12.0"}
    listed = read(editors, "/api/tags", RooList, headers).models
    with_tools = {}
    for one in listed:
        shown = read(editors, "/api/show", RooShown, headers, model=one.model)
        if "tools" in shown.capabilities:
            key = next(key for key in shown.model_info if "context_length" in key)
            with_tools[one.name] = shown.model_info[key]
    assert with_tools[FULL_NAME] == 8192


def test_roo_code_calls_tools_and_says_their_results_as_its_user(editors: Server) -> None:
    options = {"temperature": 0, "num_ctx": 4096}
    lines = native_turn(editors, SYSTEM, USER, options=options, tools=[TOOL])
    (call,) = [call for line in lines for call in line.message.tool_calls]
    assert call.function.arguments == ARGUMENTS

    function = {"name": call.function.name, "arguments": call.function.arguments}
    called = {"role": "assistant", "content": "", "tool_calls": [{"function": function}]}
    native_turn(
        editors, SYSTEM, USER, called, {"role": "user", "content": SUNNY}, options=options, tools=[TOOL]
    )


# JetBrains AI Assistant: what programs answer that stand in for Ollama, and for a server of OpenAI's API, before it.


def test_jetbrains_finds_ollama_and_chats(editors: Server) -> None:
    assert good(editors.client.get("/")) == b"Ollama is running"
    assert FULL_NAME in [model.name for model in read(editors, "/api/tags", ZedList).models]
    assert "completion" in read(editors, "/api/show", CopilotShown, model=FULL_NAME).capabilities
    lines = native_turn(editors, SYSTEM, USER, options={"temperature": 0.0, "top_p": 1.0})
    assert "".join(line.message.content for line in lines) == DONE


class ListedModel(Struct):
    id: str
    object: Literal["model"]
    created: int
    owned_by: str


class ListedModels(Struct):
    object: Literal["list"]
    data: list[ListedModel]


def test_jetbrains_speaks_openais_api_as_well(editors: Server) -> None:
    assert FULL_NAME in [model.id for model in read(editors, "/v1/models", ListedModels).data]
    walk(editors, {"authorization": "Bearer any"}, USER["content"], temperature=0.0)


# Xcode: a provider "locally hosted" is a port, behind which it looks for OpenAI's API.


@pytest.mark.parametrize("content", [USER["content"], [{"type": "text", "text": USER["content"]}]])
def test_xcode_lists_the_models_and_walks_the_loop(editors: Server, content: Any) -> None:
    headers = {"user-agent": "Xcode/24141.23 CFNetwork/3852.100.1 Darwin/25.0.0", "accept": "*/*"}
    assert FULL_NAME in [model.id for model in read(editors, "/v1/models", ListedModels, headers).data]
    walk(editors, headers, content)


# Goose, which is started in `tests/integrations`, has a window too; both ask in the same way.


def test_goose_walks_the_loop(editors: Server) -> None:
    """Its own settings for the context and the longest reply are options of Ollama's API, in OpenAI's."""
    assert FULL_NAME in [model.model for model in read(editors, "/api/tags", CopilotModels).models]
    headers = {"agent-session-id": "20261126_1", "accept-encoding": "zstd,gzip,deflate,br"}
    editors.client.post("/api/generate", json={"model": FULL_NAME, "keep_alive": 0}).raise_for_status()
    limits = {"num_ctx": 2048, "num_predict": 100}
    walk(editors, headers, USER["content"], stream_options={"include_usage": True}, options=limits)
    loaded = read(editors, "/api/ps", LoadedModels).models
    assert [one.context_length for one in loaded if one.name == FULL_NAME] == [2048]

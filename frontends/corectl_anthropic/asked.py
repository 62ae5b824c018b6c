"""From a request to the work for a runner: which model, which options, what it may call, and whether it is to think."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, TypeVar

import msgspec

from corectl.errors import BadRequest
from corectl.messages import Completion, Grammar, Message, Notice, Think, Tool, ToolChoice
from corectl.model.record import ModelRecord
from corectl.server.fields import keep_alive_seconds
from corectl.server.inference import Settled, chat_needs, chat_prompt, completion, settle
from corectl.server.services import Services
from corectl_anthropic.conversation import Told, conversation
from corectl_anthropic.schema import (
    EFFORTS,
    MODES,
    CountRequest,
    MessagesRequest,
    OutputConfig,
    WireThinking,
    WireTool,
    WireToolChoice,
)

B = TypeVar("B", bound=CountRequest)


class Asked(msgspec.Struct, frozen=True, kw_only=True):
    """What a request comes to. `notices` are what is to be said of it."""

    settled: Settled
    work: Completion
    notices: tuple[Notice, ...] = ()


def check(body: CountRequest) -> None:
    """Checks in the contract's order what needs no model. Raises `BadRequest`."""
    if not body.model:
        raise BadRequest("model is required")
    if isinstance(body, MessagesRequest) and body.max_tokens <= 0:
        raise BadRequest("max_tokens is required and must be positive")
    if not body.messages:
        raise BadRequest("messages is required")
    if body.mcp_servers:
        raise BadRequest("mcp_servers: this server calls no others; the client has to")
    if body.container is not None:
        raise BadRequest("container: there are none here")


def told(body: B) -> tuple[B, Told]:
    """A request, and what it tells: all that is read without its model. Raises `BadRequest`."""
    check(body)
    return body, conversation(body)


def read(
    services: Services,
    record: ModelRecord,
    body: CountRequest,
    messages: Sequence[Message],
    *,
    count: bool = False,
) -> Asked:
    """The work that a request asks for; with `count` only its prompt, whole. Raises `BadRequest` that names the field.

    `messages` are those that it tells. For worker threads: it reads files.
    """
    tools = read_tools(body.tools)
    think, budget, notices = _thinking(body, services.capabilities(record), record.name.short)
    settled = settle(
        services,
        record,
        name=body.model,
        options=_options(body),
        keep_alive=_keep_alive(body),
        think=think,
        think_budget=budget,
        verb="chat",
        needs=chat_needs(messages, tools=bool(tools)),
    )
    fields = {
        "grammar": _grammar(body),
        "tool_choice": read_tool_choice(body.tool_choice, tools),
        "think_budget": -1 if budget is None else budget,
        "render_only": count,
    }
    prompt = chat_prompt(services, settled, messages, tools)
    work = completion(services, settled, prompt, truncate=not count, fields=fields)
    return Asked(settled=settled, work=work, notices=notices)


def _keep_alive(body: CountRequest) -> float | None:
    try:
        return keep_alive_seconds(body.keep_alive)
    except BadRequest as exc:
        raise BadRequest(f"keep_alive: {exc.message}") from exc


def _options(body: CountRequest) -> dict[str, Any]:
    """What the request sets of a model's options."""
    options: dict[str, Any] = {"num_ctx": body.num_ctx}
    if isinstance(body, MessagesRequest):
        options |= {
            "num_predict": body.max_tokens,
            "temperature": body.temperature,
            "top_p": body.top_p,
            "top_k": body.top_k,
            # Without any, the model's own hold.
            "stop": body.stop_sequences or None,
        }
    return options


def _thinking(body: CountRequest, can: list[str], name: str) -> tuple[Think, int | None, tuple[Notice, ...]]:
    """Whether the model is to think, and at most how many tokens. Clients ask for it whatever the model can do.

    What it `can` is empty where another server does not say.
    """
    wanted, effort = body.thinking or WireThinking(""), _effort(body.output_config)
    if wanted.type == "disabled":
        return False, None, ()
    if wanted.type == "enabled" and ("thinking" in can or not can):
        return True, wanted.budget_tokens, ()
    if wanted.type == "enabled":
        message = f"thinking is left out: {name} cannot think"
        return None, None, (Notice(code="thinking_not_supported", message=message),)
    return effort if "thinking" in can else None, None, ()


def _effort(config: OutputConfig | None) -> Think:
    if config is None or config.effort is None:
        return None
    if config.effort not in EFFORTS:
        raise BadRequest(f"output_config.effort: {config.effort[:64]!r} must be one of {', '.join(EFFORTS)}")
    return EFFORTS[config.effort]


def _grammar(body: CountRequest) -> Grammar | None:
    """What the content must match."""
    where, wanted = "output_format", body.output_format
    if body.output_config is not None and body.output_config.format is not None:
        where, wanted = "output_config.format", body.output_config.format
    if wanted is None:
        return None
    if wanted.type != "json_schema" or wanted.schema is None:
        raise BadRequest(f"{where} must be of type json_schema, with a schema")
    return Grammar(kind="schema", text=msgspec.json.encode(wanted.schema).decode())


def read_tools(tools: list[WireTool]) -> tuple[Tool, ...]:
    """The tools as templates know them. Raises `BadRequest` that names the field."""
    return tuple(_tool(f"tools[{number}]", tool) for number, tool in enumerate(tools))


def _tool(where: str, tool: WireTool) -> Tool:
    if tool.type not in (None, "custom"):
        raise BadRequest(
            f"{where}.type: {tool.type[:64]!r} is a tool that Anthropic's own servers know; this one takes tools of "
            "type 'custom', which have an input_schema"
        )
    if not tool.name:
        raise BadRequest(f"{where}.name: a tool needs one")
    if tool.input_schema is None:
        raise BadRequest(f"{where}.input_schema: a tool needs one")
    described = {"description": tool.description} if tool.description else {}
    return {
        "type": "function",
        "function": {"name": tool.name, **described, "parameters": tool.input_schema},
    }


def read_tool_choice(choice: WireToolChoice | None, tools: tuple[Tool, ...]) -> ToolChoice:
    """Which tools may, or must, be called. Raises `BadRequest` that names the field."""
    if choice is None:
        return ToolChoice()
    mode = MODES.get(choice.type)
    if mode is None:
        raise BadRequest(f"tool_choice.type: {choice.type[:64]!r} must be one of {', '.join(MODES)}")
    if mode == "required" and not tools:
        raise BadRequest("tool_choice: there are no tools to choose from")
    name = (choice.name or "") if choice.type == "tool" else ""
    if choice.type == "tool" and name not in {tool["function"]["name"] for tool in tools}:
        raise BadRequest(f"tool_choice.name: there is no tool named {name[:64]!r}")
    return ToolChoice(mode=mode, name=name, parallel=not choice.disable_parallel_tool_use)

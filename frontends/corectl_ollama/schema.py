"""The requests of the native API as they come over the wire. Unknown keys are left alone."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from corectl.config import FOREVER
from corectl.duration import parse_duration
from corectl.errors import BadRequest
from corectl.messages import Grammar, Message, Think, ToolChoice

MAX_TOP_LOGPROBS = 20
MAX_SECONDS = 1e12
MAX_SALT = 256
GRAMMARS = ("regex", "lark", "gbnf")

Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]
_TYPE_NAMES = {bool: "bool", list: "[]interface {}", dict: "map[string]interface {}"}


class WireMessage(msgspec.Struct, kw_only=True):
    """One message. Roles come in any case; null counts as not given."""

    role: str | None = None
    content: str | None = None
    thinking: str | None = None
    images: list[str] | None = None
    tool_calls: list[dict[str, Any]] | None = None
    tool_name: str | None = None
    tool_call_id: str | None = None

    def message(self) -> Message:
        """Raises `BadRequest` for a tool call that has no name or whose arguments are no object."""
        for call in self.tool_calls or ():
            function = call.get("function")
            if not isinstance(function, dict) or not isinstance(function.get("name"), str):
                raise BadRequest("messages.tool_calls: each needs a function with a name")
            if not isinstance(function.get("arguments") or {}, dict):
                raise BadRequest("messages.tool_calls.function.arguments must be an object")
        return Message(
            role=(self.role or "").lower(),
            content=self.content or "",
            thinking=self.thinking or "",
            images=tuple(self.images or ()),
            tool_calls=tuple(self.tool_calls or ()),
            tool_name=self.tool_name or "",
            tool_call_id=self.tool_call_id or "",
        )


class InferenceRequest(msgspec.Struct, kw_only=True):
    """What generate and chat have in common. `grammar`, `think_budget` and `cache_salt` are additions of ours."""

    model: str = ""
    stream: bool = True
    keep_alive: Any = None
    options: dict[str, Any] = {}
    format: Any = None
    grammar: dict[str, str] = {}
    think: Any = None
    think_budget: Annotated[int, msgspec.Meta(ge=0, le=2**31 - 1)] | None = None
    truncate: bool = True
    shift: bool = True
    logprobs: bool = False
    top_logprobs: int = 0
    cache_salt: Annotated[str, msgspec.Meta(max_length=MAX_SALT)] = ""
    debug_render_only: bool = msgspec.field(default=False, name="_debug_render_only")


class GenerateRequest(InferenceRequest, kw_only=True):
    prompt: str = ""
    suffix: str = ""
    system: str = ""
    template: str = ""
    context: list[Int32] = []
    raw: bool = False
    images: list[str] = []


class ChatRequest(InferenceRequest, kw_only=True):
    """`tool_choice` is an addition of ours, in the form that other protocols have it."""

    messages: list[WireMessage] = []
    tools: list[dict[str, Any]] = []
    tool_choice: Any = None


class QuestionRequest(msgspec.Struct, kw_only=True):
    """What requests with a single answer have in common."""

    model: str = ""
    keep_alive: Any = None
    options: dict[str, Any] = {}


class EmbedRequest(QuestionRequest, kw_only=True):
    input: Any = None
    truncate: bool = True
    dimensions: Int32 = 0


class EmbeddingsRequest(QuestionRequest, kw_only=True):
    prompt: str = ""


class Document(msgspec.Struct, kw_only=True):
    """A document as other servers let clients send it."""

    text: str


class RerankRequest(QuestionRequest, kw_only=True):
    query: str = ""
    documents: list[str | Document] = []
    top_n: Annotated[int, msgspec.Meta(ge=1)] | None = None
    return_documents: bool = False
    truncate: bool = True


class TokenizeRequest(QuestionRequest, kw_only=True):
    text: str | None = None
    add_special: bool = False


class DetokenizeRequest(QuestionRequest, kw_only=True):
    tokens: list[Int32] | None = None


class ShowRequest(msgspec.Struct, kw_only=True):
    model: str = ""
    name: str = ""
    system: str = ""
    verbose: bool = False
    options: dict[str, Any] = {}


class PlanRequest(msgspec.Struct, kw_only=True):
    model: str = ""
    name: str = ""
    options: dict[str, Any] = {}


class CopyRequest(msgspec.Struct, kw_only=True):
    source: str = ""
    destination: str = ""


class DeleteRequest(msgspec.Struct, kw_only=True):
    model: str = ""
    name: str = ""


class TransferRequest(msgspec.Struct, kw_only=True):
    """A pull or a push."""

    model: str = ""
    name: str = ""
    insecure: bool = False
    stream: bool = True


class VerifyRequest(msgspec.Struct, kw_only=True):
    """Our addition. Without `models` the whole store is meant."""

    models: list[str] = []
    stream: bool = True


class CreateRequest(msgspec.Struct, kw_only=True):
    model: str = ""
    name: str = ""
    stream: bool = True
    from_: str = msgspec.field(default="", name="from")
    files: dict[str, str] | None = None
    adapters: dict[str, str] | None = None
    in_place: bool = False
    template: str = ""
    system: str = ""
    license: Any = None
    parameters: dict[str, Any] = {}
    messages: list[WireMessage] = []
    draft_files: dict[str, str] | None = None
    draft_quantize: str = ""
    quantize: str = ""
    quantization: str = ""
    renderer: str = ""
    parser: str = ""
    requires: str = ""
    info: dict[str, Any] = {}
    remote_host: str = ""


def keep_alive_seconds(value: Any) -> float | None:
    """A `keep_alive` in seconds (infinity: for ever), None where it is not given. Raises `BadRequest`."""
    if value is None:
        return None
    if isinstance(value, str):
        try:
            seconds = parse_duration(value)
        except ValueError as exc:
            raise BadRequest(str(exc)) from exc
    elif isinstance(value, int | float) and not isinstance(value, bool):
        # Python's whole numbers have no limit, but a float has.
        seconds = float(value) if abs(value) < MAX_SECONDS else MAX_SECONDS * (1 if value > 0 else -1)
    else:
        raise BadRequest(f"Unsupported type: '{_TYPE_NAMES.get(type(value), type(value).__name__)}'")
    return FOREVER if seconds < 0 else seconds


def read_think(value: Any) -> Think:
    """What the request says of thinking. Raises `BadRequest` for a value that is none."""
    choices = '"high", "medium", "low", "max", true, or false'
    if value is None or isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise BadRequest(f"think must be a boolean or string ({choices})")
    if value not in ("high", "medium", "low", "max"):
        raise BadRequest(f'invalid think value: "{value[:64]}" (must be {choices})')
    return value


def read_grammar(format: Any, grammar: dict[str, str]) -> Grammar | None:
    """What the content must match. Raises `BadRequest` that names the field."""
    if grammar:
        if format not in (None, ""):
            raise BadRequest("format and grammar cannot be used together; leave one out")
        kind, text = next(iter(grammar.items()))
        if len(grammar) > 1 or kind not in GRAMMARS:
            raise BadRequest(f"grammar must have exactly one of {', '.join(GRAMMARS)}")
        return Grammar(kind=kind, text=text)
    if format in (None, ""):
        return None
    if format == "json":
        return Grammar(kind="json")
    raw = msgspec.json.encode(format).decode()
    if not isinstance(format, dict):
        quoted = msgspec.json.encode(raw[:256]).decode()
        raise BadRequest(f'invalid format: {quoted}; expected "json" or a valid JSON Schema object')
    return Grammar(kind="schema", text=raw)


def read_tool_choice(value: Any, tools: list[dict[str, Any]]) -> ToolChoice:
    """Which tools may, or must, be called. Raises `BadRequest` that names the field."""
    if value is None:
        return ToolChoice()
    if isinstance(value, dict):
        function = value.get("function")
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(name, str):
            raise BadRequest("tool_choice: an object needs a function with a name")
        choice = ToolChoice(mode="required", name=name)
    elif value in ("auto", "none", "required"):
        choice = ToolChoice(mode=value)
    else:
        raise BadRequest('tool_choice must be "auto", "none", "required", or an object that names a function')
    if choice.mode == "required" and not tools:
        raise BadRequest("tool_choice: there are no tools to choose from")
    return choice


def read_tools(tools: list[dict[str, Any]]) -> tuple[dict[str, Any], ...]:
    """The tools as the client defines them. Raises `BadRequest` for one that has no name."""
    for index, tool in enumerate(tools):
        function = tool.get("function")
        if (
            not isinstance(function, dict)
            or not isinstance(function.get("name"), str)
            or not function["name"]
        ):
            raise BadRequest(f"tools[{index}]: needs a function with a name")
        if not isinstance(function.get("parameters") or {}, dict):
            raise BadRequest(f"tools[{index}].function.parameters must be an object")
    return tuple(tools)


def check_top_logprobs(count: int) -> None:
    if not 0 <= count <= MAX_TOP_LOGPROBS:
        raise BadRequest(f"top_logprobs must be between 0 and {MAX_TOP_LOGPROBS}")

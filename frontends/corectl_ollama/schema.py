"""The requests of the native API as they come over the wire. Unknown keys are left alone."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from corectl.errors import BadRequest
from corectl.messages import Grammar, LoadOptions, Message, SamplingOptions, Think
from corectl.server.fields import NEEDED, NOT_EMPTY, KeepAlive
from corectl.server.ranking import Document

MAX_SALT = 256
GRAMMARS = ("regex", "lark", "gbnf")

LEVELS = ("high", "medium", "low", "max")


def _one_of(*schemas: dict[str, Any]) -> Any:
    """What a field may be whose value is read later, because its errors have a wording of their own."""
    return msgspec.Meta(extra_json_schema={"anyOf": [*schemas, {"type": "null"}]})


def _members(*kinds: type[msgspec.Struct]) -> dict[str, Any]:
    """What an object may have that is read later as these structs."""
    described = [msgspec.json.schema(kind)["$defs"][kind.__name__]["properties"] for kind in kinds]
    return {name: schema for members in described for name, schema in members.items()}


_TEXT, _OBJECT = {"type": "string"}, {"type": "object"}

Texts = Annotated[Any, _one_of(_TEXT, {"type": "array", "items": _TEXT})]
Format = Annotated[Any, _one_of({"enum": ["", "json"]}, _OBJECT)]
WireThink = Annotated[Any, _one_of({"type": "boolean"}, {"enum": [*LEVELS]})]
ToolChoice = Annotated[Any, _one_of({"enum": ["auto", "none", "required"]}, _OBJECT)]
Options = Annotated[
    dict[str, Any], msgspec.Meta(extra_json_schema={"properties": _members(LoadOptions, SamplingOptions)})
]
Int32 = Annotated[int, msgspec.Meta(ge=-(2**31), le=2**31 - 1)]


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

    model: Annotated[str, NEEDED] = ""
    stream: bool = True
    keep_alive: KeepAlive = None
    options: Options = {}
    format: Format = None
    grammar: dict[str, str] = {}
    think: WireThink = None
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
    tool_choice: ToolChoice = None


class QuestionRequest(msgspec.Struct, kw_only=True):
    """What requests with a single answer have in common."""

    model: Annotated[str, NEEDED] = ""
    keep_alive: KeepAlive = None
    options: Options = {}


class EmbedRequest(QuestionRequest, kw_only=True):
    input: Texts = None
    truncate: bool = True
    dimensions: Int32 = 0


class EmbeddingsRequest(QuestionRequest, kw_only=True):
    prompt: str = ""


class RerankRequest(QuestionRequest, kw_only=True):
    query: Annotated[str, NEEDED] = ""
    documents: Annotated[list[str | Document], NEEDED, NOT_EMPTY] = []
    top_n: Annotated[int, msgspec.Meta(ge=1)] | None = None
    return_documents: bool = False
    truncate: bool = True


class TokenizeRequest(QuestionRequest, kw_only=True):
    text: Annotated[str | None, NEEDED] = None
    add_special: bool = False


class DetokenizeRequest(QuestionRequest, kw_only=True):
    tokens: Annotated[list[Int32] | None, NEEDED] = None


class ShowRequest(msgspec.Struct, kw_only=True):
    model: str = ""
    name: str = ""
    system: str = ""
    verbose: bool = False
    options: Options = {}


class PlanRequest(msgspec.Struct, kw_only=True):
    model: str = ""
    name: str = ""
    options: Options = {}


class CopyRequest(msgspec.Struct, kw_only=True):
    source: Annotated[str, NEEDED] = ""
    destination: Annotated[str, NEEDED] = ""


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
    license: Texts = None
    parameters: Options = {}
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


def read_think(value: Any) -> Think:
    """What the request says of thinking. Raises `BadRequest` for a value that is none."""
    choices = '"high", "medium", "low", "max", true, or false'
    if value is None or isinstance(value, bool):
        return value
    if not isinstance(value, str):
        raise BadRequest(f"think must be a boolean or string ({choices})")
    if value not in LEVELS:
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

"""The requests of the Messages API as they come over the wire. Unknown fields are left alone, `cache_control` too."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec

from corectl.messages import Think
from corectl.server.fields import NEEDED, NOT_EMPTY, KeepAlive, among

MAX_TOKENS = 2**31 - 1
MAX_STOPS = 256

ROLES = ("user", "assistant", "system")
EFFORTS: dict[str, Think] = {"low": "low", "medium": "medium", "high": "high", "xhigh": "high", "max": "max"}
MODES = {"auto": "auto", "any": "required", "tool": "required", "none": "none"}
"""Levels of thinking, and ways to choose a tool, with the core's words for them."""


Count = Annotated[int, msgspec.Meta(ge=0, le=MAX_TOKENS)]
_POSITIVE = msgspec.Meta(extra_json_schema={"minimum": 1})


class Block(msgspec.Struct, tag_field="type"):
    """A part of a message's content; its `type` says which."""


class Text(Block, tag="text"):
    text: str


class Source(msgspec.Struct):
    """Where an image is. Those of type `base64` have their `data` in the request, and of type `url` an address."""

    type: Annotated[str, among("base64", "url")]
    data: str | None = None
    url: str | None = None


class Image(Block, tag="image"):
    source: Source


class DocumentSource(msgspec.Struct):
    """The text of a document: `data` of type `text`, or `content`. Of other types none can be read."""

    type: Annotated[str, among("text", "content")]
    data: str | None = None
    content: str | list[Text | Image] | None = None


class Document(Block, tag="document"):
    source: DocumentSource
    title: str | None = None
    context: str | None = None


class SearchResult(Block, tag="search_result"):
    """What the client has found; `source` says where."""

    source: str
    title: str
    content: list[Text]


class ToolReference(Block, tag="tool_reference"):
    """A tool that a search for tools has found."""

    tool_name: str


Readable = Text | Image | Document | SearchResult | ToolReference


class Thinking(Block, tag="thinking"):
    """A thought of an earlier turn. Its signature is not looked at: any server may have made it."""

    thinking: str


class RedactedThinking(Block, tag="redacted_thinking"):
    """A thought that only the server that made it can read."""


class ToolUse(Block, tag="tool_use"):
    id: str
    name: str
    input: dict[str, Any] = {}


class ServerToolUse(ToolUse, tag="server_tool_use"):
    """A call that another server has answered itself."""


class ToolResult(Block, tag="tool_result"):
    tool_use_id: str
    content: str | list[Readable] | None = None
    is_error: bool | None = None


class WebSearchResult(Block, tag="web_search_tool_result"):
    """What another server has found."""

    tool_use_id: str
    content: Any = None


Blocks = list[
    Text
    | Image
    | Document
    | SearchResult
    | Thinking
    | RedactedThinking
    | ToolUse
    | ServerToolUse
    | ToolResult
    | WebSearchResult
]


class WireMessage(msgspec.Struct):
    role: Annotated[str, among(*ROLES)]
    content: str | Blocks


class WireTool(msgspec.Struct):
    """A tool of the client's. Those of other types than `custom` have no schema: their server knows it."""

    name: str = ""
    type: str | None = None
    description: str | None = None
    input_schema: dict[str, Any] | None = None
    eager_input_streaming: bool | None = None


class WireToolChoice(msgspec.Struct):
    type: Annotated[str, among(*MODES)]
    name: str | None = None
    disable_parallel_tool_use: bool | None = None


class WireThinking(msgspec.Struct):
    type: Annotated[str, among("enabled", "disabled", "adaptive")]
    budget_tokens: Count | None = None


class WireFormat(msgspec.Struct):
    type: Annotated[str, among("json_schema")]
    schema: dict[str, Any] | None = None


class OutputConfig(msgspec.Struct):
    effort: Annotated[str | None, among(*EFFORTS)] = None
    format: WireFormat | None = None


class CountRequest(msgspec.Struct, kw_only=True):
    """What is counted, and what both requests have in common. `num_ctx` and `keep_alive` are additions of ours.

    `output_format` is what `output_config.format` was called before. The last two are refused, not passed over.
    """

    model: Annotated[str, NEEDED] = ""
    messages: Annotated[list[WireMessage], NEEDED, NOT_EMPTY] = []
    system: str | list[Text] = ""
    tools: list[WireTool] = []
    tool_choice: WireToolChoice | None = None
    thinking: WireThinking | None = None
    output_config: OutputConfig | None = None
    output_format: WireFormat | None = None
    num_ctx: Count | None = None
    keep_alive: KeepAlive = None
    mcp_servers: Annotated[list[Any], msgspec.Meta(extra_json_schema={"maxItems": 0})] = []
    container: Annotated[Any, msgspec.Meta(extra_json_schema={"type": "null"})] = None


class MessagesRequest(CountRequest, kw_only=True):
    max_tokens: Annotated[int, msgspec.Meta(le=MAX_TOKENS), NEEDED, _POSITIVE] = 0
    stream: bool = False
    temperature: float | None = None
    top_p: float | None = None
    top_k: int | None = None
    stop_sequences: Annotated[list[str], msgspec.Meta(max_length=MAX_STOPS)] = []

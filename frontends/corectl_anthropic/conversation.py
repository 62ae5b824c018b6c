"""From the messages of a request to a conversation as templates know it: results of tools are turns of their own."""

from __future__ import annotations

import binascii
from collections.abc import Sequence
from typing import Any

import msgspec

from corectl.errors import BadRequest
from corectl.messages import Message
from corectl.prompt.images import with_places
from corectl_anthropic.schema import (
    ROLES,
    CountRequest,
    Document,
    Image,
    Readable,
    RedactedThinking,
    SearchResult,
    ServerToolUse,
    Source,
    Text,
    Thinking,
    ToolReference,
    ToolResult,
    ToolUse,
    WebSearchResult,
    WireMessage,
)

_BREAK = "\n\n"

_Parts = list[Text | str]
"""What can be read and seen: texts are blocks, and images their base64 texts, or their addresses."""


class Told(msgspec.Struct, frozen=True):
    """What a request tells. `urls` are of images that it only names, by their blocks; they stand for the images."""

    messages: list[Message]
    urls: dict[str, str]


def conversation(body: CountRequest) -> Told:
    """The system text and all turns; neighbours of one role are one turn. Raises `BadRequest` that names the block."""
    told = [Text(body.system)] if isinstance(body.system, str) else body.system
    conversation = _Conversation([text for text in told if text.text])
    for number, message in enumerate(body.messages):
        conversation.add(f"messages[{number}]", message)
    return Told([turn.message() for turn in conversation.turns], conversation.urls)


class _Turn(msgspec.Struct, kw_only=True):
    """A turn while it is gathered. One that `failed` is the result of a tool that did."""

    role: str
    parts: _Parts = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    call_id: str = ""
    tool_name: str = ""
    failed: bool = False

    def message(self) -> Message:
        # What the model has said was one text, whatever it was cut into.
        text, images = _placed(self.parts, "" if self.role == "assistant" else _BREAK)
        if self.failed:
            text = f"Error: {text}" if text else "Error"
        return Message(
            role=self.role,
            content=text,
            thinking=_BREAK.join(self.thoughts),
            images=images,
            tool_calls=tuple(self.calls),
            tool_call_id=self.call_id,
            tool_name=self.tool_name,
        )


class _Conversation:
    """All turns so far, the images that are only named, and the names of tools by the ids of their calls."""

    def __init__(self, system: list[Text]) -> None:
        self.turns = [_Turn(role="system", parts=[*system])] if system else []
        self.urls: dict[str, str] = {}
        self._names: dict[str, str] = {}

    def add(self, where: str, message: WireMessage) -> None:
        role, content = message.role, message.content
        if role not in ROLES:
            raise BadRequest(f"{where}.role: {role[:64]!r} must be one of {', '.join(ROLES)}")
        blocks = [Text(content)] if isinstance(content, str) else content
        if not blocks or (role == "assistant" and self.turns and self.turns[-1].role == role):
            self._turn(role).parts.append(Text(_BREAK if blocks else ""))
        for number, block in enumerate(blocks):
            self._add(f"{where}.content[{number}]", role, block)

    def _turn(self, role: str) -> _Turn:
        """The turn of a role that goes on, or a new one."""
        if not self.turns or self.turns[-1].role != role:
            self.turns.append(_Turn(role=role))
        return self.turns[-1]

    def _add(self, where: str, role: str, block: Any) -> None:
        match block:
            case Text() | Image() | Document() | SearchResult():
                self._turn(role).parts += self._read(where, block)
            case RedactedThinking():
                # The turn is there, though nothing can be read of it.
                self._turn(role)
            case Thinking():
                self._turn(role).thoughts.append(block.thinking)
            case ToolUse() | ServerToolUse():
                self._turn(role).calls.append(self._call(where, block))
            case ToolResult():
                parts = self._read_all(f"{where}.content", block.content or "")
                self._result(block.tool_use_id, parts, failed=bool(block.is_error))
            case WebSearchResult():
                self._result(block.tool_use_id, [Text(msgspec.json.encode(block.content).decode())])

    def _call(self, where: str, block: ToolUse) -> dict[str, Any]:
        for field in ("id", "name"):
            if not getattr(block, field):
                raise BadRequest(f"{where}.{field}: a tool call needs one")
        self._names[block.id] = block.name
        return {
            "id": block.id,
            "type": "function",
            "function": {"name": block.name, "arguments": block.input},
        }

    def _result(self, id: str, parts: _Parts, *, failed: bool = False) -> None:
        name = self._names.get(id, "")
        self.turns.append(_Turn(role="tool", parts=parts, call_id=id, tool_name=name, failed=failed))

    def _read_all(self, where: str, content: str | Sequence[Readable]) -> _Parts:
        if isinstance(content, str):
            return [Text(content)]
        return [
            part for number, block in enumerate(content) for part in self._read(f"{where}[{number}]", block)
        ]

    def _read(self, where: str, block: Readable) -> _Parts:
        match block:
            case Image():
                return [self._image(f"{where}.source", block.source)]
            case Document():
                return self._document(f"{where}.source", block)
            case SearchResult():
                return [Text(f"{block.title}\n{block.source}"), *block.content]
            case ToolReference():
                return [Text(block.tool_name)]
            case Text():
                return [block]

    def _document(self, where: str, block: Document) -> _Parts:
        """The text of a document, behind its title and what is said of it."""
        source = block.source
        if source.type not in ("text", "content"):
            raise BadRequest(
                f"{where}: only text documents can be read (of type text or content), not {source.type[:64]!r}"
            )
        field = "data" if source.type == "text" else "content"
        content = source.data if source.type == "text" else source.content
        if content is None:
            raise BadRequest(f"{where}.{field}: a document of type {source.type} needs some")
        about = [Text(text) for text in (block.title, block.context) if text]
        return [*about, *self._read_all(f"{where}.{field}", content)]

    def _image(self, where: str, source: Source) -> str:
        """The base64 text of an image, or its address."""
        if source.type == "url":
            if source.url is None:
                raise BadRequest(f"{where}.url: an image of type url needs one")
            self.urls[f"{where}.url"] = source.url
            return source.url
        if source.type != "base64":
            kind = source.type[:64]
            raise BadRequest(
                f"{where}: invalid image source type: {kind}. Only base64 and url are supported."
            )
        if source.data is None:
            raise BadRequest(f"{where}.data: an image of type base64 needs some")
        try:
            binascii.a2b_base64(source.data, strict_mode=True)
        except ValueError as exc:
            raise BadRequest(f"{where}.data: invalid base64 image data: {exc}") from exc
        return source.data


def _placed(parts: _Parts, separator: str) -> tuple[str, tuple[str, ...]]:
    """Texts and images as one text, and the images."""
    images = tuple(part for part in parts if isinstance(part, str))
    return with_places([part.text if isinstance(part, Text) else None for part in parts], separator), images

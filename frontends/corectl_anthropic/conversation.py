"""From the messages of a request to a conversation as templates know it: results of tools are turns of their own."""

from __future__ import annotations

import binascii
from typing import Any

import msgspec

from corectl.errors import BadRequest
from corectl.messages import Message
from corectl.prompt.images import with_places
from corectl_anthropic.schema import (
    ROLES,
    CountRequest,
    Image,
    RedactedThinking,
    SearchResult,
    ServerToolUse,
    Source,
    Text,
    Thinking,
    ToolResult,
    ToolUse,
    WireMessage,
)

_BREAK = "\n\n"


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
    """A turn while it is gathered. Of its `parts`, texts are blocks and images their base64 texts."""

    role: str
    parts: list[Text | str] = []
    thoughts: list[str] = []
    calls: list[dict[str, Any]] = []
    call_id: str = ""
    tool_name: str = ""

    def message(self) -> Message:
        # What the model has said was one text, whatever it was cut into.
        text, images = _placed(self.parts, "" if self.role == "assistant" else _BREAK)
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
            case Text():
                self._turn(role).parts.append(block)
            case Image():
                self._turn(role).parts.append(self._image(f"{where}.source", block.source))
            case RedactedThinking():
                # The turn is there, though nothing can be read of it.
                self._turn(role)
            case Thinking():
                self._turn(role).thoughts.append(block.thinking)
            case ToolUse() | ServerToolUse():
                self._turn(role).calls.append(self._call(where, block))
            case ToolResult():
                self._result(where, block.tool_use_id, block.content or "")
            case SearchResult():
                self._result(where, block.tool_use_id, msgspec.json.encode(block.content).decode())

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

    def _result(self, where: str, id: str, content: str | list[Text | Image]) -> None:
        blocks: list[Text | Image] = [Text(content)] if isinstance(content, str) else content
        parts = [
            block
            if isinstance(block, Text)
            else self._image(f"{where}.content[{number}].source", block.source)
            for number, block in enumerate(blocks)
        ]
        self.turns.append(_Turn(role="tool", parts=parts, call_id=id, tool_name=self._names.get(id, "")))

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


def _placed(parts: list[Text | str], separator: str) -> tuple[str, tuple[str, ...]]:
    """Texts and images as one text, and the images."""
    images = tuple(part for part in parts if isinstance(part, str))
    return with_places([part.text if isinstance(part, Text) else None for part in parts], separator), images

"""From the messages of a chat as this protocol has them to those of the core."""

from __future__ import annotations

import re
from typing import Any

import msgspec

from corectl.messages import Message
from corectl.prompt.images import with_places
from corectl.server.fetching import is_web_address
from corectl.server.nesting import too_deep
from corectl_openai.errors import WrongField

ROLES = {"developer": "system", "function": "tool"}
"""What templates know some roles by."""

_DATA_URL = re.compile(r"data:(?:image/(?:jpeg|jpg|png|webp|gif))?;base64,")
_BASE64 = re.compile(r"[A-Za-z0-9+/\s]+={0,2}\s*")
UNREAD = "INVALID_JSON"
"""Under what the arguments of a past call stand if they are no JSON object, as other servers do it."""

_GO_TYPES = {
    type(None): "<nil>",
    bool: "bool",
    int: "float64",
    float: "float64",
    dict: "map[string]interface {}",
}


def read_messages(messages: list[dict[str, Any]]) -> list[Message]:
    """The messages, in their order. Raises `WrongField` that names the message and its part."""
    if not messages:
        raise WrongField("messages", "[] is too short - 'messages'", "empty_array")
    tools: dict[str, str] = {}
    return [_message(message, f"messages[{index}]", tools) for index, message in enumerate(messages)]


def _message(wire: dict[str, Any], where: str, tools: dict[str, str]) -> Message:
    """`tools` are the names of the tools that were called so far, by the ids of the calls."""
    role = _text(wire, "role", where).lower()
    if not role:
        raise WrongField(f"{where}.role", f"{where}.role is required", "missing_required_parameter")
    calls = _tool_calls(wire.get("tool_calls"), f"{where}.tool_calls", tools)
    content = wire.get("content")
    if content is None and wire.get("refusal") is not None:
        content = _text(wire, "refusal", where)
    text, images = read_content(content, f"{where}.content", optional=bool(calls))
    call_id, name = _text(wire, "tool_call_id", where), _text(wire, "name", where)
    answers = role in ("tool", "function")
    return Message(
        role=ROLES.get(role, role),
        content=text,
        images=images,
        thinking=_text(wire, "reasoning", where) or _text(wire, "reasoning_content", where),
        tool_calls=calls,
        tool_call_id=call_id,
        tool_name=(name or tools.get(call_id, "")) if answers else "",
    )


def _text(wire: dict[str, Any], key: str, where: str) -> str:
    value = wire.get(key)
    if value is None:
        return ""
    if not isinstance(value, str):
        raise WrongField(f"{where}.{key}", f"{where}.{key} must be a string", "invalid_type")
    return value


def read_content(content: Any, where: str, *, optional: bool = False) -> tuple[str, tuple[str, ...]]:
    """The text and the images (base64, or addresses on the web).

    Parts of text are lines of one message, in which images have their places.
    """
    if isinstance(content, str):
        return content, ()
    if isinstance(content, list):
        texts: list[str | None] = []
        images: list[str] = []
        for index, part in enumerate(content):
            _part(part, f"{where}[{index}]", texts, images)
        return with_places(texts, "\n"), tuple(images)
    if content is None and optional:
        return "", ()
    kind = _GO_TYPES.get(type(content), type(content).__name__)
    raise WrongField(where, f"invalid message content type: {kind}", "invalid_type")


def _part(part: Any, where: str, texts: list[str | None], images: list[str]) -> None:
    kind = part.get("type") if isinstance(part, dict) else None
    if kind in ("text", "input_text", "output_text", "summary_text", "reasoning_text", "refusal"):
        key = "refusal" if kind == "refusal" else "text"
        text = part.get(key)
        if not isinstance(text, str):
            raise WrongField(f"{where}.{key}", "invalid message format", "invalid_type")
        texts.append(text)
    elif kind in ("image_url", "input_image"):
        images.append(_image(address_of(part), f"{where}.image_url"))
        texts.append(None)
    elif kind in ("input_audio", "file", "input_file", "video_url"):
        raise WrongField(f"{where}.type", f"{where}: parts of type {kind} are not supported")
    else:
        raise WrongField(f"{where}.type", "invalid message format")


def address_of(part: dict[str, Any]) -> Any:
    """The URL of a part that is an image, as the client has written it."""
    value = part.get("image_url")
    return value.get("url") if isinstance(value, dict) else value


def _image(url: Any, where: str) -> str:
    """The image in base64, or its address on the web; see `corectl_openai.images`."""
    if not isinstance(url, str):
        raise WrongField(where, "invalid image input", "invalid_type")
    if is_web_address(url):
        return url
    begin = _DATA_URL.match(url)
    # What is wrong behind the beginning of a large one is found where it is decoded.
    if begin is None or not _BASE64.fullmatch(url, begin.end(), begin.end() + 256):
        raise WrongField(where, "invalid image input")
    return url[begin.end() :]


def _tool_calls(calls: Any, where: str, tools: dict[str, str]) -> tuple[dict[str, Any], ...]:
    """Calls that the model has made before; their arguments are objects in the core. Their names go to `tools`."""
    if calls is None:
        return ()
    if not isinstance(calls, list):
        raise WrongField(where, f"{where} must be an array", "invalid_type")
    read = []
    for index, call in enumerate(calls):
        function = call.get("function") if isinstance(call, dict) else None
        name = function.get("name") if isinstance(function, dict) else None
        if not isinstance(function, dict) or not isinstance(name, str):
            raise WrongField(f"{where}[{index}]", f"{where}[{index}] needs a function with a name")
        arguments = read_arguments(function.get("arguments"), f"{where}[{index}].function.arguments")
        id = _text(call, "id", f"{where}[{index}]")
        tools[id] = name
        named = {"id": id} if id else {}
        read.append({**named, "type": "function", "function": {"name": name, "arguments": arguments}})
    return tuple(read)


def read_arguments(value: Any, where: str) -> dict[str, Any]:
    """The arguments of a past call. Raises `WrongField` for what is neither a text nor an object.

    A text that is no JSON object is what a model has written, or the part of it that a stream had when it broke off:
    the conversation has to go on, and the model should see what it did.
    """
    if isinstance(value, str):
        return _object(value)
    if value is None:
        return {}
    if not isinstance(value, dict):
        raise WrongField(where, "invalid tool call arguments")
    return value


def _object(text: str) -> dict[str, Any]:
    try:
        found = None if too_deep(text.encode()) else msgspec.json.decode(text or "{}")
    except (ValueError, RecursionError):
        found = None
    return found if isinstance(found, dict) else {UNREAD: text}

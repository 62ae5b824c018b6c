"""What folders of models say that are laid out as the library transformers does: config.json and what is beside it."""

from __future__ import annotations

from typing import Any

import msgspec

from corectl.errors import BadModelFile
from corectl.model.files import ModelFiles

MAX_CONFIG = 1 << 20
MAX_TOKENIZER_CONFIG = 16 << 20
"""Bytes. Some list each of their added tokens with all its properties."""


def config_of(files: ModelFiles, name: str = "config.json", limit: int = MAX_CONFIG) -> dict[str, Any]:
    """A JSON object of the folder. Raises `BadModelFile`, also where there is none."""
    try:
        return msgspec.json.decode(files.read(name, limit), type=dict[str, Any])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadModelFile(f"{name} is damaged: {exc}") from exc


def chat_template_of(files: ModelFiles) -> str:
    """The Jinja template that comes with the weights, or an empty text. Raises `BadModelFile`."""
    if "chat_template.jinja" in files.named:
        return files.read("chat_template.jinja", MAX_TOKENIZER_CONFIG).decode("utf-8", "replace")
    if "tokenizer_config.json" not in files.named:
        return ""
    found = config_of(files, "tokenizer_config.json", MAX_TOKENIZER_CONFIG).get("chat_template")
    if isinstance(found, list):
        # Several, by name; the one for chats is called `default`.
        defaults = (item for item in found if isinstance(item, dict) and item.get("name") == "default")
        found = next(defaults, {}).get("template")
    return found if isinstance(found, str) else ""


def whole_number(value: object) -> int:
    """A number of a configuration, or 0 where it is none."""
    return value if isinstance(value, int) and not isinstance(value, bool) and 0 < value < 2**63 else 0

"""What a model can do, as far as its config, its template and its weights tell."""

from __future__ import annotations

from collections.abc import Callable

from corectl.errors import BadRequest, NotSupported
from corectl.messages import Template
from corectl.model.details import gguf_of
from corectl.model.formats import ModelDescription
from corectl.model.gguf import Header, header_of
from corectl.model.manifest import MediaType
from corectl.model.record import ModelRecord
from corectl.model.templates import Templates, chat_template, fill_template, powers

# Output parsers by name, for models whose config declares one.
_TOOL_PARSERS = frozenset(
    {
        "cogito",
        "cohere",
        "deepseek3",
        "functiongemma",
        "gemma4",
        "gemma4-no-thinking",
        "glimmer",
        "glm-4.7",
        "harmony",
        "laguna",
        "lfm2",
        "lfm2-thinking",
        "ministral",
        "nemotron-3-nano",
        "nemotron-3.5-nano",
        "olmo3",
        "ornith",
        "poolside-v1",
        "qwen3",
        "qwen3-coder",
        "qwen3-thinking",
        "qwen3-vl-instruct",
        "qwen3-vl-thinking",
        "qwen3.5",
    }
)
_THINKING_PARSERS = frozenset(
    {
        "cogito",
        "deepseek3",
        "gemma4",
        "glm-4.7",
        "harmony",
        "laguna",
        "lfm2-thinking",
        "nemotron-3-nano",
        "nemotron-3.5-nano",
        "olmo3-think",
        "ornith",
        "qwen3",
        "qwen3-thinking",
        "qwen3-vl-thinking",
        "qwen3.5",
    }
)


def capabilities(
    record: ModelRecord, description: ModelDescription | None = None, *, prefer_go: bool | None = None
) -> list[str]:
    """The capabilities of a model in a fixed order; last come those that only its config claims.

    `description` is what the model's format says of it; the header of a GGUF file is read here. `prefer_go` is the
    setting `go_template`, which decides between two templates. Raises `BadModelFile` and `OSError`.
    """
    if (path := gguf_of(record)) is not None:
        header = header_of(path)
        embedded = header.metadata.get("tokenizer.chat_template")
        found = _of_header(record, header)
    else:
        embedded = description.chat_template if description is not None else ""
        found = list(description.capabilities) if description is not None else []
    found += _of_prompt(record, embedded if isinstance(embedded, str) else "", prefer_go)
    return list(dict.fromkeys([*found, *(record.config.capabilities or ())]))


def _of_header(record: ModelRecord, header: Header) -> list[str]:
    if header.pooled:
        return [header.pooled]
    projectors = [header_of(path) for path in record.paths(MediaType.PROJECTOR)]
    found = ["completion"]
    if projectors or header.of_architecture("vision.block_count") is not None:
        found.append("vision")
    hears = any(projector.metadata.get("clip.has_audio_encoder") is True for projector in projectors)
    if hears or header.of_architecture("audio.block_count") is not None:
        found.append("audio")
    return found


def _of_prompt(record: ModelRecord, embedded: str, prefer_go: bool | None) -> list[str]:
    """Tools, insert and thinking: by the template that renders chats, and the one that fills in."""
    config = record.config
    templates = Templates(config=config, go=record.template, jinja=embedded, prefer_go=prefer_go)
    found = _powers(chat_template, templates) | (_powers(fill_template, templates) & {"insert"})
    if config.parser in _TOOL_PARSERS:
        found |= {"tools"}
    if config.parser in _THINKING_PARSERS or config.model_family in ("gptoss", "gpt-oss"):
        found |= {"thinking"}
    return [name for name in ("tools", "insert", "thinking") if name in found]


def _powers(choose: Callable[[Templates], Template], templates: Templates) -> frozenset[str]:
    """The powers of the chosen template, or none where there is no renderer for the model."""
    try:
        return powers(choose(templates))
    except (BadRequest, NotSupported):
        return frozenset()

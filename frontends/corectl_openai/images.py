"""Images that a request only names by their addresses: they are fetched before anything else is done with it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any

import msgspec

from corectl.messages import Message
from corectl.model.record import ModelRecord
from corectl.server.body import AnyRequest
from corectl.server.fetching import fetch_images, is_web_address
from corectl.server.services import Services
from corectl_openai.content import address_of

Contents = Iterable[tuple[str, Any]]
"""What may have images, by its field in the request."""


def contents_of(entries: Any, where: str, *keys: str) -> Contents:
    """These fields of the entries of a list; none of what is no list."""
    if isinstance(entries, list):
        for index, entry in enumerate(entries):
            for key in keys:
                yield f"{where}[{index}].{key}", entry.get(key)


async def with_images(
    request: AnyRequest,
    services: Services,
    record: ModelRecord,
    messages: Sequence[Message],
    contents: Contents,
) -> list[Message]:
    """The messages of a request that was read, with all images in base64. Raises `BadRequest` that names the part."""
    found = await fetch_images(request, services, record, _addresses(contents))
    return [_filled(message, found) for message in messages] if found else list(messages)


def _addresses(contents: Contents) -> dict[str, str]:
    """The address that each part names."""
    fields: dict[str, str] = {}
    for where, content in contents:
        for index, part in enumerate(content if isinstance(content, list) else []):
            is_image = isinstance(part, dict) and part.get("type") in ("image_url", "input_image")
            url = address_of(part) if is_image else None
            if isinstance(url, str) and is_web_address(url):
                fields[f"{where}[{index}].image_url"] = url
    return fields


def _filled(message: Message, found: dict[str, str]) -> Message:
    images = tuple(found[image] if is_web_address(image) else image for image in message.images)
    return msgspec.structs.replace(message, images=images)

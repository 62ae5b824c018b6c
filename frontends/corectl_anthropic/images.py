"""Images that a request only names by their addresses: they are fetched before it is read."""

from __future__ import annotations

from collections.abc import Iterator

from corectl.errors import BadRequest
from corectl.model.record import ModelRecord
from corectl.server.body import AnyRequest
from corectl.server.fetching import fetch_images
from corectl.server.services import Services
from corectl_anthropic.schema import CountRequest, Image, Source, ToolResult


async def take_images(
    request: AnyRequest, services: Services, record: ModelRecord, body: CountRequest
) -> None:
    """Puts each into its place, as if it had been sent. Raises `BadRequest` that names the source."""
    places = [(where, image) for where, image in _images(body) if image.source.type == "url"]
    fields: dict[str, str] = {}
    for where, image in places:
        if image.source.url is None:
            raise BadRequest(f"{where}.url: an image of type url needs one")
        fields[f"{where}.url"] = image.source.url
    found = await fetch_images(request, services, record, fields)
    for _, image in places:
        image.source = Source(type="base64", data=found[image.source.url or ""])


def _images(body: CountRequest) -> Iterator[tuple[str, Image]]:
    """All images, also those in results of tools, by the fields of their sources."""
    for number, message in enumerate(body.messages):
        for index, block in enumerate([] if isinstance(message.content, str) else message.content):
            where = f"messages[{number}].content[{index}]"
            if isinstance(block, Image):
                yield f"{where}.source", block
            elif isinstance(block, ToolResult) and isinstance(block.content, list):
                for place, part in enumerate(block.content):
                    if isinstance(part, Image):
                        yield f"{where}.content[{place}].source", part

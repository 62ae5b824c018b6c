"""Images that a request only names by their addresses."""

from __future__ import annotations

from typing import Any

from corectl.server.fetching import is_web_address
from corectl_openai.content import address_of


def addresses_of(entries: Any, where: str, *keys: str) -> dict[str, str]:
    """The addresses of images in these fields of entries, by the parts that name them; none where there is no list."""
    found: dict[str, str] = {}
    for index, entry in enumerate(entries if isinstance(entries, list) else []):
        for key in keys:
            _add(found, f"{where}[{index}].{key}", entry.get(key))
    return found


def _add(found: dict[str, str], where: str, content: Any) -> None:
    for index, part in enumerate(content if isinstance(content, list) else []):
        is_image = isinstance(part, dict) and part.get("type") in ("image_url", "input_image")
        url = address_of(part) if is_image else None
        if isinstance(url, str) and is_web_address(url):
            found[f"{where}[{index}].image_url"] = url

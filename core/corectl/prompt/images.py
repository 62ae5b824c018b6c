"""Where the images of a prompt stand in its text.

Each `[img]` in a message is the place of its next image; images that have none stand in front of the message's text, in
order. While a template runs, a marker stands in the place of an image that no client can guess: text that only looks
like a placeholder stays text. What people see of a prompt has `[img-0]`, `[img-1]` and so on instead.
"""

from __future__ import annotations

import re
import secrets
from collections.abc import Sequence

import msgspec

from corectl.messages import ChatPrompt, Message, Prompt, RawPrompt

_PLACE = "[img]"
_NUMBERED = re.compile(r"\[img-(\d{1,6})\]")


class PlacedImages(msgspec.Struct, frozen=True, kw_only=True):
    """A prompt with markers in place of its images, whose `images` (base64) are numbered from 0.

    `fields` names each image as the client knows it.
    """

    prompt: Prompt
    images: tuple[str, ...] = ()
    fields: tuple[str, ...] = ()
    nonce: str = ""

    def split(self, text: str) -> list[str | int]:
        """A rendered text as pieces of text, and the numbers of the images between them."""
        if not self.images:
            return [text]
        pieces = re.split(rf"\[img-(\d+):{self.nonce}\]", text)
        return [int(piece) if at % 2 else piece for at, piece in enumerate(pieces)]

    def shown(self, text: str) -> str:
        """A rendered text as people see it: the images that are left are numbered from 0."""
        pieces = self.split(text)
        ranks = {number: rank for rank, number in enumerate(sorted(_numbers(pieces)))}
        return "".join(f"[img-{ranks[piece]}]" if isinstance(piece, int) else piece for piece in pieces)

    def missing(self, text: str) -> list[int]:
        """The numbers of the images that a rendered text does not have."""
        found = _numbers(self.split(text))
        return [number for number in range(len(self.images)) if number not in found]


def _numbers(pieces: Sequence[str | int]) -> set[int]:
    return {piece for piece in pieces if isinstance(piece, int)}


def place_images(prompt: Prompt) -> PlacedImages:
    """Puts a marker where each image of a prompt belongs. Text without images is left as it is.

    Raw text may name its images itself, as `[img-0]` and so on.
    """
    nonce = secrets.token_hex(8)
    if isinstance(prompt, ChatPrompt):
        return _place_in_chat(prompt, nonce)
    if not prompt.images:
        return PlacedImages(prompt=prompt)
    markers = _markers(0, len(prompt.images), nonce)
    if isinstance(prompt, RawPrompt):
        placed: Prompt = msgspec.structs.replace(prompt, text=_place_raw(prompt.text, markers), images=())
    else:
        placed = msgspec.structs.replace(prompt, prompt=_place(prompt.prompt, markers), images=())
    fields = tuple(f"images[{number}]" for number in range(len(prompt.images)))
    return PlacedImages(prompt=placed, images=prompt.images, fields=fields, nonce=nonce)


def _place_in_chat(prompt: ChatPrompt, nonce: str) -> PlacedImages:
    if not any(message.images for message in prompt.messages):
        return PlacedImages(prompt=prompt)
    images: list[str] = []
    fields: list[str] = []
    messages: list[Message] = []
    own = len(prompt.messages) - prompt.given
    for at, message in enumerate(prompt.messages):
        markers = _markers(len(images), len(message.images), nonce)
        for number in range(len(message.images)):
            where = f"messages[{at - own}]." if prompt.given and at >= own else ""
            fields.append(f"{where}images[{number}]")
        images += message.images
        messages.append(
            # A template may ask whether there are images; their bytes are none of its business.
            msgspec.structs.replace(
                message,
                content=_place(message.content, markers),
                images=tuple(f"[img-{number}]" for number in range(len(images) - len(markers), len(images))),
            )
        )
    placed = msgspec.structs.replace(prompt, messages=tuple(messages))
    return PlacedImages(prompt=placed, images=tuple(images), fields=tuple(fields), nonce=nonce)


def _markers(first: int, count: int, nonce: str) -> list[str]:
    return [f"[img-{number}:{nonce}]" for number in range(first, first + count)]


def _place(text: str, markers: Sequence[str]) -> str:
    pieces = in_order(text, len(markers))
    return "".join(markers[piece] if isinstance(piece, int) else piece for piece in pieces)


def in_order(text: str, images: int) -> list[str | int]:
    """A message's text in pieces, and the numbers of its images, as they follow one another."""
    head, *rest = text.split(_PLACE, images)
    found: list[str | int] = [*range(len(rest), images), head]
    for number, piece in enumerate(rest):
        found += [number, piece]
    return found


def with_places(parts: Sequence[str | None], separator: str) -> str:
    """The text of a message that comes in parts; None is an image. Those in front of all text need no place.

    Where a text in front of an image looks like a place itself, all images come first: the text stays text.
    """
    images = parts.count(None)
    alike = next((at for at, part in enumerate(parts) if part is not None and _PLACE in part), len(parts))
    if None in parts[alike:]:
        parts = [None] * images + [part for part in parts if part is not None]
    front = next((at for at, part in enumerate(parts) if part is not None), len(parts))
    texts = [_PLACE if part is None else part for part in parts[front:]]
    if front < images or alike < len(parts):
        texts = [_PLACE] * front + texts
    return separator.join(filter(None, texts))


def _place_raw(text: str, markers: Sequence[str]) -> str:
    found: set[int] = set()

    def marker(match: re.Match[str]) -> str:
        number = int(match[1])
        if number >= len(markers):
            return match[0]
        found.add(number)
        return markers[number]

    text = _NUMBERED.sub(marker, text)
    return _place(text, [marker for number, marker in enumerate(markers) if number not in found])

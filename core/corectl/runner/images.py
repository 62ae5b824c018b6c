"""Images as clients send them, from base64 to pixels. In the runner: decoders are the part that files attack.

An image's header is read first, and its claims are checked before anything is decoded. What Pillow says of a broken
file never reaches a client: its texts may hold addresses.
"""

from __future__ import annotations

import base64
import binascii
import functools
import hashlib
import io
from collections.abc import Sequence
from typing import TYPE_CHECKING

from corectl.errors import BadRequest
from corectl.runner.vision import Picture

if TYPE_CHECKING:
    from PIL import Image

FORMATS = ("PNG", "JPEG", "WEBP", "GIF", "BMP")
MAX_IMAGES = 1000
MAX_BYTES = 32 << 20
MAX_PIXELS = 64_000_000
MAX_ALL_PIXELS = 256_000_000
"""For all images of a prompt together. They are decoded one after another, so this bounds time, not memory."""
MAX_RATIO = 200
"""How many times longer than wide. Vision models turn such strips into endless rows of patches."""

_ORIENTATION = 0x0112
_TURNED = 5
"""Orientations from here on swap width and height."""


def open_images(images: Sequence[str], fields: Sequence[str], *, salt: str = "") -> list[Picture]:
    """The images of a prompt, checked but not decoded. Raises `BadRequest` that names the field.

    The same file is another image with another `salt`.
    """
    if len(images) > MAX_IMAGES:
        raise BadRequest(f"images: {len(images)} images in one prompt; at most {MAX_IMAGES} are allowed")
    return [_open(text, field, salt) for text, field in zip(images, fields, strict=True)]


def check_pixels(pictures: Sequence[Picture]) -> None:
    """Raises `BadRequest` if the images of a prompt are too large in all."""
    pixels = sum(picture.width * picture.height for picture in pictures)
    if pixels > MAX_ALL_PIXELS:
        raise BadRequest(
            f"images: {_mega(pixels)} megapixels in one prompt; at most {_mega(MAX_ALL_PIXELS)} are allowed"
        )


def _open(text: str, field: str, salt: str) -> Picture:
    data = _decode_base64(text, field)
    with _header(data, field) as image:
        width, height = image.size
        if _orientation(image) >= _TURNED:
            width, height = height, width
    if not (width and height):
        raise BadRequest(f"{field}: the image is empty")
    if width * height > MAX_PIXELS:
        raise BadRequest(
            f"{field}: {width} x {height} pixels are too many; at most {_mega(MAX_PIXELS)} megapixels are allowed"
        )
    if max(width, height) > MAX_RATIO * min(width, height):
        raise BadRequest(f"{field}: {width} x {height} pixels; at most {MAX_RATIO} times as long as wide")
    pixels = functools.partial(_decode, data, field)
    digest = hashlib.sha256(data).hexdigest() + salt
    return Picture(digest=digest, width=width, height=height, pixels=pixels)


def _mega(pixels: int) -> int:
    return -(-pixels // 1_000_000)


def _decode_base64(text: str, field: str) -> bytes:
    if len(text) // 4 * 3 > MAX_BYTES:
        raise BadRequest(f"{field}: the image is larger than {MAX_BYTES >> 20} MiB")
    try:
        # Line breaks are what many tools put into base64.
        return base64.b64decode(text.replace("\n", "").replace("\r", ""), validate=True)
    except (binascii.Error, ValueError):
        raise BadRequest(f"{field}: not valid base64") from None


def _header(data: bytes, field: str) -> Image.Image:
    from PIL import Image

    # Pillow's own limit would come first, as a warning.
    Image.MAX_IMAGE_PIXELS = None
    try:
        return Image.open(io.BytesIO(data), formats=FORMATS)
    except Exception:
        known = ", ".join(FORMATS)
        raise BadRequest(f"{field}: not an image that can be read here; the formats are {known}") from None


def _orientation(image: Image.Image) -> int:
    """How a camera was held: 1 to 8, as EXIF counts."""
    # Where the header has no EXIF, asking for it would decode the image.
    if "exif" not in image.info:
        return 1
    try:
        found = int(image.getexif().get(_ORIENTATION, 1))
    except Exception:
        return 1
    return found if 1 <= found <= 8 else 1


def _decode(data: bytes, field: str) -> bytes:
    """The pixels, upright, in RGB; transparent ones on white. Of an animation it is the first frame."""
    from PIL import Image

    turns = {
        2: Image.Transpose.FLIP_LEFT_RIGHT,
        3: Image.Transpose.ROTATE_180,
        4: Image.Transpose.FLIP_TOP_BOTTOM,
        5: Image.Transpose.TRANSPOSE,
        6: Image.Transpose.ROTATE_270,
        7: Image.Transpose.TRANSVERSE,
        8: Image.Transpose.ROTATE_90,
    }
    with _header(data, field) as image:
        turn = turns.get(_orientation(image))
        try:
            image.load()
            upright = _in_rgb(image) if turn is None else _in_rgb(image).transpose(turn)
            return upright.tobytes()
        except Exception:
            raise BadRequest(f"{field}: the image is damaged or incomplete") from None


def _in_rgb(image: Image.Image) -> Image.Image:
    if image.mode.startswith("I"):
        image = _in_eight_bits(image)
    if not image.has_transparency_data:
        return image.convert("RGB")
    from PIL import Image

    seen = image.convert("RGBA")
    paper = Image.new("RGB", seen.size, "white")
    paper.paste(seen, mask=seen.getchannel("A"))
    return paper


def _in_eight_bits(image: Image.Image) -> Image.Image:
    """A grey image of 16 bits, which Pillow would cut off instead of scaling."""
    import numpy as np
    from PIL import Image

    return Image.fromarray((np.asarray(image) >> 8).astype(np.uint8))

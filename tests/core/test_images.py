"""Decoding what clients send as images: what is read, and what is refused before it costs anything."""

from __future__ import annotations

import base64
import io
import resource
import struct
import zlib
from collections.abc import Callable
from typing import Any

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from PIL import Image

from corectl.errors import BadRequest
from corectl.runner import images
from corectl.runner.images import check_pixels, open_images
from corectl.runner.vision import Picture
from tests.projector import picture

# Pillow warns of small damage that it can live with.
pytestmark = pytest.mark.filterwarnings("ignore::UserWarning")


def encoded(image: Image.Image, form: str, **options: Any) -> bytes:
    buffer = io.BytesIO()
    image.save(buffer, form, **options)
    return buffer.getvalue()


def text(data: bytes) -> str:
    return base64.b64encode(data).decode()


def opened(data: bytes) -> Picture:
    (found,) = open_images([text(data)], ["images[0]"])
    return found


def pixels(data: bytes) -> np.ndarray[Any, Any]:
    found = opened(data)
    return np.frombuffer(found.pixels(), np.uint8).reshape(found.height, found.width, 3)


def refusal(data: bytes | str) -> str:
    """Why an image is refused, be it at first sight or when it is decoded."""
    given = data if isinstance(data, str) else text(data)
    with pytest.raises(BadRequest) as caught:
        open_images([given], ["messages[1].images[2]"])[0].pixels()
    field, _, reason = caught.value.message.partition(": ")
    assert field == "messages[1].images[2]"
    assert "0x" not in reason
    return reason


def png(width: int, height: int, *chunks: tuple[bytes, bytes], depth: int = 8, kind: int = 2) -> bytes:
    """A PNG file of which the header may claim anything."""
    header = struct.pack(">IIBBBBB", width, height, depth, kind, 0, 0, 0)
    parts = [(b"IHDR", header), *chunks, (b"IEND", b"")]
    return b"\x89PNG\r\n\x1a\n" + b"".join(
        struct.pack(">I", len(data)) + name + data + struct.pack(">I", zlib.crc32(name + data))
        for name, data in parts
    )


def test_the_same_file_is_another_image_with_another_salt() -> None:
    data = text(encoded(Image.new("RGB", (8, 8)), "PNG"))
    plain, salted, again, other = (
        open_images([data], ["images[0]"], salt=salt)[0].digest for salt in ("", "a", "a", "b")
    )
    assert salted == again and len({plain, salted, other}) == 3


@pytest.mark.parametrize("form", ["PNG", "WEBP", "BMP"])
def test_lossless_formats(form: str) -> None:
    image = picture(40, 30)
    options = {"lossless": True} if form == "WEBP" else {}
    found = pixels(encoded(image, form, **options))
    np.testing.assert_array_equal(found, np.asarray(image))


@pytest.mark.parametrize("form", ["JPEG", "GIF", "WEBP"])
def test_lossy_formats(form: str) -> None:
    image = picture(40, 30)
    found = pixels(encoded(image, form))
    assert found.shape == (30, 40, 3)
    assert np.abs(found.astype(int) - np.asarray(image).astype(int)).mean() < 25


def test_an_animation_is_its_first_frame() -> None:
    frames = [Image.new("RGB", (20, 10), colour) for colour in ("red", "lime", "blue")]
    for form in ("GIF", "WEBP", "PNG"):
        data = encoded(frames[0], form, save_all=True, append_images=frames[1:])
        found = pixels(data)
        assert found.shape == (10, 20, 3)
        np.testing.assert_allclose(found[5, 5], [255, 0, 0], atol=4)


@pytest.mark.parametrize("mode", ["1", "L", "P", "CMYK", "RGBA", "LA"])
def test_every_mode_becomes_rgb(mode: str) -> None:
    image = Image.new("L", (8, 8), 255).convert(mode)
    data = encoded(image, "JPEG" if mode == "CMYK" else "PNG")
    np.testing.assert_allclose(pixels(data), 255, atol=2)


def test_sixteen_bits_are_scaled() -> None:
    grey = np.linspace(0, 65535, 64).astype(np.uint16).reshape(8, 8)
    found = pixels(encoded(Image.fromarray(grey), "PNG"))
    np.testing.assert_array_equal(found[..., 0], grey >> 8)


def test_what_is_transparent_is_white() -> None:
    image = Image.new("RGBA", (4, 4), (0, 0, 255, 0))
    image.putpixel((0, 0), (0, 0, 255, 255))
    found = pixels(encoded(image, "PNG"))
    assert found[0, 0].tolist() == [0, 0, 255]
    assert found[3, 3].tolist() == [255, 255, 255]
    palette = Image.new("P", (4, 4), 1)
    palette.putpalette([10, 20, 30, 40, 50, 60])
    assert pixels(encoded(palette, "GIF", transparency=1))[0, 0].tolist() == [255, 255, 255]


@pytest.mark.parametrize("orientation", range(1, 9))
@pytest.mark.parametrize("form", ["PNG", "WEBP"])
def test_images_are_turned_upright(orientation: int, form: str) -> None:
    upright = np.asarray(picture(6, 4, seed=orientation))
    stored = {
        1: upright,
        2: upright[:, ::-1],
        3: upright[::-1, ::-1],
        4: upright[::-1],
        5: upright.transpose(1, 0, 2),
        6: upright.transpose(1, 0, 2)[::-1],
        7: upright.transpose(1, 0, 2)[::-1, ::-1],
        8: upright.transpose(1, 0, 2)[:, ::-1],
    }[orientation]
    exif = Image.Exif()
    exif[0x0112] = orientation
    options = {"lossless": True} if form == "WEBP" else {}
    data = encoded(Image.fromarray(np.ascontiguousarray(stored)), form, exif=exif, **options)
    np.testing.assert_array_equal(pixels(data), upright)


def test_a_jpeg_is_turned_before_its_size_is_told() -> None:
    exif = Image.Exif()
    exif[0x0112] = 6
    found = opened(encoded(picture(60, 20), "JPEG", exif=exif))
    assert (found.width, found.height) == (20, 60)
    assert len(found.pixels()) == 3 * 20 * 60


@pytest.mark.parametrize("orientation", [0, 9, 65535])
def test_an_orientation_that_there_is_not_turns_nothing(orientation: int) -> None:
    exif = Image.Exif()
    exif[0x0112] = orientation
    found = opened(encoded(picture(60, 20), "JPEG", exif=exif))
    assert (found.width, found.height) == (60, 20)


def test_exif_that_makes_no_sense_is_ignored() -> None:
    data = encoded(picture(6, 4), "JPEG", exif=b"Exif\0\0MM\0*\xff\xff\xff\xff" + b"\xff" * 40)
    assert pixels(data).shape == (4, 6, 3)


def test_the_same_file_has_the_same_digest() -> None:
    one, other = encoded(picture(8, 8, 1), "PNG"), encoded(picture(8, 8, 2), "PNG")
    assert opened(one).digest == opened(one).digest != opened(other).digest


def test_line_breaks_in_base64() -> None:
    data = encoded(picture(8, 8), "PNG")
    (found,) = open_images([base64.encodebytes(data).decode().replace("\n", "\r\n")], ["images[0]"])
    assert len(found.pixels()) == 3 * 64


@pytest.mark.parametrize(
    ("data", "reason"),
    [
        ("aGk", "not valid base64"),
        ("data:image/png;base64,aGk=", "not valid base64"),
        ("ä", "not valid base64"),
        ("", "not an image"),
        (text(b"hi"), "not an image"),
        (text(b'<svg xmlns="http://www.w3.org/2000/svg"/>'), "the formats are PNG, JPEG, WEBP, GIF, BMP"),
        (text(b"RIFF\x24\0\0\0WAVEfmt "), "not an image"),
        (text(encoded(picture(8, 8), "TIFF")), "not an image"),
        (text(encoded(picture(8, 8), "ICO")), "not an image"),
        (text(encoded(picture(8, 8), "PPM")), "not an image"),
    ],
)
def test_what_is_no_image(data: str, reason: str) -> None:
    assert reason in refusal(data)


@pytest.mark.parametrize("form", ["PNG", "JPEG", "WEBP", "GIF", "BMP"])
@pytest.mark.parametrize("share", [0.1, 0.5, 0.95])
def test_truncated_files(form: str, share: float) -> None:
    data = encoded(picture(300, 200), form)
    reason = refusal(data[: int(len(data) * share)])
    assert "damaged or incomplete" in reason or "not an image" in reason


def bomb_png() -> bytes:
    return png(65535, 65535, (b"IDAT", zlib.compress(b"\0" * 4)))


def bomb_bmp() -> bytes:
    return b"BM" + struct.pack("<IHHIIiiHHIIiiII", 66, 0, 0, 54, 40, 65535, 65535, 1, 24, 0, 0, 0, 0, 0, 0)


def bomb_gif() -> bytes:
    frame = b"," + struct.pack("<HHHHB", 0, 0, 65535, 65535, 0) + b"\x02\x02D\x01\0;"
    return b"GIF89a" + struct.pack("<HHBBB", 1, 1, 0, 0, 0) + frame


def bomb_webp() -> bytes:
    size = 16383
    bits = 0x2F | (size - 1) << 8 | (size - 1) << 22
    body = b"VP8L" + struct.pack("<I", 5) + bits.to_bytes(5, "little") + b"\0"
    return b"RIFF" + struct.pack("<I", 4 + len(body)) + b"WEBP" + body


@pytest.mark.parametrize("bomb", [bomb_png, bomb_bmp, bomb_gif, bomb_webp])
def test_claims_of_size_cost_nothing(bomb: Callable[[], bytes]) -> None:
    before = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    reason = refusal(bomb())
    grown = resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before
    assert grown * 1024 < 64 << 20
    assert "too many; at most 64 megapixels" in reason or "not an image" in reason


def test_limits(monkeypatch: pytest.MonkeyPatch) -> None:
    wide = encoded(Image.new("RGB", (402, 2)), "PNG")
    assert "at most 200 times as long as wide" in refusal(wide)
    assert opened(encoded(Image.new("RGB", (400, 2)), "PNG")).width == 400
    monkeypatch.setattr(images, "MAX_PIXELS", 99)
    assert "10 x 10 pixels are too many" in refusal(encoded(picture(10, 10), "PNG"))
    monkeypatch.setattr(images, "MAX_BYTES", 100)
    assert "larger than" in refusal(b"x" * 200)
    monkeypatch.setattr(images, "MAX_IMAGES", 1)
    with pytest.raises(BadRequest, match=r"images: 2 images in one prompt; at most 1 are allowed"):
        open_images(["", ""], ["images[0]", "images[1]"])


def test_all_images_together() -> None:
    small = opened(encoded(picture(8, 8), "PNG"))
    check_pixels([small] * 900)
    large = Picture(digest="x", width=8000, height=8000, pixels=bytes)
    check_pixels([large] * 4)
    with pytest.raises(BadRequest, match=r"images: 320 megapixels in one prompt; at most 256 are allowed"):
        check_pixels([large] * 5)


@given(
    st.binary(min_size=1, max_size=8),
    st.integers(0, 400),
    st.sampled_from(["PNG", "JPEG", "WEBP", "GIF", "BMP"]),
)
def test_damage_is_never_more_than_a_refusal(noise: bytes, at: int, form: str) -> None:
    data = bytearray(encoded(picture(24, 16), form))
    at %= len(data)
    data[at : at + len(noise)] = noise
    try:
        found = opened(bytes(data))
        assert len(found.pixels()) == 3 * found.width * found.height
    except BadRequest as error:
        assert error.message.startswith("images[0]: ")

"""How much memory a projector takes: the part of a model that encodes images, in a file of its own."""

from __future__ import annotations

from corectl.model.gguf import Header

_ANY_SIZE = ("qwen", "pixtral", "glm4v", "kimivl", "lightonocr", "youtuvl", "dots_ocr", "paddleocr")
"""Kinds that take images of any size; llama.cpp makes room for one of `_CELLS_A_SIDE`, squared."""

_CELLS_A_SIDE = 46
_PATCHES_A_CELL = 2


def projector_compute(header: Header) -> int:
    """Bytes for intermediate values: the pixels, and what each patch needs in the largest network."""

    def number(key: str) -> int:
        value = header.metadata.get(f"clip.vision.{key}")
        return value if type(value) is int else 0

    patch, width = number("patch_size"), number("embedding_length")
    if not patch:
        return 0
    side = number("image_size")
    kind = str(
        header.metadata.get("clip.vision.projector_type") or header.metadata.get("clip.projector_type")
    )
    if kind.startswith(_ANY_SIZE):
        side = _CELLS_A_SIDE * _PATCHES_A_CELL * patch
    patches = (side // patch) ** 2
    return 4 * (3 * side * side + patches * (number("feed_forward_length") + 4 * width))

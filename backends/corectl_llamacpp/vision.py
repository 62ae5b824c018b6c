"""Images through mtmd, llama.cpp's multimodal library: a projector file beside the model's weights.

An image becomes *chunks*: texts that the model's family wants around it, and one or several pieces of image, each of
which is encoded on its own. What was encoded is kept for a while, so that the next turn of a chat is not charged for it
again.
"""

from __future__ import annotations

import ctypes
import os
import threading
import weakref
from collections import OrderedDict
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import llama_cpp
import msgspec
import numpy as np
import numpy.typing as npt
from llama_cpp import mtmd_cpp as mtmd

from corectl.errors import BadRequest, EngineError, NotSupported
from corectl.model.gguf import Header
from corectl.runner.engine import Placement
from corectl.runner.vision import IMAGE, ImageSpan, Picture, Seen
from corectl_llamacpp import logs

KEPT_BYTES = 256 << 20
"""Embeddings that are kept for later requests."""

AHEAD = 16
"""Images that are decoded before their turn. Each holds some ten MB until it is encoded."""

LARGE = ((4096, 4096), (8192, 2048), (2048, 8192))
"""Sizes of images that take as many cells as any."""

_BOUND_TO_PROMPT = ("hunyuanvl", "deepseek4v")
"""Projectors for which an image is not the same everywhere in a prompt, which is what everything here is built on."""

_NO_CALLBACK = mtmd.mtmd_helper_post_decode_callback()


class _Piece(msgspec.Struct, frozen=True):
    """What is known of a chunk from the image's size alone: `tokens` of text, or cells and positions of an image."""

    tokens: tuple[int, ...] = ()
    cells: int = 0
    positions: int = 0


class _Chunk:
    """A native chunk that belongs to us."""

    def __init__(self, native: Any) -> None:
        self.native = native
        weakref.finalize(self, mtmd.mtmd_input_chunk_free, native)


class _Image:
    """A picture on its way from its size to its embeddings: one chunk, and then one array, for each span."""

    def __init__(self, picture: Picture, spans: int) -> None:
        self.digest = picture.digest
        self.picture: Picture | None = picture
        self.chunks: list[_Chunk] = []
        self.embeddings: list[npt.NDArray[np.float32] | None] = [None] * spans

    @property
    def encoded(self) -> bool:
        return all(array is not None for array in self.embeddings)

    @property
    def nbytes(self) -> int:
        return sum(array.nbytes for array in self.embeddings if array is not None)


class _Handle(msgspec.Struct, frozen=True):
    image: _Image
    index: int


class LlamaVision:
    """See `corectl.runner.vision.Vision`. `close` frees what `native`, an mtmd context, holds."""

    def __init__(self, native: Any, width: int) -> None:
        self._native = native
        self._width = width
        self._layouts: dict[tuple[int, int], list[_Piece]] = {}
        # Guards the two maps: images in use by anybody, and those kept for nobody yet, the least recently used first.
        self._lock = threading.Lock()
        self._live: weakref.WeakValueDictionary[str, _Image] = weakref.WeakValueDictionary()
        self._kept: OrderedDict[str, _Image] = OrderedDict()
        self.at_once = self._largest() if mtmd.mtmd_decode_use_non_causal(native, None) else 0
        """Cells that the context must be able to compute together: some models look at all of an image at once."""

    def see(self, picture: Picture) -> Seen:
        layout = self._layout(picture.width, picture.height)
        image = self._find(picture, sum(1 for piece in layout if piece.cells))
        tokens: list[int] = []
        spans: list[ImageSpan] = []
        for piece in layout:
            if piece.cells:
                handle = _Handle(image, len(spans))
                spans.append(
                    ImageSpan(start=len(tokens), cells=piece.cells, positions=piece.positions, handle=handle)
                )
            tokens += piece.tokens or [IMAGE] * piece.cells
        return Seen(tuple(tokens), tuple(spans))

    def load(self, span: ImageSpan) -> None:
        image = span.handle.image
        picture = image.picture
        if image.chunks or picture is None:
            return
        pixels = picture.pixels()
        with self._lock:
            ahead = sum(1 for other in self._live.values() if other.chunks and not other.encoded)
        if ahead < AHEAD:
            image.chunks = self._read(picture, pixels)

    def encode(self, span: ImageSpan) -> None:
        image, index = span.handle.image, span.handle.index
        if image.embeddings[index] is None:
            if not image.chunks:
                image.chunks = self._read(image.picture, image.picture.pixels())
            chunk = image.chunks[index].native
            if mtmd.mtmd_encode_chunk(self._native, chunk):
                raise EngineError(
                    "an error was encountered while running the model: an image was not encoded"
                )
            found = mtmd.mtmd_get_output_embd(self._native)
            image.embeddings[index] = np.ctypeslib.as_array(found, shape=(span.cells, self._width)).copy()
            # From here on only the places of the tokens are needed, and not the pixels.
            image.chunks[index] = _Chunk(mtmd.mtmd_input_chunk_get_placeholder(chunk))
        if image.encoded:
            self._keep(image)

    def decode(self, context: Any, span: ImageSpan, *, slot: int, position: int) -> int:
        """Puts an encoded span into a sequence. Gives the status of llama.cpp's decoding, 0 if all is well."""
        image, index = span.handle.image, span.handle.index
        embeddings = image.embeddings[index]
        if embeddings is None:
            raise EngineError("an image was not encoded before its step")
        status: int = mtmd.mtmd_helper_decode_image_chunk(
            self._native,
            context,
            image.chunks[index].native,
            embeddings.ctypes.data_as(ctypes.POINTER(ctypes.c_float)),
            position,
            slot,
            llama_cpp.llama_n_batch(context),
            ctypes.byref(ctypes.c_int32()),
            _NO_CALLBACK,
            None,
        )
        return status

    def close(self) -> None:
        self._kept.clear()
        mtmd.mtmd_free(self._native)

    def _find(self, picture: Picture, spans: int) -> _Image:
        with self._lock:
            image = self._live.get(picture.digest)
            if image is None:
                image = self._live[picture.digest] = _Image(picture, spans)
            if picture.digest in self._kept:
                self._kept.move_to_end(picture.digest)
            return image

    def _keep(self, image: _Image) -> None:
        image.picture = None
        with self._lock:
            self._kept[image.digest] = image
            while self._kept and sum(kept.nbytes for kept in self._kept.values()) > KEPT_BYTES:
                self._kept.popitem(last=False)

    def _layout(self, width: int, height: int) -> list[_Piece]:
        known = self._layouts.get((width, height))
        if known is None:
            with self._tokenized(width, height, None) as chunks:
                known = [_piece(chunk) for chunk in chunks]
            if len(self._layouts) >= 1024:
                self._layouts.clear()
            self._layouts[width, height] = known
        return known

    def _largest(self) -> int:
        return max(piece.cells for size in LARGE for piece in self._layout(*size))

    def _read(self, picture: Picture, pixels: bytes) -> list[_Chunk]:
        if len(pixels) != 3 * picture.width * picture.height:
            raise EngineError("an image has another size than was said")
        with self._tokenized(picture.width, picture.height, pixels) as chunks:
            return [_Chunk(mtmd.mtmd_input_chunk_copy(chunk)) for chunk in chunks if _piece(chunk).cells]

    @contextmanager
    def _tokenized(self, width: int, height: int, pixels: bytes | None) -> Iterator[list[Any]]:
        """The chunks of an image, as long as the context lasts. Without pixels they only have sizes."""
        data = (
            np.frombuffer(pixels, np.uint8).ctypes.data_as(ctypes.POINTER(ctypes.c_uint8)) if pixels else None
        )
        bitmap = mtmd.mtmd_bitmap_init(width, height, data)
        part = mtmd.mtmd_input_part(None, bitmap)
        parts = (ctypes.POINTER(mtmd.mtmd_input_part) * 1)(ctypes.pointer(part))
        found = mtmd.mtmd_input_chunks_init()
        try:
            if mtmd.mtmd_tokenize_from_parts(self._native, found, parts, 1, False):
                raise BadRequest(f"this model cannot see an image of {width} x {height} pixels")
            count = mtmd.mtmd_input_chunks_size(found)
            yield [mtmd.mtmd_input_chunks_get(found, index) for index in range(count)]
        finally:
            mtmd.mtmd_input_chunks_free(found)
            mtmd.mtmd_bitmap_free(bitmap)


def _piece(chunk: Any) -> _Piece:
    if mtmd.mtmd_input_chunk_get_type(chunk) == mtmd.MTMD_INPUT_CHUNK_TYPE_TEXT:
        count = ctypes.c_size_t()
        tokens = mtmd.mtmd_input_chunk_get_tokens_text(chunk, ctypes.byref(count))
        return _Piece(tokens=tuple(tokens[: count.value]))
    return _Piece(
        cells=mtmd.mtmd_input_chunk_get_n_tokens(chunk), positions=mtmd.mtmd_input_chunk_get_n_pos(chunk)
    )


def load_vision(
    path: Path, header: Header, native: Any, placement: Placement, device: int | None
) -> LlamaVision | None:
    """The projector for a loaded model; None for one that only hears. Raises `LoadFailed` and `NotSupported`.

    `device` is the token of the accelerator that it lies on; None: it is in the machine's memory.
    """
    metadata = header.metadata
    kind = metadata.get("clip.vision.projector_type") or metadata.get("clip.projector_type")
    if kind in _BOUND_TO_PROMPT:
        raise NotSupported(f"projectors of the kind {kind} cannot be used with this version of corectl")
    mtmd.mtmd_helper_log_set(logs.callback, None)
    params = mtmd.mtmd_context_params_default()
    params.use_gpu, params.device = device is not None, device
    params.n_threads = placement.num_thread
    params.print_timings = False
    context = mtmd.mtmd_init_from_file(os.fsencode(path), native, params)
    if not context:
        raise logs.failure("failed to load the projector")
    if not mtmd.mtmd_support_vision(context):
        mtmd.mtmd_free(context)
        return None
    return LlamaVision(context, llama_cpp.llama_model_n_embd_inp(native))

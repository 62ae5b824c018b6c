"""Writes small models as they were written before there was GGUF, with random weights, for tests."""

from __future__ import annotations

import math
import struct
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path

import gguf
import msgspec
import numpy as np
import numpy.typing as npt

from tests.tiny_qwen import byte_tokens

END = "<|endoftext|>"

PIECES = (
    *("th", "he", " t", "in", "er", " a", " the", "an", "ou", " s", "nd", " and", "ing", " w", " b", " f"),
    *(
        "ck",
        "ow",
        "ro",
        " o",
        "ve",
        "ver",
        " over",
        "qu",
        "ick",
        "quick",
        " quick",
        " br",
        "la",
        "zy",
        "\n\n",
    ),
)
"""Each is put together of two earlier ones or letters."""

BLANK = "\N{LOWER ONE EIGHTH BLOCK}"

Array = npt.NDArray[np.float32]
Shape = tuple[int, ...]


class Kind(msgspec.Struct, frozen=True):
    """A type of weights: its number in headers and in tensors, and how its bytes are made."""

    ftype: int
    tensor: int
    encode: Callable[[Array], bytes]


def _quantized(kind: gguf.GGMLQuantizationType) -> Callable[[Array], bytes]:
    return lambda values: bytes(gguf.quantize(values, kind).tobytes())


KINDS: Mapping[str, Kind] = {
    "f32": Kind(0, 0, lambda values: values.tobytes()),
    "f16": Kind(1, 1, lambda values: values.astype(np.float16).tobytes()),
    "q4_0": Kind(2002, 2, _quantized(gguf.GGMLQuantizationType.Q4_0)),
    "q8_0": Kind(2007, 8, _quantized(gguf.GGMLQuantizationType.Q8_0)),
}
"""The numbers in headers have the version of the quantisation in their thousands; those of Llama and Falcon do not."""


class Size(msgspec.Struct, frozen=True, kw_only=True):
    """How large a model is. `groups` is how many queries share a key in a Llama; the context is not in its files."""

    width: int = 64
    heads: int = 4
    layers: int = 2
    context: int = 256
    groups: int = 1
    vocabulary: int = 0
    """Tokens that a GPT-2 has at least; those without a text of their own have a number for a text."""

    @property
    def head(self) -> int:
        return self.width // self.heads


TINY = Size()
GPT2_SMALL = Size(width=768, heads=12, layers=12, context=1024, vocabulary=50257)
"""The 124 million parameters of the smallest real one."""


class Legacy(msgspec.Struct, frozen=True):
    """A file: what comes before the tensors, their shapes by name, and to what multiple of bytes data is padded.

    Shapes are as numpy has them, rows first.
    """

    head: bytes
    shapes: dict[str, Shape]
    padding: int = 1


def write_ggml(path: Path, family: str = "gpt2", kind: str = "f32", size: Size = TINY) -> Path:
    """Writes a file of one of `FAMILIES` with weights of one of `KINDS`."""
    return write(path, FAMILIES[family](size, KINDS[kind].ftype), kind)


def write(path: Path, model: Legacy, kind: str = "f32") -> Path:
    with path.open("wb") as file:
        file.write(model.head)
        for name, values in weights(model):
            encoded = KINDS[kind if values.ndim == 2 and not name.endswith("wpe") else "f32"]
            file.write(struct.pack("<3i", values.ndim, len(name), encoded.tensor))
            file.write(struct.pack(f"<{values.ndim}i", *reversed(values.shape)) + name.encode())
            file.write(bytes(-file.tell() % model.padding))
            file.write(encoded.encode(values))
    return path


def weights(model: Legacy) -> Iterator[tuple[str, Array]]:
    """What is written, before it is made smaller; always the same."""
    random = np.random.default_rng(7)
    for name, shape in model.shapes.items():
        values = random.standard_normal(shape, np.float32)
        if len(shape) > 1:
            yield name, values / np.float32(math.sqrt(shape[-1]))
        else:
            yield name, np.float32(0.1) * values + np.float32(_is_norm(name))


def _is_norm(name: str) -> bool:
    return name.endswith(
        ("/g", "norm.weight", "ln_1.weight", "ln_f.weight", "norm_1.weight", "norm_2.weight")
    )


def byte_level(*controls: str) -> list[bytes]:
    """A token for each byte, then pieces, and at last control tokens."""
    return [*(bytes([byte]) for byte in range(256)), *map(str.encode, (*PIECES, *controls))]


def text(data: bytes) -> bytes:
    return struct.pack("<i", len(data)) + data


def _scored(tokens: list[bytes]) -> bytes:
    return b"".join(text(token) + struct.pack("<f", -float(place)) for place, token in enumerate(tokens))


def merges() -> list[tuple[str, str]]:
    """Of what each piece is put together."""
    found = []
    for place, piece in enumerate(PIECES):
        known = {*PIECES[:place], *piece}
        cut = next(at for at in range(1, len(piece)) if {piece[:at], piece[at:]} <= known)
        found.append((piece[:cut], piece[cut:]))
    return found


def _gpt2(*controls: str) -> Callable[[Size, int], Legacy]:
    def model(size: Size, ftype: int) -> Legacy:
        tokens = byte_level(END, *controls)
        tokens += [f"<{number}>".encode() for number in range(len(tokens), size.vocabulary)]
        count, width = len(tokens), size.width
        numbers = (count, size.context, width, size.heads, size.layers, ftype, count)
        shapes: dict[str, Shape] = {
            "model/ln_f/g": (width,),
            "model/ln_f/b": (width,),
            "model/wte": (count, width),
            "model/wpe": (size.context, width),
        }
        for layer in range(size.layers):
            for name, rows, columns in (
                ("attn/c_attn", 3 * width, width),
                ("attn/c_proj", width, width),
                ("mlp/c_fc", 4 * width, width),
                ("mlp/c_proj", width, 4 * width),
            ):
                shapes |= {f"model/h{layer}/{name}/w": (rows, columns), f"model/h{layer}/{name}/b": (rows,)}
            shapes |= {f"model/h{layer}/ln_{part}": (width,) for part in ("1/g", "1/b", "2/g", "2/b")}
        return Legacy(b"lmgg" + struct.pack("<7i", *numbers) + b"".join(map(text, tokens)), shapes)

    return model


def _gptj(size: Size, ftype: int) -> Legacy:
    tokens, width = byte_level(END), size.width
    count = len(tokens)
    numbers = (count, size.context, width, size.heads, size.layers, size.head // 2, ftype, count)
    shapes: dict[str, Shape] = {
        "transformer.wte.weight": (count, width),
        "transformer.ln_f.weight": (width,),
        "transformer.ln_f.bias": (width,),
        "lm_head.weight": (count, width),
        "lm_head.bias": (count,),
    }
    for layer in range(size.layers):
        block = f"transformer.h.{layer}"
        shapes |= {f"{block}.ln_1.{part}": (width,) for part in ("weight", "bias")}
        shapes |= {f"{block}.attn.{part}_proj.weight": (width, width) for part in ("q", "k", "v", "out")}
        shapes |= {f"{block}.mlp.fc_in.weight": (4 * width, width), f"{block}.mlp.fc_in.bias": (4 * width,)}
        shapes |= {f"{block}.mlp.fc_out.weight": (width, 4 * width), f"{block}.mlp.fc_out.bias": (width,)}
    return Legacy(b"lmgg" + struct.pack("<8i", *numbers) + b"".join(map(text, tokens)), shapes)


def _gptneox(*controls: str) -> Callable[[Size, int], Legacy]:
    def model(size: Size, ftype: int) -> Legacy:
        tokens, width = byte_level(END, *controls), size.width
        count = len(tokens)
        numbers = (count, size.context, width, size.heads, size.layers, size.head // 4, 1, ftype)
        shapes: dict[str, Shape] = {
            "gpt_neox.embed_in.weight": (count, width),
            "gpt_neox.final_layer_norm.weight": (width,),
            "gpt_neox.final_layer_norm.bias": (width,),
            "embed_out.weight": (count, width),
        }
        for layer in range(size.layers):
            block = f"gpt_neox.layers.{layer}"
            for norm in ("input_layernorm", "post_attention_layernorm"):
                shapes |= {f"{block}.{norm}.{part}": (width,) for part in ("weight", "bias")}
            for name, rows, columns in (
                ("attention.query_key_value", 3 * width, width),
                ("attention.dense", width, width),
                ("mlp.dense_h_to_4h", 4 * width, width),
                ("mlp.dense_4h_to_h", width, 4 * width),
            ):
                shapes |= {f"{block}.{name}.weight": (rows, columns), f"{block}.{name}.bias": (rows,)}
        return Legacy(b"lmgg" + struct.pack("<8i", *numbers) + b"".join(map(text, tokens)), shapes)

    return model


def _mosaic(size: Size, count: int) -> dict[str, Shape]:
    """The tensors of MPT and Replit."""
    width = size.width
    shapes: dict[str, Shape] = {
        "transformer.wte.weight": (count, width),
        "transformer.norm_f.weight": (width,),
    }
    for layer in range(size.layers):
        block = f"transformer.blocks.{layer}"
        shapes |= {f"{block}.norm_{part}.weight": (width,) for part in (1, 2)}
        shapes[f"{block}.attn.Wqkv.weight"] = (3 * width, width)
        shapes[f"{block}.attn.out_proj.weight"] = (width, width)
        shapes[f"{block}.ffn.up_proj.weight"] = (4 * width, width)
        shapes[f"{block}.ffn.down_proj.weight"] = (width, 4 * width)
    return shapes


def _mpt(size: Size, ftype: int) -> Legacy:
    tokens = byte_level(END, "<|im_start|>", "<|im_end|>")
    numbers = (size.width, size.context, size.heads, size.layers, len(tokens))
    head = b"lmgg" + struct.pack("<5i2fi", *numbers, 8.0, 0.0, ftype)
    # A byte is written as the character of that number.
    texts = (text(token.decode("latin-1").encode()) for token in tokens)
    return Legacy(head + b"".join(texts), _mosaic(size, len(tokens)))


def _replit(size: Size, ftype: int) -> Legacy:
    texts = ["<unk>", END, "<|pad|>", *map(chr, range(10, 127)), *PIECES, BLANK + "ü"]
    tokens = [text.replace(" ", BLANK).encode() for text in texts]
    numbers = (size.width, size.context, size.heads, size.layers, len(tokens), ftype)
    return Legacy(b"lmgg" + struct.pack("<6i", *numbers) + _scored(tokens), _mosaic(size, len(tokens)))


def llama(size: Size, ftype: int, *, magic: bytes = b"tjgg", version: int = 3) -> Legacy:
    """A Llama in a file of any kind."""
    tokens = [" \u2047 ".encode(), b"", b"", *byte_level()]
    count, width, keys, multiple = len(tokens), size.width, size.width // size.groups, 64
    inner = -(-(8 * width // 3) // multiple) * multiple
    numbers = (count, width, multiple, size.heads, size.layers, size.head, ftype % 1000)
    shapes: dict[str, Shape] = {
        "tok_embeddings.weight": (count, width),
        "norm.weight": (width,),
        "output.weight": (count, width),
    }
    for layer in range(size.layers):
        block = f"layers.{layer}"
        shapes |= {f"{block}.{name}_norm.weight": (width,) for name in ("attention", "ffn")}
        shapes |= {f"{block}.attention.w{part}.weight": (width, width) for part in "qo"}
        shapes |= {f"{block}.attention.w{part}.weight": (keys, width) for part in "kv"}
        shapes |= {f"{block}.feed_forward.w{part}.weight": (inner, width) for part in "13"}
        shapes[f"{block}.feed_forward.w2.weight"] = (width, inner)
    head = magic + struct.pack("<8i", version, *numbers) + _scored(tokens)
    return Legacy(head, shapes, 32 if magic == b"tjgg" else 1)


def _falcon(size: Size, ftype: int) -> Legacy:
    names = (">>TITLE<<", ">>ABSTRACT<<", *(f">>{number}<<" for number in range(9)), END)
    tokens, width = [*map(str.encode, names), *byte_level()], size.width
    count = len(tokens)
    numbers = (10, count, width, size.heads, 1, size.layers, 7, ftype % 1000, len(PIECES))
    head = b"ccgg" + struct.pack("<9i", *numbers) + _scored(tokens) + struct.pack("<i", len(PIECES))
    letters = str.maketrans({chr(byte): letter for byte, letter in enumerate(byte_tokens())})
    for pair in merges():
        head += b"".join(text(half.translate(letters).encode()) for half in pair)
    shapes: dict[str, Shape] = {
        "transformer.word_embeddings.weight": (count, width),
        "transformer.ln_f.weight": (width,),
        "transformer.ln_f.bias": (width,),
        "lm_head.weight": (count, width),
    }
    for layer in range(size.layers):
        block = f"transformer.h.{layer}"
        shapes |= {f"{block}.input_layernorm.{part}": (width,) for part in ("weight", "bias")}
        shapes[f"{block}.self_attention.query_key_value.weight"] = (width + 2 * size.head, width)
        shapes[f"{block}.self_attention.dense.weight"] = (width, width)
        shapes[f"{block}.mlp.dense_h_to_4h.weight"] = (4 * width, width)
        shapes[f"{block}.mlp.dense_4h_to_h.weight"] = (width, 4 * width)
    return Legacy(head, shapes, 32)


FAMILIES: Mapping[str, Callable[[Size, int], Legacy]] = {
    "gpt2": _gpt2(),
    "starcoder": _gpt2("<|system|>", "<|user|>", "<|assistant|>", "<|end|>"),
    "gptj": _gptj,
    "gptneox": _gptneox(),
    "dollyv2": _gptneox("### End", "### Instruction:", "### Response:"),
    "mpt": _mpt,
    "replit": _replit,
    "llama": llama,
    "falcon": _falcon,
}

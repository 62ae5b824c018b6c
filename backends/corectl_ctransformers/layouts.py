"""How each family of models is laid out in files from before GGUF: the numbers, the vocabulary and the tensors.

These files do not say which family they are of. It shows: the numbers of one family make no sense as another's, and
tensors have the names that their family's first code gave them.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Literal

import msgspec

Shape = tuple[int, ...]
"""As files have them: the number of columns, then that of rows."""

MAX_LAYERS = 80
"""The library's graphs have room for 4,096 nodes, and a layer takes 51 at most."""

_MOST: Mapping[str, int] = {
    "vocabulary": 1 << 18,
    "context": 1 << 20,
    "width": 1 << 16,
    "heads": 1 << 10,
    "key_heads": 1 << 10,
    "layers": MAX_LAYERS,
    "rotary": 1 << 12,
    "multiple": 1 << 16,
    "merges": 1 << 17,
}
"""The largest number of each kind that is believed. The rest has meanings, not sizes."""

FILE_TYPES: Mapping[int, int] = {number: number for number in (*range(4), *range(10, 15))} | {
    7: 8,
    8: 6,
    9: 7,
}
"""The type of a file whose matrices are all of one type -> that type."""

FRACTIONS = ("Slope", "Clip")
"""Numbers with a fraction. All others are whole."""

QUANTIZATION = 1000
"""The type of a file has the version of its quantisation in the thousands."""


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """The numbers of a header. `context` and `rotary` (rotated values of a head) are 0 where a file does not say.

    `type` is the type of the whole file. The others are of one family only: `multiple` rounds Llama's inner layers,
    `kind` is 7 or 40 for the Falcon of that size, `groups` is how many queries share a key in a Llama.
    """

    vocabulary: int
    width: int
    heads: int
    layers: int
    type: int
    context: int = 0
    rotary: int = 0
    multiple: int = 0
    key_heads: int = 0
    kind: int = 0
    merges: int = 0
    groups: int = 1

    @property
    def head(self) -> int:
        """The width of one head."""
        return self.width // self.heads

    @property
    def plausible(self) -> bool:
        """Whether these can be the numbers of a model at all."""
        wanted = ("vocabulary", "width", "heads", "layers")
        return (
            all(0 <= getattr(self, name) <= most for name, most in _MOST.items())
            and all(getattr(self, name) > 0 for name in wanted)
            and self.width % self.heads == 0
            and self.rotary <= self.head
            and self.rotary % 2 == 0
        )


class Layout(msgspec.Struct, frozen=True, kw_only=True):
    """One family. `numbers` are the fields of `Sizes` in their order in the file; one that comes twice is equal.

    Fields that begin with a capital letter are read and not used. `loader` is what the library calls its code for such
    files, `also` are families that differ by nothing but a token that their vocabulary has. `text` says how that is
    written: `plain`, `scored` (with a number after each token), or `latin` (a byte is the letter of that number).
    `tensors` gives their shapes by name; `{}` stands for the number of each layer. `optional` ones may be missing.
    """

    family: str
    loader: str
    magic: str
    numbers: str
    tensors: Callable[[Sizes], dict[str, Shape]]
    text: Literal["plain", "scored", "latin"] = "plain"
    also: Mapping[bytes, str] = {}
    optional: tuple[str, ...] = ()
    merges: bool = False
    uniform: bool = True

    def expected(self, sizes: Sizes) -> dict[str, Shape]:
        """All tensors that a file may have, and no others."""
        found: dict[str, Shape] = {}
        for name, shape in self.tensors(sizes).items():
            found |= {name.format(layer): shape for layer in range(sizes.layers if "{}" in name else 1)}
        return found


def _gpt2(sizes: Sizes) -> dict[str, Shape]:
    width, inner = sizes.width, 4 * sizes.width
    return {
        "model/ln_f/g": (width,),
        "model/ln_f/b": (width,),
        "model/wte": (width, sizes.vocabulary),
        "model/wpe": (width, sizes.context),
        "model/lm_head": (width, sizes.vocabulary),
        "model/h{}/ln_1/g": (width,),
        "model/h{}/ln_1/b": (width,),
        "model/h{}/ln_2/g": (width,),
        "model/h{}/ln_2/b": (width,),
        "model/h{}/attn/c_attn/w": (width, 3 * width),
        "model/h{}/attn/c_attn/b": (3 * width,),
        "model/h{}/attn/c_proj/w": (width, width),
        "model/h{}/attn/c_proj/b": (width,),
        "model/h{}/mlp/c_fc/w": (width, inner),
        "model/h{}/mlp/c_fc/b": (inner,),
        "model/h{}/mlp/c_proj/w": (inner, width),
        "model/h{}/mlp/c_proj/b": (width,),
    }


def _gptj(sizes: Sizes) -> dict[str, Shape]:
    width, inner = sizes.width, 4 * sizes.width
    return {
        "transformer.wte.weight": (width, sizes.vocabulary),
        "transformer.ln_f.weight": (width,),
        "transformer.ln_f.bias": (width,),
        "lm_head.weight": (width, sizes.vocabulary),
        "lm_head.bias": (sizes.vocabulary,),
        "transformer.h.{}.ln_1.weight": (width,),
        "transformer.h.{}.ln_1.bias": (width,),
        "transformer.h.{}.attn.q_proj.weight": (width, width),
        "transformer.h.{}.attn.k_proj.weight": (width, width),
        "transformer.h.{}.attn.v_proj.weight": (width, width),
        "transformer.h.{}.attn.out_proj.weight": (width, width),
        "transformer.h.{}.mlp.fc_in.weight": (width, inner),
        "transformer.h.{}.mlp.fc_in.bias": (inner,),
        "transformer.h.{}.mlp.fc_out.weight": (inner, width),
        "transformer.h.{}.mlp.fc_out.bias": (width,),
    }


def _gptneox(sizes: Sizes) -> dict[str, Shape]:
    width, inner = sizes.width, 4 * sizes.width
    return {
        "gpt_neox.embed_in.weight": (width, sizes.vocabulary),
        "gpt_neox.final_layer_norm.weight": (width,),
        "gpt_neox.final_layer_norm.bias": (width,),
        "embed_out.weight": (width, sizes.vocabulary),
        "gpt_neox.layers.{}.input_layernorm.weight": (width,),
        "gpt_neox.layers.{}.input_layernorm.bias": (width,),
        "gpt_neox.layers.{}.attention.query_key_value.weight": (width, 3 * width),
        "gpt_neox.layers.{}.attention.query_key_value.bias": (3 * width,),
        "gpt_neox.layers.{}.attention.dense.weight": (width, width),
        "gpt_neox.layers.{}.attention.dense.bias": (width,),
        "gpt_neox.layers.{}.post_attention_layernorm.weight": (width,),
        "gpt_neox.layers.{}.post_attention_layernorm.bias": (width,),
        "gpt_neox.layers.{}.mlp.dense_h_to_4h.weight": (width, inner),
        "gpt_neox.layers.{}.mlp.dense_h_to_4h.bias": (inner,),
        "gpt_neox.layers.{}.mlp.dense_4h_to_h.weight": (inner, width),
        "gpt_neox.layers.{}.mlp.dense_4h_to_h.bias": (width,),
    }


def _mosaic(sizes: Sizes) -> dict[str, Shape]:
    width, inner = sizes.width, 4 * sizes.width
    return {
        "transformer.wte.weight": (width, sizes.vocabulary),
        "transformer.norm_f.weight": (width,),
        "transformer.blocks.{}.norm_1.weight": (width,),
        "transformer.blocks.{}.attn.Wqkv.weight": (width, 3 * width),
        "transformer.blocks.{}.attn.out_proj.weight": (width, width),
        "transformer.blocks.{}.norm_2.weight": (width,),
        "transformer.blocks.{}.ffn.up_proj.weight": (width, inner),
        "transformer.blocks.{}.ffn.down_proj.weight": (inner, width),
    }


def _llama(sizes: Sizes) -> dict[str, Shape]:
    width, keys, inner = sizes.width, sizes.width // sizes.groups, _llama_inner(sizes)
    return {
        "tok_embeddings.weight": (width, sizes.vocabulary),
        "norm.weight": (width,),
        "output.weight": (width, sizes.vocabulary),
        "layers.{}.attention_norm.weight": (width,),
        "layers.{}.attention.wq.weight": (width, width),
        "layers.{}.attention.wk.weight": (width, keys),
        "layers.{}.attention.wv.weight": (width, keys),
        "layers.{}.attention.wo.weight": (width, width),
        "layers.{}.ffn_norm.weight": (width,),
        "layers.{}.feed_forward.w1.weight": (width, inner),
        "layers.{}.feed_forward.w2.weight": (inner, width),
        "layers.{}.feed_forward.w3.weight": (width, inner),
    }


def _llama_inner(sizes: Sizes) -> int:
    """As Llama's own code rounds it. The largest one of the second generation is wider than the others."""
    inner = 8 * sizes.width // 3
    if sizes.layers == 80 and sizes.groups == 8:
        inner = int(1.3 * inner)
    return -(-inner // sizes.multiple) * sizes.multiple if sizes.multiple else inner


def _falcon(sizes: Sizes) -> dict[str, Shape]:
    width, inner = sizes.width, 4 * sizes.width
    norms = ("ln_mlp", "ln_attn") if sizes.kind == 40 else ("input_layernorm",)
    return {
        "transformer.word_embeddings.weight": (width, sizes.vocabulary),
        "transformer.ln_f.weight": (width,),
        "transformer.ln_f.bias": (width,),
        "lm_head.weight": (width, sizes.vocabulary),
        **{f"transformer.h.{{}}.{norm}.{part}": (width,) for norm in norms for part in ("weight", "bias")},
        "transformer.h.{}.self_attention.query_key_value.weight": (
            width,
            (sizes.heads + 2 * sizes.key_heads) * sizes.head,
        ),
        "transformer.h.{}.self_attention.dense.weight": (width, width),
        "transformer.h.{}.mlp.dense_h_to_4h.weight": (width, inner),
        "transformer.h.{}.mlp.dense_4h_to_h.weight": (inner, width),
    }


_STARCODER = dict.fromkeys((b"<fim_prefix>", b"<fim-prefix>", b"<|assistant|>"), "starcoder")

LAYOUTS: tuple[Layout, ...] = (
    Layout(
        family="gpt2",
        # The same model as in the library's code for GPT-2, in buffers that suffice for large ones too.
        loader="starcoder",
        magic="ggml",
        numbers="vocabulary context width heads layers type vocabulary",
        tensors=_gpt2,
        also=_STARCODER,
        optional=("model/lm_head",),
    ),
    Layout(
        family="gptj",
        loader="gptj",
        magic="ggml",
        numbers="vocabulary context width heads layers rotary type vocabulary",
        tensors=_gptj,
    ),
    Layout(
        family="gptneox",
        loader="gptneox",
        magic="ggml",
        numbers="vocabulary context width heads layers rotary Parallel type",
        tensors=_gptneox,
        also={b"### End": "dollyv2"},
    ),
    Layout(
        family="mpt",
        loader="mpt",
        magic="ggml",
        numbers="width context heads layers vocabulary Slope Clip type",
        tensors=_mosaic,
        text="latin",
    ),
    Layout(
        family="replit",
        loader="replit",
        magic="ggml",
        numbers="width context heads layers vocabulary type",
        tensors=_mosaic,
        text="scored",
    ),
    *(
        Layout(
            family="llama",
            loader="llama",
            magic=magic,
            numbers="vocabulary width multiple heads layers rotary type",
            tensors=_llama,
            text="scored",
            uniform=False,
        )
        for magic in ("ggmf", "ggjt")
    ),
    Layout(
        family="falcon",
        loader="falcon",
        magic="ggcc",
        numbers="vocabulary width heads key_heads layers kind type merges",
        tensors=_falcon,
        text="scored",
        merges=True,
        uniform=False,
    ),
)
"""All that is read here."""

"""A tiny language model with random weights, as for Qwen2-VL: its positions have three directions."""

from __future__ import annotations

import math
from pathlib import Path

import gguf
import numpy as np

WIDTH, HEADS, HIDDEN, LAYERS = 64, 4, 128, 2
SECTIONS = (2, 3, 3, 0)
SPECIALS = ("<|endoftext|>", "<|im_start|>", "<|im_end|>", "<|vision_start|>", "<|vision_end|>")


def write_tiny_qwen(path: Path) -> Path:
    """A GGUF file with a token for each byte, one more (llama.cpp wants one), and control tokens of the family."""
    writer = gguf.GGUFWriter(path, "qwen2vl")
    writer.add_context_length(4096)
    writer.add_embedding_length(WIDTH)
    writer.add_block_count(LAYERS)
    writer.add_feed_forward_length(HIDDEN)
    writer.add_head_count(HEADS)
    writer.add_head_count_kv(HEADS)
    writer.add_layer_norm_rms_eps(1e-6)
    writer.add_rope_freq_base(10_000.0)
    writer.add_rope_dimension_sections(list(SECTIONS))
    tokens = [*byte_tokens(), "Ġa", *SPECIALS]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    normal, control = gguf.TokenType.NORMAL, gguf.TokenType.CONTROL
    writer.add_token_types([normal] * 257 + [control] * len(SPECIALS))
    writer.add_token_merges(["Ġ a"])
    writer.add_eos_token_id(tokens.index("<|im_end|>"))
    writer.add_add_bos_token(False)
    random = np.random.default_rng(7)
    for name, shape in _shapes(len(tokens)).items():
        scale = 1 / math.sqrt(shape[-1]) if len(shape) > 1 else 0.1
        values = (random.standard_normal(shape) * scale).astype(np.float32)
        writer.add_tensor(name, 1 + values if "norm" in name else values)
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _shapes(vocabulary: int) -> dict[str, tuple[int, ...]]:
    shapes: dict[str, tuple[int, ...]] = {
        "token_embd.weight": (vocabulary, WIDTH),
        "output_norm.weight": (WIDTH,),
        "output.weight": (vocabulary, WIDTH),
    }
    for layer in range(LAYERS):
        block = f"blk.{layer}"
        shapes |= {f"{block}.{name}_norm.weight": (WIDTH,) for name in ("attn", "ffn")}
        shapes |= {f"{block}.attn_{part}.weight": (WIDTH, WIDTH) for part in ("q", "k", "v", "output")}
        shapes |= {f"{block}.attn_{part}.bias": (WIDTH,) for part in ("q", "k", "v")}
        shapes |= {f"{block}.ffn_{part}.weight": (HIDDEN, WIDTH) for part in ("gate", "up")}
        shapes[f"{block}.ffn_down.weight"] = (WIDTH, HIDDEN)
    return shapes


def byte_tokens() -> list[str]:
    """A printable character for each byte, as byte-level vocabularies write them."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    others = iter(range(256, 512))
    return [chr(byte) if byte in printable else chr(next(others)) for byte in range(256)]

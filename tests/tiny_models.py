"""Tiny language models of several architectures, with random weights: enough for llama.cpp to load."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np

from tests.tiny_qwen import byte_tokens

WIDTH, HIDDEN, LAYERS, HEADS = 256, 768, 4, 8
HEAD = WIDTH // HEADS
CONTEXT = 4096
VOCABULARY = 2048

Shapes = dict[str, tuple[int, ...]]


def write_tiny(path: Path, architecture: str) -> Path:
    """Writes a GGUF file of one of `ARCHITECTURES`."""
    numbers, layer = ARCHITECTURES[architecture]
    writer = gguf.GGUFWriter(path, architecture)
    for key, value in (COMMON | numbers).items():
        _add(writer, key if "." in key and key.startswith("tokenizer") else f"{architecture}.{key}", value)
    tokens = [*byte_tokens(), "Ġa", *(f"<{index}>" for index in range(VOCABULARY - 257))]
    writer.add_tokenizer_model("gpt2")
    writer.add_tokenizer_pre("qwen2")
    writer.add_token_list(tokens)
    writer.add_token_merges(["Ġ a"])
    writer.add_eos_token_id(300)
    writer.add_add_bos_token(False)
    random = np.random.default_rng(7)
    for name, shape in (_shapes(layer) | EXTRA.get(architecture, OUTPUT_NORM)).items():
        values = (random.standard_normal(shape) * 0.02).astype(np.float32)
        plain = len(shape) == 1 or name.endswith(("bias", "ssm_a")) or "conv" in name
        writer.add_tensor(name, values if plain else values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def _add(writer: gguf.GGUFWriter, key: str, value: Any) -> None:
    if isinstance(value, list):
        writer.add_array(key, value)
    elif isinstance(value, float):
        writer.add_float32(key, value)
    else:
        writer.add_uint32(key, value)


def _shapes(layer: Callable[[int], Shapes]) -> Shapes:
    found: Shapes = {"token_embd.weight": (VOCABULARY, WIDTH)}
    for index in range(LAYERS):
        found |= {f"blk.{index}.{name}": shape for name, shape in layer(index).items()}
    return {**found, "output.weight": (VOCABULARY, WIDTH)}


def _norms(*names: str, size: int = WIDTH) -> Shapes:
    return {f"{name}.weight": (size,) for name in names}


def _attention(groups: int) -> Shapes:
    return {
        "attn_q.weight": (WIDTH, WIDTH),
        "attn_k.weight": (groups * HEAD, WIDTH),
        "attn_v.weight": (groups * HEAD, WIDTH),
        "attn_output.weight": (WIDTH, WIDTH),
    }


def _feed_forward() -> Shapes:
    return {
        "ffn_gate.weight": (HIDDEN, WIDTH),
        "ffn_up.weight": (HIDDEN, WIDTH),
        "ffn_down.weight": (WIDTH, HIDDEN),
    }


def _experts(count: int, size: int) -> Shapes:
    return {
        "ffn_gate_inp.weight": (count, WIDTH),
        "ffn_gate_exps.weight": (count, size, WIDTH),
        "ffn_up_exps.weight": (count, size, WIDTH),
        "ffn_down_exps.weight": (count, WIDTH, size),
    }


def _llama(index: int) -> Shapes:
    return _norms("attn_norm", "ffn_norm") | _attention(2) | _feed_forward()


def _mixture(index: int) -> Shapes:
    return _norms("attn_norm", "ffn_norm") | _attention(2) | _experts(8, 256)


def _gpt_oss(index: int) -> Shapes:
    biases = {
        "attn_output.bias": (WIDTH,),
        "attn_sinks.weight": (HEADS,),
        "ffn_gate_inp.bias": (8,),
        "ffn_gate_exps.bias": (8, 256),
        "ffn_up_exps.bias": (8, 256),
        "ffn_down_exps.bias": (8, WIDTH),
    }
    biases |= {"attn_q.bias": (WIDTH,), "attn_k.bias": (2 * HEAD,), "attn_v.bias": (2 * HEAD,)}
    return _norms("attn_norm", "post_attention_norm") | _attention(2) | _experts(8, 256) | biases


def _gpt2(index: int) -> Shapes:
    norms = _norms("attn_norm", "ffn_norm")
    biases = {name.replace("weight", "bias"): shape for name, shape in norms.items()}
    return (
        norms
        | biases
        | {
            "attn_qkv.weight": (3 * WIDTH, WIDTH),
            "attn_qkv.bias": (3 * WIDTH,),
            "attn_output.weight": (WIDTH, WIDTH),
            "attn_output.bias": (WIDTH,),
            "ffn_up.weight": (HIDDEN, WIDTH),
            "ffn_up.bias": (HIDDEN,),
            "ffn_down.weight": (WIDTH, HIDDEN),
            "ffn_down.bias": (WIDTH,),
        }
    )


def _phi3(index: int) -> Shapes:
    return _norms("attn_norm", "ffn_norm") | {
        "attn_qkv.weight": (WIDTH + 4 * HEAD, WIDTH),
        "attn_output.weight": (WIDTH, WIDTH),
        "ffn_up.weight": (2 * HIDDEN, WIDTH),
        "ffn_down.weight": (WIDTH, HIDDEN),
    }


def _mamba(index: int) -> Shapes:
    inner, state, rank = 2 * WIDTH, 16, 16
    return _norms("attn_norm") | {
        "ssm_in.weight": (2 * inner, WIDTH),
        "ssm_conv1d.weight": (inner, 4),
        "ssm_conv1d.bias": (inner,),
        "ssm_x.weight": (rank + 2 * state, inner),
        "ssm_dt.weight": (inner, rank),
        "ssm_dt.bias": (inner,),
        "ssm_a": (inner, state),
        "ssm_d": (inner,),
        "ssm_out.weight": (WIDTH, inner),
    }


def _lfm2(index: int) -> Shapes:
    common = _norms("attn_norm", "ffn_norm") | _feed_forward()
    if index % 2:
        return common | _norms("attn_q_norm", "attn_k_norm", size=HEAD) | _attention(2)
    return common | {
        "shortconv.conv.weight": (WIDTH, 3),
        "shortconv.in_proj.weight": (3 * WIDTH, WIDTH),
        "shortconv.out_proj.weight": (WIDTH, WIDTH),
    }


def _deepseek2(index: int) -> Shapes:
    plain, rotary, latent = 32, 32, 64
    return (
        _norms("attn_norm", "ffn_norm")
        | _feed_forward()
        | {
            "attn_q.weight": (HEADS * (plain + rotary), WIDTH),
            "attn_kv_a_mqa.weight": (latent + rotary, WIDTH),
            "attn_kv_a_norm.weight": (latent,),
            "attn_k_b.weight": (HEADS, latent, plain),
            "attn_v_b.weight": (HEADS, plain, latent),
            "attn_output.weight": (WIDTH, HEADS * plain),
        }
    )


COMMON: dict[str, Any] = {
    "context_length": CONTEXT,
    "embedding_length": WIDTH,
    "block_count": LAYERS,
    "feed_forward_length": HIDDEN,
    "attention.head_count": HEADS,
    "attention.head_count_kv": 2,
    "attention.layer_norm_rms_epsilon": 1e-6,
    "attention.layer_norm_epsilon": 1e-6,
    "rope.freq_base": 10_000.0,
}
_EXPERTS = {"expert_count": 8, "expert_used_count": 2, "expert_feed_forward_length": 256}

ARCHITECTURES: dict[str, tuple[dict[str, Any], Callable[[int], Shapes]]] = {
    "llama": ({}, _llama),
    "qwen3moe": (_EXPERTS, lambda index: _mixture(index) | _norms("attn_q_norm", "attn_k_norm", size=HEAD)),
    "gpt-oss": ({**_EXPERTS, "attention.sliding_window": 128, "rope.dimension_count": HEAD}, _gpt_oss),
    "gpt2": ({"attention.head_count_kv": HEADS}, _gpt2),
    "phi3": ({"rope.dimension_count": HEAD, "rope.scaling.original_context_length": CONTEXT}, _phi3),
    "mamba": (
        {
            "attention.head_count": 0,
            "attention.head_count_kv": 0,
            "feed_forward_length": 0,
            "ssm.conv_kernel": 4,
            "ssm.inner_size": 2 * WIDTH,
            "ssm.state_size": 16,
            "ssm.time_step_rank": 16,
        },
        _mamba,
    ),
    "lfm2": ({"attention.head_count_kv": [0, 2, 0, 2], "shortconv.l_cache": 3}, _lfm2),
    "deepseek2": (
        {
            "attention.head_count_kv": 1,
            "attention.q_lora_rank": 0,
            "attention.kv_lora_rank": 64,
            "attention.key_length": 96,
            "attention.value_length": 64,
            "attention.key_length_mla": 64,
            "attention.value_length_mla": 32,
            "rope.dimension_count": 32,
            "leading_dense_block_count": LAYERS,
            "expert_count": 0,
            "expert_feed_forward_length": 64,
            "expert_shared_count": 0,
        },
        _deepseek2,
    ),
}
"""By GGUF's name: what the header has besides `COMMON` or instead of it, and the tensors of a layer."""

OUTPUT_NORM: Shapes = {"output_norm.weight": (WIDTH,)}
EXTRA: dict[str, Shapes] = {
    "gpt2": {**OUTPUT_NORM, "position_embd.weight": (CONTEXT, WIDTH), "output_norm.bias": (WIDTH,)},
    "lfm2": {"token_embd_norm.weight": (WIDTH,)},
}
"""Tensors outside of the layers, where it is not the usual one."""

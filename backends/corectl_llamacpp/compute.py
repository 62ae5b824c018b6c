"""The room that llama.cpp reserves for intermediate values: the largest step that the context may compute.

A graph's values are laid out so that those which are not needed at the same time share their place. What is needed at
once is largest in a feed-forward network, in attention without the flash kernel, or at the output.
"""

from __future__ import annotations

from collections.abc import Sequence

import msgspec

from corectl.model.gguf import Header
from corectl_llamacpp.layers import Layer


class Compute(msgspec.Struct, frozen=True, kw_only=True):
    """Bytes for the tokens of a step, for each cell, and for each of windows; `least` in all; on the `host` besides."""

    tokens: int
    cell: float
    window_cell: float
    least: int
    host: int


def compute_of(
    header: Header,
    layers: Sequence[Layer],
    *,
    tokens: int,
    sequences: int,
    outputs: int,
    vocabulary: int,
    flash_attention: bool,
    embedding: bool,
) -> Compute:
    """For a step of `tokens`, of which `outputs` give logits or a vector. Values have 4 bytes, but masks may have 2."""
    tokens = -(-tokens // sequences) * sequences
    width = header.number("embedding_length")
    scores = 0 if flash_attention else 4 * max((layer.heads for layer in layers), default=0)
    mask = 2 if flash_attention else 4
    forward = 4 * tokens * max(_feed_forward(header), _recurrence(header))
    forward += 4 * sequences * max((layer.state for layer in layers), default=0)
    work = 4 * tokens * _attention(header, layers) if scores else forward
    full = any(layer.values and not layer.window for layer in layers)
    windows = any(layer.window for layer in layers)
    if not full and not windows and not any(layer.state for layer in layers):
        # An encoder looks at the step's own tokens; and pooling has a weight for each token in each sequence.
        work += tokens * (tokens * (scores + mask) + 4 * sequences)
        outputs = 0
    return Compute(
        tokens=work,
        cell=tokens * (scores + mask) if full else 0,
        window_cell=tokens * (mask if full else scores + mask) if windows else 0,
        least=max(forward, 4 * outputs * (vocabulary + width)),
        host=4 * sequences * (vocabulary + (width if embedding else 0)),
    )


def _feed_forward(header: Header) -> int:
    """Values of one token that are needed together in the largest feed-forward network."""
    width = header.number("embedding_length")
    hidden = dict.fromkeys(
        ("ffn_gate", "ffn_up", "ffn_down", "ffn_up_exps", "ffn_gate_up_exps", "ffn_up_shexp"), 0
    )
    for tensor in header.tensors:
        part = tensor.name.removesuffix(".weight").rpartition(".")[2]
        if part in hidden and len(tensor.shape) > 1:
            hidden[part] = max(hidden[part], tensor.shape[part != "ffn_down"])
    experts = max(hidden["ffn_up_exps"], hidden["ffn_gate_up_exps"] // 2) * header.number("expert_used_count")
    # Some have the gate in the same tensor, which is twice as long then as what goes down.
    joined = hidden["ffn_down"] if hidden["ffn_up"] > hidden["ffn_down"] else 0
    gated = max(hidden["ffn_gate"], joined, experts + hidden["ffn_up_shexp"])
    encodes = header.of_architecture("attention.causal") is False
    return (3 * gated or hidden["ffn_up"]) + (3 if encodes else 4) * width


def _recurrence(header: Header) -> int:
    """The same in a layer with a state."""
    inner = header.number("ssm.inner_size")
    return 6 * inner + header.number("embedding_length") if inner else 0


def _attention(header: Header, layers: Sequence[Layer]) -> int:
    """Values of one token that are needed beside the scores."""
    width = header.number("embedding_length")
    heads = max((layer.heads for layer in layers), default=0)
    queries = heads * (header.number("attention.key_length") or (width // heads if heads else 0))
    keys = max((layer.values for layer in layers), default=0)
    return 3 * width + 2 * queries + keys

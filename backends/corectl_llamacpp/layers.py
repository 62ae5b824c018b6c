"""What each layer of a model remembers: keys and values of all tokens, of a window of them, or a state of fixed size.

Headers do not say all of it: which layers have a window is in the code of llama.cpp for many architectures.
"""

from __future__ import annotations

from typing import Any

import msgspec

from corectl.model.gguf import Header


class Layer(msgspec.Struct, frozen=True):
    """`values` of each token's key and value together, `window` in tokens (0: all), `state` values of each sequence.

    `heads` are those that look: without flash attention each has a score for each cell.
    """

    values: int = 0
    window: int = 0
    state: int = 0
    heads: int = 0


class _Windows(msgspec.Struct, frozen=True):
    """Of each `period` layers all but one have a window: all but the last, or all but the first.

    `size` holds where the header has none; `fixed` says that it always does.
    """

    period: int
    first: bool = False
    size: int = 0
    fixed: bool = False


_WINDOWS = {
    "afmoe": _Windows(4),
    "cohere2": _Windows(4),
    "cohere2moe": _Windows(4, first=True),
    "exaone-moe": _Windows(4, size=128),
    "exaone4": _Windows(4, size=4096),
    "gemma2": _Windows(2, size=4096),
    "gemma3": _Windows(6),
    "gemma3n": _Windows(5),
    "gemma4": _Windows(6),
    "gpt-oss": _Windows(2),
    "laguna": _Windows(4, first=True),
    "llama4": _Windows(4, size=8192, fixed=True),
    "mellum": _Windows(4),
    "mimo2": _Windows(6),
    "muse-glimmer": _Windows(4),
    "olmo2": _Windows(4),
    "plamo3": _Windows(8),
    "smallthinker": _Windows(4, first=True, size=4096, fixed=True),
    "step35": _Windows(4),
}
"""Architectures whose windows llama.cpp follows, with the pattern it falls back on. Others it computes in full."""

_LARGE_EXAONE = 64
_GEMMA3N_OWN = 20
"""Only so many layers of a Gemma 3n have keys and values; the others use theirs."""

_RECURRENT = (".ssm_", ".shortconv.", ".time_mix_")
_BOTH = ("falcon-h1",)
"""Architectures with attention and a state in each layer."""


def layers_of(header: Header) -> list[Layer]:
    """The layers of a checked header, in order. Those of an encoder remember nothing."""
    # The header is not to be believed: each layer has tensors.
    count = max(0, min(header.number("block_count"), len(header.tensors)))
    causal = header.of_architecture("attention.causal") is not False
    windows, recurrent = _windowed(header, count), _recurrent(header, count)
    own = _own(header, count)
    found = []
    for index in range(count):
        heads = per_layer(header, "attention.head_count", index)
        if not causal:
            found.append(Layer(heads=heads))
            continue
        window = windows[index]
        attends = index < own and (index not in recurrent or header.architecture in _BOTH)
        found.append(
            Layer(
                values=_values(header, index, heads, windowed=bool(window)) if attends else 0,
                window=window if attends else 0,
                state=_state(header, heads) if index in recurrent else 0,
                heads=heads if attends else 0,
            )
        )
    return found


def per_layer(header: Header, key: str, index: int, default: int = 0) -> int:
    """A whole number that may be one for all layers or one for each."""
    values = header.by_layer.get(f"{header.architecture}.{key}")
    value: Any = header.of_architecture(key)
    if values is not None:
        value = values[index] if index < len(values) else default
    return int(value) if isinstance(value, int) else default


def _values(header: Header, index: int, heads: int, *, windowed: bool) -> int:
    size = header.number("embedding_length") // heads if heads else 0
    key = header.number("attention.key_length") or size
    value = header.number("attention.value_length") or size
    if windowed:
        key = header.number("attention.key_length_swa") or key
        value = header.number("attention.value_length_swa") or value
    if header.number("attention.key_length_mla"):
        value = 0  # keys and values are kept together, compressed
    return per_layer(header, "attention.head_count_kv", index, heads) * (key + value)


def _own(header: Header, count: int) -> int:
    """How many layers have keys and values of their own."""
    if header.architecture == "gemma3n":
        return _GEMMA3N_OWN
    return count - header.number("attention.shared_kv_layers")


def _windowed(header: Header, count: int) -> list[int]:
    """The window of each layer in tokens."""
    known = _WINDOWS.get(header.architecture)
    size = header.of_architecture("attention.sliding_window")
    if known is None or size == 0 or (header.architecture == "exaone4" and count != _LARGE_EXAONE):
        return [_everywhere(header)] * count
    if size is None and header.architecture == "smallthinker":
        return [0] * count
    window = known.size if known.fixed or not isinstance(size, int) else size
    pattern = header.by_layer.get(f"{header.architecture}.attention.sliding_window_pattern")
    if pattern is not None and len(pattern) > 1:
        return [window if index < len(pattern) and pattern[index] else 0 for index in range(count)]
    listed = pattern[0] if pattern else header.of_architecture("attention.sliding_window_pattern")
    period = listed if type(listed) is int else known.period
    if period <= 0:
        return [window] * count
    dense = 0 if known.first else period - 1
    return [0 if index % period == dense else window for index in range(count)]


def _everywhere(header: Header) -> int:
    """The window of an architecture in which all layers that attend have one."""
    return header.number("attention.sliding_window") if header.architecture == "lfm2" else 0


def _recurrent(header: Header, count: int) -> set[int]:
    """The layers that have a state, told by their tensors."""
    names = (tensor.name for tensor in header.tensors if any(part in tensor.name for part in _RECURRENT))
    blocks = {name.split(".")[1] for name in names if name.startswith("blk.")}
    found = {int(block) for block in blocks if block.isdigit()}
    listed = header.by_layer.get(f"{header.architecture}.attention.recurrent_layers", ())
    return {index for index in found | {at for at, on in enumerate(listed) if on} if index < count}


def _state(header: Header, heads: int) -> int:
    """Values of one layer's state for one sequence: the last inputs of its convolution, and what it has gathered."""
    number = header.number
    width = number("embedding_length")
    if head := number("wkv.head_size"):
        return width * ((number("token_shift_count") or 2) + head)
    if kept := number("shortconv.l_cache"):
        return width * (kept - 1)
    kernel = number("ssm.conv_kernel")
    if head := number("kda.head_dim"):
        return heads * head * (3 * (kernel - 1 if kernel else 3) + head)
    inner, state = number("ssm.inner_size"), number("ssm.state_size")
    convolved = inner + 2 * number("ssm.group_count") * state
    return max(kernel - 1, 0) * convolved + state * inner

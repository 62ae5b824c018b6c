"""What a model takes in MLX, from its configuration and the sizes of its files."""

from __future__ import annotations

from fnmatch import fnmatchcase
from typing import Any

import msgspec

from corectl.model.hf import config_of, whole_number
from corectl.runner.engine import CacheShape, LayerMemory, MemoryEstimate, ModelSpec

WEIGHTS = "model*.safetensors"
"""What mlx-lm loads of a folder."""
SUFFIX = ".safetensors"

_WIDTHS = {"float32": 4, "float16": 2, "bfloat16": 2}

_LEFT_OUT = {
    name: {
        "num_attention_heads": heads,
        "num_key_value_heads": key_heads,
        "head_dim": 256,
        "vocab_size": 262144,
    }
    for name, heads, key_heads in (
        ("gemma3", 8, 4),
        ("gemma3_text", 4, 1),
        ("gemma4", 8, 1),
        ("gemma4_text", 8, 1),
    )
}
"""What configurations of these leave out because everybody knows it; mlx-lm does."""


class Sizes(msgspec.Struct, frozen=True, kw_only=True):
    """What of a model's configuration decides how much memory it takes. `value` is the bytes of a number in it."""

    layers: int
    width: int
    hidden: int
    heads: int
    key_heads: int
    head_size: int
    vocabulary: int
    value: int

    @property
    def cell(self) -> int:
        """Bytes that one token takes in the caches of all layers."""
        return 2 * self.layers * self.key_heads * self.head_size * self.value


def sizes_of(config: dict[str, Any]) -> Sizes:
    """Numbers that a configuration leaves out, and nobody knows, count as small as they can be."""
    text, known = config.get("text_config"), _LEFT_OUT.get(str(config.get("model_type")), {})
    config = {**known, **config, **(text if isinstance(text, dict) else {})}

    def number(key: str, default: int = 1) -> int:
        return whole_number(config.get(key)) or default

    width, heads = number("hidden_size"), number("num_attention_heads")
    kind = config.get("torch_dtype") or config.get("dtype")
    return Sizes(
        layers=number("num_hidden_layers"),
        width=width,
        hidden=number("intermediate_size", 4 * width),
        heads=heads,
        key_heads=number("num_key_value_heads", heads),
        head_size=number("head_dim", max(1, width // heads)),
        vocabulary=number("vocab_size"),
        value=_WIDTHS.get(str(kind), 2),
    )


def estimate(model: ModelSpec, shape: CacheShape) -> MemoryEstimate:
    """One layer that holds all: MLX does not divide a model between devices. Raises `BadModelFile`."""
    sizes = sizes_of(config_of(model))
    loaded = [path for name, path in model.named.items() if fnmatchcase(name, WEIGHTS) and "/" not in name]
    loaded += [path for name, path in model.adapter_named.items() if name.endswith(SUFFIX)]
    weights = sum(path.stat().st_size for path in loaded)
    forward = sizes.value * shape.num_batch * (4 * sizes.width + 3 * sizes.hidden)
    logits = 4 * shape.max_sequences * sizes.vocabulary * 2
    return MemoryEstimate(
        layers=(LayerMemory(weights=weights, cell=sizes.cell),),
        # Scores are not stored where the fused kernel runs; masks are.
        compute=forward + logits,
        compute_cell=shape.num_batch,
    )

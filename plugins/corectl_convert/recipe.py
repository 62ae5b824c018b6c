"""What a family of architectures is, as data: which tensors a checkpoint has, their sizes, and what becomes of them."""

from __future__ import annotations

from collections.abc import Callable, Mapping

import msgspec

from corectl_convert.fields import Fields

Value = bool | int | float | str | list[str] | list[int] | list[float] | list[bool] | bytes
"""What a key of a GGUF file holds. Whole numbers are 32 bits wide and have no sign, others are 32 bits wide."""


class Weight(msgspec.Struct, frozen=True):
    """A tensor of a checkpoint. `shape` is as there, the slowest dimension first.

    `heads` says of how many heads the rows are, where each head's halves are to be interleaved: llama.cpp rotates
    neighbours, where transformers rotates halves. `add` is added to each value. The first `skip` rows are left out.
    `experts` tensors of this shape, whose names have `{expert}`, become one.
    """

    shape: tuple[int, ...]
    optional: bool = False
    heads: int = 0
    add: float = 0.0
    skip: int = 0
    experts: int = 0
    target: str = ""
    """The name that it is looked up by, where that is not its own."""


class Recipe(msgspec.Struct, frozen=True, kw_only=True):
    """How a checkpoint is converted.

    `architecture` is GGUF's name, `metadata` has keys below it. `weights` are by names without any of `prefixes`, the
    first of which that matches is taken away; `root` is put before them to find GGUF's name. `vocabulary` is the
    number of rows of the embedding. Tensors that match a pattern of `ignored` are not needed. `factors` are tensors
    that the configuration gives. `pooled` models give vectors, and no text. `tokenizers` are GGUF's names of those
    that they may have.
    """

    architecture: str
    metadata: Mapping[str, Value]
    vocabulary: int
    weights: Mapping[str, Weight]
    prefixes: tuple[str, ...]
    root: str = "model."
    ignored: tuple[str, ...] = ()
    factors: Mapping[str, list[float]] = {}
    pooled: bool = False
    tokenizers: tuple[str, ...] = ("gpt2", "llama")


Describe = Callable[[Fields], Recipe]
"""Makes the recipe of a configuration. Raises `BadModelFile`, and `NotSupported` for what llama.cpp cannot compute."""


def in_layers(count: int, weights: Mapping[str, Weight], pattern: str = "layers.{}.") -> dict[str, Weight]:
    """The tensors of one layer, for each of them."""
    found = {}
    for prefix in (pattern.format(index) for index in range(count)):
        for name, weight in weights.items():
            target = f"{prefix}{weight.target}" if weight.target else ""
            found[prefix + name] = msgspec.structs.replace(weight, target=target)
    return found

"""From a recipe and a checkpoint to the tensors of a GGUF file: what each is called, and where its values come from."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from functools import partial

import gguf
import numpy as np

from corectl.errors import BadModelFile, NotSupported
from corectl_convert.checkpoint import TYPES, Checkpoint
from corectl_convert.recipe import Recipe, Weight
from corectl_convert.tensors import Array, Kind, Tensor

_LAYER = re.compile(r"\.[0-9]{1,9}\.")

PLAIN = (".ffn_gate_inp.weight", "_norm.weight", "position_embd.weight", "token_types.weight")
"""How tensors end that llama.cpp wants in 32 bits, besides those of one dimension."""


def interleaved(rows: Array, head: int) -> Array:
    """Rows of heads of a size, whose second halves lay after the first ones, in turns."""
    return rows.reshape(-1, 2, head // 2, *rows.shape[1:]).swapaxes(1, 2).reshape(rows.shape)


def planned(recipe: Recipe, checkpoint: Checkpoint, kind: Kind) -> list[Tensor]:
    """What a file gets, with weights of a `kind`.

    Raises `BadModelFile` for tensors that are missing, have another shape than the configuration says, or are not
    known for the architecture.
    """
    names = _canonical(recipe, checkpoint)
    found = [_given(name, values) for name, values in recipe.factors.items()]
    targets = Names(recipe.architecture)
    for name, weight in recipe.weights.items():
        parts = [name.replace("{expert}", str(index)) for index in range(weight.experts or 1)]
        if weight.optional and parts[0] not in names:
            continue
        sources = tuple(names.pop(part, "") for part in parts)
        for part, source in zip(parts, sources, strict=True):
            _check(checkpoint, part, source, weight)
        shape = (weight.shape[0] - weight.skip, *weight.shape[1:])
        if weight.experts:
            shape = (weight.experts, *shape)
        target = targets.find(weight.target or recipe.root + name)
        found.append(
            Tensor(target, shape, _kind(target, shape, kind), partial(_read, checkpoint, sources, weight))
        )
    if names:
        name, source = next(iter(names.items()))
        raise BadModelFile(
            f"{checkpoint.tensors[source].file}: the tensor {name!r:.200} is not known for this architecture, "
            f"or is of a layer beyond those in config.json"
        )
    return found


def _given(name: str, values: list[float]) -> Tensor:
    return Tensor(name, (len(values),), "F32", lambda: iter([np.array(values, np.float32)]))


def _read(checkpoint: Checkpoint, sources: Sequence[str], weight: Weight) -> Iterator[Array]:
    """The values of tensors that come one after another, as they are in a GGUF file."""
    head = weight.shape[0] // weight.heads if weight.heads else 1
    for source in sources:
        for values in checkpoint.rows(source, weight.skip, multiple=head):
            if weight.heads:
                values = interleaved(values, head)
            yield values.astype(np.float32) + np.float32(weight.add) if weight.add else values


class Names:
    """GGUF's names for those of checkpoints of an architecture."""

    def __init__(self, architecture: str) -> None:
        number = next(number for number, name in gguf.MODEL_ARCH_NAMES.items() if name == architecture)
        # For one layer: a map for a thousand of them takes seconds to make.
        self._map = gguf.get_tensor_name_map(number, 1)

    def find(self, name: str) -> str:
        """Raises `BadModelFile` for a name that is not known."""
        layer = _LAYER.search(name)
        found = self._map.get_name(_LAYER.sub(".0.", name, count=1), try_suffixes=(".weight", ".bias"))
        if found is None:
            raise BadModelFile(f"the tensor {name!r:.200} is not known for this architecture")
        return str(found).replace("blk.0.", f"blk{layer[0]}", 1) if layer else str(found)


def _canonical(recipe: Recipe, checkpoint: Checkpoint) -> dict[str, str]:
    """The names in a checkpoint by those that recipes have, without those that are not needed."""
    ignored = [re.compile(pattern) for pattern in recipe.ignored]
    found: dict[str, str] = {}
    for source, stored in checkpoint.tensors.items():
        name = source
        if any(pattern.search(name) for pattern in ignored):
            continue
        prefix = next((prefix for prefix in recipe.prefixes if name.startswith(prefix)), "")
        name = re.sub(r"\.gamma$", ".weight", re.sub(r"\.beta$", ".bias", name.removeprefix(prefix)))
        if any(pattern.search(name) for pattern in ignored):
            continue
        if name == "lm_head.weight" and name not in recipe.weights:
            continue  # the same as the embedding
        if name in found:
            raise BadModelFile(
                f"{stored.file}: the tensors {source!r:.200} and {found[name]!r:.200} are the same one"
            )
        found[name] = source
    return found


def _check(checkpoint: Checkpoint, name: str, source: str, weight: Weight) -> None:
    if not source:
        raise BadModelFile(f"the safetensors files lack the tensor {name!r:.200}")
    stored = checkpoint.tensors[source]
    if stored.shape != weight.shape:
        raise BadModelFile(
            f"{stored.file}: the tensor {source!r:.200} has the shape {list(stored.shape)!r:.80}, "
            f"config.json says {list(weight.shape)}"
        )
    if stored.dtype not in TYPES:
        raise NotSupported(f"{stored.file}: weights of the type {stored.dtype:.20} cannot be converted")


def _kind(name: str, shape: tuple[int, ...], kind: Kind) -> Kind:
    return "F32" if len(shape) < 2 or name.endswith(PLAIN) else kind

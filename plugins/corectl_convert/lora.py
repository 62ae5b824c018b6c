"""Converts LoRA adapters of PEFT and of MLX to a GGUF adapter for a model that is GGUF already."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from pathlib import Path

import msgspec
import numpy as np

from corectl.errors import BadModelFile, NotSupported
from corectl.model.conversion import Done
from corectl.model.files import ModelFiles
from corectl.model.gguf import TensorInfo, read_header
from corectl.model.hf import config_of
from corectl_convert.checkpoint import SUFFIX, TYPES, Checkpoint
from corectl_convert.fields import Fields
from corectl_convert.plan import Names, interleaved
from corectl_convert.recipe import Value
from corectl_convert.tensors import FILE_TYPES, Array, Tensor
from corectl_convert.writer import write

CONFIG = "adapter_config.json"
NAMES = ("adapter_model.safetensors", "adapters.safetensors")
"""What PEFT and MLX call the file."""

BASES = ("llama", "gemma", "gemma2", "gemma3", "phi3", "qwen2", "qwen3")
"""Architectures of models that an adapter is converted for."""

BEGINNINGS = ("gaussian", "eva", "orthogonal", "mica")
"""Ways to begin a training that leave the weights of the model as they are, by PEFT's names."""

MAX_RANK = 1 << 14

_PEFT = re.compile(r"(?:base_model\.model\.)?(?P<name>.+)\.lora_(?P<side>[AB])(?:\.default)?\.weight")
_MLX = re.compile(r"(?P<name>.+)\.lora_(?P<side>[ab])")
_PLAIN = re.compile(r"[\w.-]+")
_PREFIX = re.compile(r"^(?:model\.)?(?:language_model\.)?(?:model\.)?")


class Base(msgspec.Struct, frozen=True):
    """What an adapter is for. `heads` are those of queries and of keys."""

    architecture: str
    heads: tuple[int, int]
    tensors: dict[str, TensorInfo]


class Style(msgspec.Struct, frozen=True):
    """Where an adapter comes from. MLX has its factors the other way round."""

    mlx: bool
    config: Fields

    def scale(self, name: str, rank: int) -> float:
        """By what the product of the two factors is multiplied, for a module of a name.

        In PEFT the first pattern that matches counts.
        """
        if self.mlx:
            return self.config.section("lora_parameters").real("scale", 20.0, least=-1e6, most=1e6)
        alpha = self.config.real("lora_alpha", 8.0, least=-1e6, most=1e6)
        section = self.config.section("alpha_pattern")
        for pattern in section.names():
            if not _PLAIN.fullmatch(pattern):
                raise NotSupported(
                    f"{CONFIG}: alpha_pattern with the expression {pattern!r:.80} cannot be converted"
                )
            if name == pattern or name.endswith(f".{pattern}"):
                alpha = section.real(pattern, least=-1e6, most=1e6)
                break
        return alpha / (math.sqrt(rank) if self.config.flag("use_rslora", False) else rank)


class Pair(msgspec.Struct, frozen=True):
    """The two factors for one tensor of the base, and where its rows are heads, how many."""

    name: str
    first: str
    second: str
    rank: int
    scale: float
    mlx: bool
    heads: int


def convert_adapter(adapter: ModelFiles, base: ModelFiles, path: Path, done: Done) -> None:
    """Raises `BadModelFile`, `NotSupported`, `OSError`."""
    model = _base(base)
    style = _style(adapter)
    checkpoint = Checkpoint(adapter, (_weights(adapter),))
    pairs = _pairs(model, style, checkpoint)
    metadata: dict[str, Value] = {
        "general.type": "adapter",
        "adapter.type": "lora",
        # llama.cpp divides by the rank of each pair. The second factors have what else there is.
        "adapter.lora.alpha": float(pairs[0].rank),
        "general.file_type": FILE_TYPES["F32"],
    }
    tensors = [tensor for pair in pairs for tensor in _tensors(pair, pairs[0].rank, checkpoint)]
    write(path, model.architecture, metadata, tensors, done)


def _base(files: ModelFiles) -> Base:
    """Raises `BadModelFile`, and `NotSupported` for an architecture that adapters are not converted for."""
    headers = [read_header(path) for path in sorted({files.weights, *files.named.values()})]
    header = next((header for header in headers if header.architecture), headers[0])
    if header.architecture not in BASES:
        raise NotSupported(
            f"an adapter for a model of the architecture {header.architecture!r:.40} cannot be converted"
        )
    heads = header.number("attention.head_count")
    return Base(
        header.architecture,
        (heads, header.number("attention.head_count_kv") or heads),
        {tensor.name: tensor for header in headers for tensor in header.tensors},
    )


def _weights(files: ModelFiles) -> str:
    found = [name for name in files.named if name.endswith(SUFFIX) and "/" not in name]
    known = [name for name in NAMES if name in found]
    if not known and len(found) != 1:
        raise BadModelFile(f"the adapter has neither {NAMES[0]} nor {NAMES[1]}")
    return (known or found)[0]


def _style(files: ModelFiles) -> Style:
    config = Fields(CONFIG, config_of(files, CONFIG))
    if config.has("peft_type"):
        _check_peft(config)
        return Style(mlx=False, config=config)
    if config.has("lora_parameters"):
        kind = config.text("fine_tune_type", "lora")
        if kind != "lora":
            raise NotSupported(f"{CONFIG}: fine_tune_type {kind!r:.40} cannot be converted, only lora")
        return Style(mlx=True, config=config)
    raise BadModelFile(
        f"{CONFIG}: neither peft_type nor lora_parameters is there, so it is none of PEFT or MLX"
    )


def _check_peft(config: Fields) -> None:
    if config.text("peft_type") != "LORA":
        raise NotSupported(
            f"{CONFIG}: peft_type {config.text('peft_type')!r:.40} cannot be converted, only LORA"
        )
    for key in ("use_dora", "fan_in_fan_out", "use_qalora"):
        if config.flag(key, False):
            raise NotSupported(f"{CONFIG}: an adapter with {key} cannot be converted")
    for key in (
        "modules_to_save",
        "trainable_token_indices",
        "megatron_config",
        "alora_invocation_tokens",
        "layer_replication",
    ):
        if config.get(key):
            raise NotSupported(f"{CONFIG}: an adapter with {key} cannot be converted")
    beginning = config.get("init_lora_weights")
    if beginning is not None and not isinstance(beginning, bool):
        name = config.text("init_lora_weights")
        if name.lower() not in BEGINNINGS:
            raise NotSupported(
                f"{CONFIG}: init_lora_weights {name!r:.40}: the adapter belongs to weights that were changed when "
                "its training began, and cannot be converted"
            )
    if config.text("bias", "none") != "none":
        raise NotSupported(f"{CONFIG}: an adapter with bias cannot be converted")


def _pairs(base: Base, style: Style, checkpoint: Checkpoint) -> list[Pair]:
    """Both factors of each tensor, checked against the model. Raises `BadModelFile`."""
    pattern = _MLX if style.mlx else _PEFT
    sides: dict[str, dict[str, str]] = {}
    for source, stored in checkpoint.tensors.items():
        match = pattern.fullmatch(source)
        if match is None:
            raise NotSupported(f"{stored.file}: the tensor {source!r:.200} is no factor of a linear layer")
        if stored.dtype not in TYPES or len(stored.shape) != 2:
            raise BadModelFile(f"{stored.file}: the tensor {source!r:.200} is no matrix of F32, F16 or BF16")
        if sides.setdefault(match["name"], {}).setdefault(match["side"].lower(), source) != source:
            raise BadModelFile(f"{stored.file}: the tensor {source!r:.200} is there twice")
    names = Names(base.architecture)
    return [_pair(base, names, style, checkpoint, name, found) for name, found in sorted(sides.items())]


def _pair(
    base: Base,
    names: Names,
    style: Style,
    checkpoint: Checkpoint,
    name: str,
    sides: dict[str, str],
) -> Pair:
    if len(sides) < 2:
        raise BadModelFile(f"the adapter has one of the two factors of {name!r:.200} only")
    plain = _PREFIX.sub("", name)
    target = names.find(f"model.{plain}.weight")
    tensor = base.tensors.get(target)
    if tensor is None:
        raise BadModelFile(f"the adapter is for {name!r:.200}, and the model has no tensor {target}")
    first, second = (checkpoint.tensors[sides[side]].shape for side in "ab")
    if style.mlx:
        first, second = first[::-1], second[::-1]
    rank = first[0]
    if rank != second[1] or not 1 <= rank <= MAX_RANK:
        raise BadModelFile(f"the factors of {name!r:.200} do not have the same rank")
    if (first[1], second[0]) != tensor.shape:
        raise BadModelFile(
            f"the adapter changes {name!r:.200} from {first[1]} to {second[0]} values, "
            f"and {target} of the model has the shape {list(tensor.shape)}"
        )
    rows = {"q_proj": base.heads[0], "k_proj": base.heads[1]}.get(plain.rpartition(".")[2], 0)
    heads = rows if base.architecture == "llama" else 0
    if heads and second[0] % (2 * heads):
        raise BadModelFile(f"the model's heads do not divide the rows of {target}")
    return Pair(target, sides["a"], sides["b"], rank, style.scale(plain, rank), style.mlx, heads)


def _tensors(pair: Pair, rank: int, checkpoint: Checkpoint) -> list[Tensor]:
    """The two of a pair, the second one made larger or smaller, so that the scale is right for all of a file."""

    def first() -> Iterator[Array]:
        yield _whole(checkpoint, pair.first, turned=pair.mlx)

    def second() -> Iterator[Array]:
        with np.errstate(over="ignore"):
            values = _whole(checkpoint, pair.second, turned=pair.mlx) * np.float32(
                pair.scale * pair.rank / rank
            )
        if not np.isfinite(values).all():
            raise BadModelFile(
                f"the tensor {pair.second!r:.200} has values that are no numbers, or too large"
            )
        yield interleaved(values, len(values) // pair.heads) if pair.heads else values

    shapes = [checkpoint.tensors[name].shape for name in (pair.first, pair.second)]
    if pair.mlx:
        shapes = [shape[::-1] for shape in shapes]
    return [
        Tensor(f"{pair.name}.lora_a", shapes[0], "F32", first),
        Tensor(f"{pair.name}.lora_b", shapes[1], "F32", second),
    ]


def _whole(checkpoint: Checkpoint, name: str, *, turned: bool) -> Array:
    """A factor, in 32 bits. They are thin."""
    values = np.concatenate(list(checkpoint.rows(name))).astype(np.float32)
    return values.T if turned else values

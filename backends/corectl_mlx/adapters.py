"""Applies LoRA adapters to a model: MLX's own, and those of the library PEFT. In the runner process."""

from __future__ import annotations

import re
from typing import Any

import mlx.core as mx
import msgspec
from mlx.utils import tree_unflatten
from mlx_lm.tuner.lora import LoRALinear

from corectl.errors import BadModelFile, LoadFailed
from corectl.model.files import ModelFiles
from corectl.model.hf import config_of, whole_number

CONFIG = "adapter_config.json"
SUFFIX = ".safetensors"

_PEFT_NAME = re.compile(r"base_model\.model\.(.+)\.lora_([AB])(?:\.default)?\.weight")
_MLX_NAME = re.compile(r"(.+)\.lora_([ab])")


class _Update(msgspec.Struct):
    """What is added to one layer: `a` is inputs by rank, `b` rank by outputs."""

    a: Any = None
    b: Any = None


def apply(model: Any, adapter: ModelFiles) -> None:
    """Adds an adapter to a model's layers, in place. Raises `LoadFailed` and `BadModelFile`."""
    config = config_of(adapter, CONFIG)
    updates, scale = _of_mlx(adapter, config) if "lora_parameters" in config else _of_peft(adapter, config)
    modules, changed = dict(model.named_modules()), []
    for name, update in updates.items():
        linear = modules.get(name)
        if linear is None or update.a is None or update.b is None or not hasattr(linear, "weight"):
            raise LoadFailed(
                f"the adapter does not fit the model: {name[:200]!r} is no layer of it, or incomplete"
            )
        layer = LoRALinear.from_base(linear, r=update.a.shape[1], scale=scale)
        if (update.a.shape, update.b.shape) != (layer.lora_a.shape, layer.lora_b.shape):
            raise LoadFailed(f"the adapter does not fit the model: {name[:200]!r} has another size")
        layer.lora_a, layer.lora_b = update.a, update.b
        changed.append((name, layer))
    if not changed:
        raise LoadFailed("the adapter changes no layer; only LoRA adapters can be applied")
    model.update_modules(tree_unflatten(changed))
    mx.eval(model.parameters())


def _of_mlx(adapter: ModelFiles, config: dict[str, Any]) -> tuple[dict[str, _Update], float]:
    kind = config.get("fine_tune_type", "lora")
    if kind != "lora":
        raise LoadFailed(f"the adapter is of the type {str(kind)[:32]!r}; only LoRA adapters can be applied")
    scale = config["lora_parameters"].get("scale") if isinstance(config["lora_parameters"], dict) else None
    if not isinstance(scale, int | float):
        raise BadModelFile(f"{CONFIG} does not say the scale of the adapter")
    updates: dict[str, _Update] = {}
    for name, values in _arrays(adapter).items():
        if (found := _MLX_NAME.fullmatch(name)) is None:
            raise LoadFailed(f"the adapter has a part that is not known: {name[:200]!r}")
        setattr(updates.setdefault(found[1], _Update()), found[2], values)
    return updates, float(scale)


def _of_peft(adapter: ModelFiles, config: dict[str, Any]) -> tuple[dict[str, _Update], float]:
    rank, alpha = whole_number(config.get("r")), config.get("lora_alpha")
    if config.get("peft_type") != "LORA" or not rank or not isinstance(alpha, int | float):
        raise LoadFailed(
            "the adapter is no LoRA adapter with a rank and a lora_alpha; no other can be applied"
        )
    for option in ("use_dora", "use_rslora", "rank_pattern", "alpha_pattern"):
        if config.get(option):
            raise LoadFailed(f"the adapter was made with {option}, which cannot be applied")
    updates: dict[str, _Update] = {}
    for name, values in _arrays(adapter).items():
        if (found := _PEFT_NAME.fullmatch(name)) is None:
            raise LoadFailed(f"the adapter has a part that is not known: {name[:200]!r}")
        # PEFT multiplies from the other side.
        setattr(updates.setdefault(found[1], _Update()), found[2].lower(), values.T)
    return updates, alpha / rank


def _arrays(adapter: ModelFiles) -> dict[str, Any]:
    found: dict[str, Any] = {}
    for name, path in adapter.named.items():
        if name.endswith(SUFFIX):
            try:
                found |= mx.load(str(path), format="safetensors")
            except Exception as exc:
                raise LoadFailed(f"the adapter cannot be read: {name}: {str(exc)[:200]}") from exc
    return found

"""Makes a model's weights smaller, as MLX does. In a process of its own."""

from __future__ import annotations

import shutil
from pathlib import Path
from typing import TYPE_CHECKING

from mlx_lm.utils import load_model, quantize_model, save_config, save_model

from corectl.errors import BadRequest, LoadFailed
from corectl.model.files import ModelFiles, folder_of
from corectl.model.hf import config_of

if TYPE_CHECKING:
    from corectl_mlx.backend import Quantization

SUFFIX = ".safetensors"
OF_WEIGHTS = ("config.json", "model.safetensors.index.json")
"""What is written anew with the weights."""


def write_quantized(files: ModelFiles, target: Quantization, folder: Path) -> None:
    """Raises `BadRequest` for weights that are quantised, and `LoadFailed` with what MLX says."""
    if "quantization" in config_of(files):
        raise BadRequest("quantization is only supported for F16, BF16 and F32 models")
    with folder_of(files) as source:
        try:
            model, config = load_model(source, lazy=True, trust_remote_code=False)
            model, config = quantize_model(model, config, None, target.bits, mode=target.mode)
            save_model(folder, model, donate_model=True)
            save_config(config, folder / "config.json")
        except Exception as exc:
            reason = f"{type(exc).__name__}: {str(exc)[:300]}"
            raise LoadFailed(f"MLX cannot quantise the model: {reason}") from exc
    for name, path in files.named.items():
        if not name.endswith(SUFFIX) and name not in OF_WEIGHTS:
            place = folder / name
            place.parent.mkdir(parents=True, exist_ok=True)
            shutil.copyfile(path, place)

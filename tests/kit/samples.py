"""A small sound model of each format, for the suites of formats."""

from __future__ import annotations

import json
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from corectl.model.files import ModelFiles
from tests.backends.conftest import EMBEDDER


def gguf(folder: Path) -> ModelFiles:
    return ModelFiles(weights=EMBEDDER)


def safetensors(folder: Path) -> ModelFiles:
    config = {"model_type": "llama", "max_position_embeddings": 256, "hidden_size": 4}
    files = {name: folder / name for name in ("config.json", "model.safetensors")}
    files["config.json"].write_text(json.dumps(config))
    save_file({"w": np.zeros((3, 4), np.float16)}, files["model.safetensors"])
    return ModelFiles(weights=files["model.safetensors"], named=files)


SAMPLES: dict[str, Callable[[Path], ModelFiles]] = {"gguf": gguf, "safetensors": safetensors}
"""By the format's name; each writes into the folder that it is given."""

"""A small sound model of each format, and a place where one is found, for the suites."""

from __future__ import annotations

import hashlib
import json
import os
from collections.abc import Callable
from pathlib import Path

import numpy as np
from safetensors.numpy import save_file

from corectl.model.files import ModelFiles
from tests.backends.conftest import EMBEDDER
from tests.legacy_ggml import write_ggml
from tests.onnx_file import onnx, tensor, write


def gguf(folder: Path) -> ModelFiles:
    return ModelFiles(weights=EMBEDDER)


def safetensors(folder: Path) -> ModelFiles:
    config = {"model_type": "llama", "max_position_embeddings": 256, "hidden_size": 4}
    files = {name: folder / name for name in ("config.json", "model.safetensors")}
    files["config.json"].write_text(json.dumps(config))
    save_file({"w": np.zeros((3, 4), np.float16)}, files["model.safetensors"])
    return ModelFiles(weights=files["model.safetensors"], named=files)


def ggml(folder: Path) -> ModelFiles:
    return ModelFiles(weights=write_ggml(folder / "ggml-model-f32.bin"))


def onnx_genai(folder: Path) -> ModelFiles:
    return write(folder, onnx(tensor("w", (4, 8), raw=bytes(128))))


SAMPLES: dict[str, Callable[[Path], ModelFiles]] = {
    "gguf": gguf,
    "safetensors": safetensors,
    "ggml": ggml,
    "onnx-genai": onnx_genai,
}
"""By the format's name; each writes into the folder that it is given."""


def hugging_face_cache(folder: Path) -> None:
    """A cache as huggingface_hub lays it out, with one model."""
    model = folder / "models--somebody--small"
    snapshot = model / "snapshots" / ("a" * 40)
    for place in (snapshot, model / "refs", model / "blobs"):
        place.mkdir(parents=True)
    (model / "refs" / "main").write_text("a" * 40)
    for name, path in safetensors(snapshot).named.items():
        data = path.read_bytes()
        kind = hashlib.sha256 if name.endswith("safetensors") else hashlib.sha1
        blob = path.replace(model / "blobs" / kind(data).hexdigest())
        (snapshot / name).symlink_to(os.path.relpath(blob, snapshot))

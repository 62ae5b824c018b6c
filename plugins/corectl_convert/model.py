"""Converts a model: the folder of a checkpoint to one GGUF file."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from corectl.model.conversion import Done
from corectl.model.files import ModelFiles
from corectl.model.hf import config_of
from corectl_convert.checkpoint import Checkpoint
from corectl_convert.families import recipe_of
from corectl_convert.fields import Fields
from corectl_convert.plan import planned
from corectl_convert.pooling import MEAN, pooling_of
from corectl_convert.recipe import Recipe, Value
from corectl_convert.tensors import FILE_TYPES, Kind, Tensor
from corectl_convert.tokenizers import tokenizer_metadata
from corectl_convert.writer import write


def convert(files: ModelFiles, path: Path, done: Done, *, kind: Kind | None = None) -> None:
    """Weights are of a `kind`; without one they are F16, or BF16 if one of them is too large for that.

    Raises `BadModelFile`, `NotSupported`, `OSError`.
    """
    config = Fields("config.json", config_of(files))
    recipe = recipe_of(config)
    checkpoint = Checkpoint(files)
    # First, since a vocabulary is made as large as the configuration says: so large the embedding must be.
    tensors = planned(recipe, checkpoint, kind or "F16")
    metadata = _general(recipe, pooling_of(files)) | tokenizer_metadata(files, config, recipe)

    def attempt(kind: Kind, tensors: Sequence[Tensor]) -> None:
        described = metadata | {"general.file_type": FILE_TYPES[kind]}
        write(path, recipe.architecture, described, tensors, done)

    if kind is not None:
        attempt(kind, tensors)
        return
    try:
        attempt("F16", tensors)
    except OverflowError:
        attempt("BF16", planned(recipe, checkpoint, "BF16"))


def _general(recipe: Recipe, pooling: int | None) -> dict[str, Value]:
    metadata: dict[str, Value] = {"general.type": "model"}
    for key, value in recipe.metadata.items():
        metadata[key if key.startswith("tokenizer.") else f"{recipe.architecture}.{key}"] = value
    if pooling is None and recipe.pooled:
        pooling = MEAN  # as sentence-transformers does with a model that says nothing
    if pooling is not None:
        metadata[f"{recipe.architecture}.pooling_type"] = pooling
    return metadata

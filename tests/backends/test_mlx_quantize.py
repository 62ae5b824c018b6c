"""Weights that MLX makes smaller: in the process that is made for it, and on the way into the store."""

from __future__ import annotations

import json
from pathlib import Path

import pytest

from corectl.errors import BadRequest, LoadFailed
from corectl.jobs.messages import Made, Quantization
from corectl.jobs.processes import Jobs
from corectl.model.files import ModelFiles
from corectl_safetensors import Safetensors
from tests.backends.mlx_kit import PROMPTS, alone, load
from tests.forms import Forms

pytest.importorskip("mlx_lm")


def files_of(folder: Path) -> ModelFiles:
    named = {path.name: path for path in sorted(folder.iterdir()) if path.is_file()}
    return ModelFiles(weights=folder / "model.safetensors", named=named)


def quantize(files: ModelFiles, target: str, folder: Path) -> Made:
    folder.mkdir()
    job = Quantization(plugin="mlx", backend="mlx", files=files, target=target, folder=folder)
    return Jobs().run(job, lambda completed, total: None)


@pytest.mark.parametrize("target", ["int4", "int8", "mxfp4"])
def test_weights_become_smaller_and_the_model_still_talks(tmp_path: Path, forms: Forms, target: str) -> None:
    source, folder = files_of(forms.safetensors(2)), tmp_path / "small"
    quantize(source, target, folder)
    made = files_of(folder)
    assert set(made.named) >= set(source.named)
    assert made.weights.stat().st_size < source.weights.stat().st_size / 3
    before, after = Safetensors().describe(source), Safetensors().describe(made)
    assert after.quantization == f"int{8 if target == 'int8' else 4}"
    assert after.parameter_count == pytest.approx(before.parameter_count, rel=0.01)
    engine = load(folder)
    assert len(alone(engine, PROMPTS[0], 3)) == 3
    engine.close()


def test_what_is_quantised_is_not_quantised_again(tmp_path: Path, forms: Forms) -> None:
    source = files_of(forms.safetensors(2))
    config = tmp_path / "config.json"
    config.write_text(
        json.dumps({**json.loads(source.named["config.json"].read_text()), "quantization": {"bits": 4}})
    )
    files = ModelFiles(weights=source.weights, named={**source.named, "config.json": config})
    with pytest.raises(BadRequest, match="only supported for F16, BF16 and F32"):
        quantize(files, "int4", tmp_path / "x")


def test_a_model_that_cannot_be_read_says_why(tmp_path: Path, forms: Forms) -> None:
    source = files_of(forms.safetensors(2))
    config = tmp_path / "config.json"
    config.write_text(json.dumps({"model_type": "nothing_known"}))
    files = ModelFiles(weights=source.weights, named={**source.named, "config.json": config})
    with pytest.raises(LoadFailed, match="nothing_known"):
        quantize(files, "int4", tmp_path / "x")

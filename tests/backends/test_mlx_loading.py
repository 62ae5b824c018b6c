"""How the MLX backend loads models, what it says of them, and what it refuses."""

from __future__ import annotations

import json
import shutil
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from mlx_lm.models.cache import KVCache

from corectl.errors import BadModelFile, LoadFailed
from corectl.model.files import ModelFiles
from corectl.runner.engine import CacheShape, MemoryUse, ModelSpec, Placement
from corectl_mlx.backend import MlxBackend
from corectl_mlx.memory import sizes_of
from tests.backends.mlx_kit import PROMPTS, alone, load, spec_of
from tests.forms import Forms

pytest.importorskip("mlx_lm")

TINY = {
    "model_type": "llama",
    "hidden_size": 16,
    "intermediate_size": 32,
    "num_hidden_layers": 2,
    "num_attention_heads": 2,
    "num_key_value_heads": 1,
    "vocab_size": 32,
    "rms_norm_eps": 1e-5,
    "rope_theta": 10000.0,
    "max_position_embeddings": 64,
    "tie_word_embeddings": True,
    "torch_dtype": "float32",
}


def test_memory_is_estimated_and_measured_alike(forms: Forms) -> None:
    estimate = MlxBackend().estimate(
        spec_of(forms.safetensors(2)), CacheShape(num_batch=128, max_sequences=4)
    )
    (layer,) = estimate.layers
    engine = load(forms.safetensors(2))
    engine.close()
    (use,) = engine.info.measured
    assert isinstance(use, MemoryUse)
    assert use.weights == pytest.approx(layer.weights, rel=0.02)
    assert use.cache == layer.cell * 1024


def test_what_configurations_of_gemma_leave_out_is_known() -> None:
    """Without heads all of a layer's width would count as one."""
    text = {"model_type": "gemma3_text", "hidden_size": 2560, "num_hidden_layers": 34}
    whole = {"model_type": "gemma3", "torch_dtype": "bfloat16", "text_config": text}
    assert sizes_of(whole).cell == 2 * 34 * 4 * 256 * 2
    assert sizes_of({**text, "torch_dtype": "bfloat16"}).cell == 2 * 34 * 1 * 256 * 2
    said = {**whole, "text_config": {**text, "num_key_value_heads": 2, "head_dim": 128}}
    assert sizes_of(said).cell == 2 * 34 * 2 * 128 * 2


def test_models_whose_caches_cannot_be_joined_are_computed_one_at_a_time(
    forms: Forms, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.delattr(KVCache, "merge")
    single = load(forms.safetensors(2))
    assert (single.info.max_sequences, single.info.idle_sequences) == (1, 0)
    assert [notice.code for notice in single.info.notices] == ["one_at_a_time"]
    assert alone(single, PROMPTS[0])
    single.close()


def folder(tmp_path: Path, forms: Forms, config: Any = TINY) -> Path:
    """A model folder without weights."""
    made = tmp_path / "model"
    made.mkdir()
    shutil.copy(forms.safetensors(2) / "tokenizer.json", made)
    (made / "config.json").write_text(json.dumps(config))
    return made


def weights(path: Path, content: dict[str, Any]) -> None:
    from safetensors.numpy import save_file

    save_file(content, path)


def test_models_that_cannot_be_loaded_say_why(tmp_path: Path, forms: Forms) -> None:
    made = folder(tmp_path, forms)
    with pytest.raises(BadModelFile, match=r"model\*\.safetensors"):
        load(made)
    weights(made / "model.safetensors", {"wrong": np.zeros((2, 2), np.float32)})
    with pytest.raises(LoadFailed, match=r"MLX cannot load model\.safetensors"):
        load(made)
    (made / "config.json").write_text(json.dumps({**TINY, "model_type": "nothing_known"}))
    with pytest.raises(LoadFailed, match="nothing_known"):
        load(made)
    (made / "model.safetensors").write_bytes(b"\xff" * 100)
    with pytest.raises(LoadFailed):
        load(made)


def test_code_that_comes_with_a_model_never_runs(tmp_path: Path, forms: Forms) -> None:
    made = folder(tmp_path, forms, {**TINY, "model_file": "evil.py", "auto_map": {"AutoModel": "evil.Model"}})
    proof = tmp_path / "it-ran"
    (made / "evil.py").write_text(f"import pathlib\npathlib.Path({str(proof)!r}).touch()\n")
    weights(made / "model.safetensors", {"w": np.zeros((2, 2), np.float32)})
    with pytest.raises(LoadFailed, match="custom module"):
        load(made)
    assert not proof.exists()


def test_blobs_without_names_of_their_own(tmp_path: Path, forms: Forms) -> None:
    blobs = tmp_path / "blobs"
    blobs.mkdir()
    named = {}
    for number, path in enumerate(sorted(forms.safetensors(2).iterdir())):
        named[path.name] = Path(shutil.copy(path, blobs / f"sha256-{number}"))
    files = ModelFiles(weights=named["model.safetensors"], named=named)
    spec = ModelSpec(format="safetensors", weights=files.weights, named=files.named)
    placement = Placement(num_ctx=64, cells=64, num_batch=16, max_sequences=1, num_thread=1)
    loaded = MlxBackend().load(spec, placement, lambda part: None)
    assert len(alone(loaded, PROMPTS[0], 2)) == 2
    loaded.close()

"""LoRA adapters in MLX: those of MLX and of PEFT change what is computed by what they say, and others are refused."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import msgspec
import numpy as np
import numpy.typing as npt
import pytest
from safetensors.numpy import load_file, save_file

from corectl.errors import CorectlError, LoadFailed
from corectl.runner.engine import Engine, Placement
from corectl_mlx.backend import MlxBackend
from tests.backends.mlx_kit import PROMPTS, alone, spec_of
from tests.forms import Forms

pytest.importorskip("mlx_lm")

WIDTH, RANK = 576, 2
LAYER = "model.layers.0.self_attn.q_proj"
Array = npt.NDArray[np.float32]


def parts() -> tuple[Array, Array]:
    """The two factors: inputs by rank, rank by outputs."""
    random = np.random.default_rng(3)
    return (
        (random.standard_normal((WIDTH, RANK)) * 0.5).astype(np.float32),
        (random.standard_normal((RANK, WIDTH)) * 0.5).astype(np.float32),
    )


def of_mlx(folder: Path, scale: float = 1.5, **changes: Any) -> Path:
    folder.mkdir()
    a, b = parts()
    save_file({f"{LAYER}.lora_a": a, f"{LAYER}.lora_b": b}, folder / "adapters.safetensors")
    parameters = {"rank": RANK, "scale": scale, "dropout": 0.0}
    config = {"fine_tune_type": "lora", "num_layers": 1, "lora_parameters": parameters, **changes}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def of_peft(folder: Path, alpha: float = 3.0, **changes: Any) -> Path:
    folder.mkdir()
    a, b = parts()
    name = f"base_model.model.{LAYER}"
    weights = {
        f"{name}.lora_A.weight": np.ascontiguousarray(a.T),
        f"{name}.lora_B.weight": np.ascontiguousarray(b.T),
    }
    save_file(weights, folder / "adapter_model.safetensors")
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": alpha, "target_modules": ["q_proj"], **changes}
    (folder / "adapter_config.json").write_text(json.dumps(config))
    return folder


def merged(source: Path, folder: Path, scale: float = 1.5) -> Path:
    """The model with the adapter worked into its weights, by numpy."""
    folder.mkdir()
    for path in source.iterdir():
        if path.suffix == ".json":
            (folder / path.name).write_bytes(path.read_bytes())
    tensors = load_file(source / "model.safetensors")
    a, b = parts()
    tensors[f"{LAYER}.weight"] = np.ascontiguousarray(tensors[f"{LAYER}.weight"] + scale * (a @ b).T)
    save_file(tensors, folder / "model.safetensors")
    return folder


def load(folder: Path, adapter: Path | None = None) -> Engine:
    spec = spec_of(folder)
    if adapter is not None:
        named = {path.name: path for path in sorted(adapter.iterdir())}
        spec = msgspec.structs.replace(spec, adapters=tuple(named.values()), adapter_named=named)
    placement = Placement(num_ctx=64, cells=64, num_batch=32, max_sequences=1, num_thread=1)
    return MlxBackend().load(spec, placement, lambda part: None)


def said(engine: Engine) -> list[float]:
    """The log probabilities of the five likeliest tokens after each prompt."""
    found = [alone(engine, text, 1, top_logprobs=5)[0].top for text in PROMPTS]
    engine.close()
    return [candidate.logprob for top in found for candidate in top]


def test_both_kinds_are_the_model_with_the_adapter_worked_in(tmp_path: Path, forms: Forms) -> None:
    source = forms.safetensors(2)
    expected = said(load(merged(source, tmp_path / "merged")))
    assert said(load(source)) != pytest.approx(expected, abs=0.1)
    assert said(load(source, of_mlx(tmp_path / "mlx"))) == pytest.approx(expected, abs=0.01)
    assert said(load(source, of_peft(tmp_path / "peft"))) == pytest.approx(expected, abs=0.01)


def test_a_scale_of_nothing_changes_nothing(tmp_path: Path, forms: Forms) -> None:
    source = forms.safetensors(2)
    assert said(load(source, of_mlx(tmp_path / "mlx", scale=0.0))) == said(load(source))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"fine_tune_type": "dora"}, "only LoRA"),
        ({"fine_tune_type": "full"}, "only LoRA"),
        ({"lora_parameters": {"rank": 2}}, "scale"),
        ({"lora_parameters": 5}, "scale"),
    ],
)
def test_other_adapters_of_mlx_are_refused(tmp_path: Path, forms: Forms, changes: Any, message: str) -> None:
    with pytest.raises(CorectlError, match=message):
        load(forms.safetensors(2), of_mlx(tmp_path / "mlx", **changes))


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"peft_type": "IA3"}, "no LoRA adapter"),
        ({"r": 0}, "no LoRA adapter"),
        ({"use_dora": True}, "use_dora"),
        ({"use_rslora": True}, "use_rslora"),
        ({"rank_pattern": {"q_proj": 4}}, "rank_pattern"),
        ({"alpha_pattern": {"q_proj": 4}}, "alpha_pattern"),
    ],
)
def test_other_adapters_of_peft_are_refused(tmp_path: Path, forms: Forms, changes: Any, message: str) -> None:
    with pytest.raises(LoadFailed, match=message):
        load(forms.safetensors(2), of_peft(tmp_path / "peft", **changes))


@pytest.mark.parametrize(
    ("weights", "message"),
    [
        ({"model.layers.7.mlp.lora_a": (2, 2)}, "does not fit"),
        ({f"{LAYER}.lora_a": (WIDTH, 2)}, "incomplete"),
        ({f"{LAYER}.lora_a": (5, 2), f"{LAYER}.lora_b": (2, WIDTH)}, "another size"),
        ({"surprise": (2, 2)}, "not known"),
    ],
)
def test_an_adapter_for_another_model_is_refused(
    tmp_path: Path, forms: Forms, weights: dict[str, tuple[int, int]], message: str
) -> None:
    folder = of_mlx(tmp_path / "mlx")
    save_file(
        {name: np.zeros(shape, np.float32) for name, shape in weights.items()},
        folder / "adapters.safetensors",
    )
    with pytest.raises(LoadFailed, match=message):
        load(forms.safetensors(2), folder)


def test_a_damaged_adapter_is_refused(tmp_path: Path, forms: Forms) -> None:
    folder = of_mlx(tmp_path / "mlx")
    (folder / "adapters.safetensors").write_bytes(b"\xff" * 20)
    with pytest.raises(LoadFailed, match=r"adapters\.safetensors"):
        load(forms.safetensors(2), folder)

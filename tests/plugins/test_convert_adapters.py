"""LoRA adapters: llama.cpp computes with a converted one what it computes with the weights worked into the model."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import pytest
from safetensors.numpy import load_file, save_file

from corectl.errors import BadModelFile, CorectlError, NotSupported
from corectl.model.files import ModelFiles
from corectl.model.gguf import read_header
from corectl_convert.lora import convert_adapter
from tests.plugins.convert_kit import (
    Array,
    change_json,
    converted,
    files_of,
    llama,
    logits_of,
    random_llama,
    write_json,
)

pytest.importorskip("llama_cpp")

TARGETS = ("self_attn.q_proj", "self_attn.k_proj", "self_attn.v_proj", "self_attn.o_proj", "mlp.down_proj")
RANKS = {"self_attn.v_proj": 3}
RANK, ALPHA = 2, 5.0
TOKENS = [5, 80, 33, 200, 17, 290, 8]

Factors = dict[str, tuple[Array, Array]]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A checkpoint, with its conversion beside it."""
    folder = random_llama(tmp_path_factory.mktemp("base") / "m")
    converted(folder)
    return folder


def factors(base: Path) -> Factors:
    """For each target the first factor, and the second one."""
    random = np.random.default_rng(11)
    weights = load_file(base / "model.safetensors")
    found = {}
    for name in TARGETS:
        outputs, inputs = weights[f"model.layers.0.{name}.weight"].shape
        rank = RANKS.get(name, RANK)
        first = random.standard_normal((rank, inputs)).astype(np.float32)
        found[name] = (first, random.standard_normal((outputs, rank)).astype(np.float32) * np.float32(0.2))
    return found


def of_peft(folder: Path, base: Path, **changes: Any) -> Path:
    """As PEFT saves it."""
    tensors = {}
    for name, (first, second) in factors(base).items():
        for side, values in (("A", first), ("B", second)):
            tensors[f"base_model.model.model.layers.0.{name}.lora_{side}.weight"] = values
    config = {"peft_type": "LORA", "r": RANK, "lora_alpha": ALPHA, "rank_pattern": {"v_proj": 3}, **changes}
    write_json(folder / "adapter_config.json", config)
    save_file(tensors, folder / "adapter_model.safetensors")
    return folder


def of_mlx(folder: Path, base: Path, *, scale: float) -> Path:
    """As mlx-lm saves it."""
    tensors = {}
    for name, (first, second) in factors(base).items():
        tensors[f"model.layers.0.{name}.lora_a"] = np.ascontiguousarray(first.T)
        tensors[f"model.layers.0.{name}.lora_b"] = np.ascontiguousarray(second.T)
    parameters = {"rank": RANK, "scale": scale, "dropout": 0.0}
    write_json(folder / "adapter_config.json", {"fine_tune_type": "lora", "lora_parameters": parameters})
    save_file(tensors, folder / "adapters.safetensors")
    return folder


def worked_in(base: Path, folder: Path, scale: Callable[[str], float]) -> Path:
    """The conversion of the checkpoint with the changes added to its weights."""
    random_llama(folder)
    weights = load_file(base / "model.safetensors")
    for name, (first, second) in factors(base).items():
        weights[f"model.layers.0.{name}.weight"] += np.float32(scale(name)) * (second @ first)
    save_file(weights, folder / "model.safetensors")
    return converted(folder)


def adapted(base: Path, adapter: Path) -> Path:
    path = adapter.with_suffix(".lora.gguf")
    model = ModelFiles(weights=base.with_suffix(".gguf"))
    convert_adapter(files_of(adapter), model, path, lambda written, total: None)
    return path


def with_adapter(base: Path, adapter: Path) -> Array:
    engine = llama(base.with_suffix(".gguf"), lora_path=str(adapted(base, adapter)), lora_scale=1.0)
    engine.eval(TOKENS)
    found = np.array(engine.scores[: len(TOKENS)], np.float32)
    engine.close()
    return found


def rank_of(name: str) -> int:
    return RANKS.get(name, RANK)


@pytest.mark.parametrize(
    ("changes", "scale"),
    [
        ({}, lambda name: ALPHA / rank_of(name)),
        ({"use_rslora": True}, lambda name: ALPHA / rank_of(name) ** 0.5),
        (
            {"alpha_pattern": {"q_proj": 1.0, "mlp.down_proj": 9.0}},
            lambda name: {"self_attn.q_proj": 1.0, "mlp.down_proj": 9.0}.get(name, ALPHA) / rank_of(name),
        ),
        (
            {"alpha_pattern": {"self_attn.q_proj": 1.0, "q_proj": 9.0}},
            lambda name: {"self_attn.q_proj": 1.0}.get(name, ALPHA) / rank_of(name),
        ),
        ({"init_lora_weights": "gaussian"}, lambda name: ALPHA / rank_of(name)),
        ({"init_lora_weights": False}, lambda name: ALPHA / rank_of(name)),
    ],
)
def test_an_adapter_of_peft_is_the_model_with_it_worked_in(
    tmp_path: Path, base: Path, changes: dict[str, Any], scale: Callable[[str], float]
) -> None:
    found = with_adapter(base, of_peft(tmp_path / "a", base, **changes))
    expected = logits_of(worked_in(base, tmp_path / "w", scale), TOKENS)
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())
    assert np.abs(found - logits_of(base.with_suffix(".gguf"), TOKENS)).max() > 0.1


def test_an_adapter_of_mlx_is_the_model_with_it_worked_in(tmp_path: Path, base: Path) -> None:
    found = with_adapter(base, of_mlx(tmp_path / "a", base, scale=1.5))
    expected = logits_of(worked_in(base, tmp_path / "w", lambda name: 1.5), TOKENS)
    np.testing.assert_allclose(found, expected, atol=2e-3 * np.abs(expected).max())


def test_what_it_is_stands_in_its_header(tmp_path: Path, base: Path) -> None:
    header = read_header(adapted(base, of_peft(tmp_path / "a", base)))
    assert header.architecture == "llama"
    assert header.metadata["general.type"] == "adapter"
    assert header.metadata["adapter.type"] == "lora"
    assert len(header.tensors) == 2 * len(TARGETS)


@pytest.mark.parametrize(
    ("changes", "error", "said"),
    [
        ({"use_dora": True}, NotSupported, "use_dora"),
        ({"peft_type": "IA3"}, NotSupported, "IA3"),
        ({"bias": "all"}, NotSupported, "bias"),
        ({"modules_to_save": ["lm_head"]}, NotSupported, "modules_to_save"),
        ({"alpha_pattern": {".*q_.*": 1}}, NotSupported, "alpha_pattern"),
        ({"alora_invocation_tokens": [1, 2]}, NotSupported, "alora_invocation_tokens"),
        ({"layer_replication": [[0, 1], [0, 1]]}, NotSupported, "layer_replication"),
        ({"init_lora_weights": "pissa"}, NotSupported, "init_lora_weights 'pissa'"),
        ({"init_lora_weights": "pissa_niter_4"}, NotSupported, "init_lora_weights 'pissa_niter_4'"),
        ({"init_lora_weights": "olora"}, NotSupported, "init_lora_weights 'olora'"),
        ({"init_lora_weights": "corda"}, NotSupported, "init_lora_weights 'corda'"),
        ({"init_lora_weights": "loftq"}, NotSupported, "init_lora_weights 'loftq'"),
        ({"init_lora_weights": [1]}, BadModelFile, "init_lora_weights"),
        ({"lora_alpha": "much"}, BadModelFile, "lora_alpha"),
        ({"lora_alpha": 1e300}, BadModelFile, "lora_alpha"),
        ({"peft_type": None}, BadModelFile, "peft_type"),
    ],
)
def test_what_it_cannot_do_is_refused(
    tmp_path: Path, base: Path, changes: dict[str, Any], error: type[CorectlError], said: str
) -> None:
    folder = of_peft(tmp_path / "a", base)
    change_json(folder / "adapter_config.json", **changes)
    with pytest.raises(error, match=said):
        adapted(base, folder)


@pytest.mark.parametrize(
    ("name", "shape", "error", "said"),
    [
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", (2, 31), BadModelFile, "31"),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", (3, 32), BadModelFile, "rank"),
        ("base_model.model.model.layers.0.self_attn.q_proj.lora_A.weight", (64,), BadModelFile, "no matrix"),
        (
            "base_model.model.model.layers.7.self_attn.q_proj.lora_A.weight",
            (2, 32),
            BadModelFile,
            "one of the two",
        ),
        ("base_model.model.model.layers.0.self_attn.q_proj.weight", (32, 32), NotSupported, "no factor"),
        ("base_model.model.model.embed_tokens.lora_embedding_A", (2, 384), NotSupported, "no factor"),
    ],
)
def test_factors_that_do_not_fit_are_refused(
    tmp_path: Path, base: Path, name: str, shape: tuple[int, ...], error: type[CorectlError], said: str
) -> None:
    folder = of_peft(tmp_path / "a", base)
    tensors = load_file(folder / "adapter_model.safetensors")
    save_file({**tensors, name: np.zeros(shape, np.float32)}, folder / "adapter_model.safetensors")
    with pytest.raises(error, match=said):
        adapted(base, folder)


def test_values_that_are_none_are_refused(tmp_path: Path, base: Path) -> None:
    folder = of_peft(tmp_path / "a", base)
    tensors = load_file(folder / "adapter_model.safetensors")
    name = "base_model.model.model.layers.0.self_attn.q_proj.lora_B.weight"
    tensors[name][0, 0] = 3e38
    save_file(tensors, folder / "adapter_model.safetensors")
    with pytest.raises(BadModelFile, match="too large"):
        adapted(base, folder)


def test_a_model_that_is_another_one_is_named(tmp_path: Path, base: Path) -> None:
    folder = of_peft(tmp_path / "a", base)
    tensors = load_file(folder / "adapter_model.safetensors")
    beyond = {name.replace("layers.0", "layers.5"): values for name, values in tensors.items()}
    save_file(beyond, folder / "adapter_model.safetensors")
    with pytest.raises(BadModelFile, match=r"layers\.5"):
        adapted(base, folder)

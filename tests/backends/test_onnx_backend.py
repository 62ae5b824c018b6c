"""What can be said of ONNX Runtime GenAI without loading it: what is installed, what a model takes, who computes it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest

from corectl.errors import BadModelFile
from corectl.runner.engine import CacheShape, MemoryUse, ModelSpec, Placement
from corectl.scheduler.fit import memory_use
from corectl_onnx import corectl_backends
from corectl_onnx.backend import OnnxBackend
from corectl_onnx.providers import Build, Way, installed, way_of
from tests.onnx_file import genai_config, node, onnx, tensor, write

CPU = Placement(num_ctx=64, cells=64, num_batch=64, max_sequences=1, num_thread=1, devices=("cpu",))
GPU = Placement(
    num_ctx=64, cells=64, num_batch=64, max_sequences=1, num_thread=1, devices=("cpu", "GPU-1"), layers=(2,)
)
PART = Placement(
    num_ctx=64, cells=64, num_batch=64, max_sequences=1, num_thread=1, devices=("cpu", "GPU-1"), layers=(1,)
)


def versions(**there: str) -> Callable[[str], str]:
    """Distributions that are installed, and nothing else."""

    def version_of(name: str) -> str:
        try:
            return there[name.replace("-", "_")]
        except KeyError:
            raise importlib.metadata.PackageNotFoundError(name) from None

    return version_of


@pytest.mark.parametrize(
    ("there", "build"),
    [
        ({"onnxruntime_genai": "0.18.0"}, Build("cpu", "0.18.0")),
        ({"onnxruntime_genai_cuda": "0.18.1"}, Build("cuda", "0.18.1")),
        ({"onnxruntime_genai_directml": "0.18.2"}, Build("directml", "0.18.2")),
        ({"onnxruntime_genai": "0.18.0", "onnxruntime_qnn": "1.25"}, Build("qnn", "0.18.0")),
        ({"onnxruntime_genai": "0.18.0", "onnxruntime_openvino": "1.25"}, Build("openvino", "0.18.0")),
        ({}, Build("cpu", "unknown")),
    ],
)
def test_builds_are_told_apart_by_their_distributions(there: dict[str, str], build: Build) -> None:
    pytest.importorskip("onnxruntime_genai")
    assert installed(versions(**there)) == build


def test_what_is_not_installed_is_named_with_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    find = importlib.util.find_spec
    for missing, said in (("onnxruntime_genai", "onnxruntime-genai"), ("tokenizers", "tokenizers")):
        monkeypatch.setattr(
            importlib.util, "find_spec", lambda name, missing=missing: None if name == missing else find(name)
        )
        found = OnnxBackend().availability()
        if importlib.util.find_spec("onnxruntime_genai") is not None or missing == "onnxruntime_genai":
            assert found.reason == f"{said} is not installed; type: pip install 'corectl[onnx]'"
        assert not found.usable


def test_options_without_effect_are_listed(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: object())
    for build, gpu_options in (
        (Build("cpu", "1"), True),
        (Build("directml", "1"), True),
        (Build("cuda", "1"), False),
    ):
        monkeypatch.setattr("corectl_onnx.backend.installed", lambda build=build: build)
        found = OnnxBackend().availability()
        assert (found.variant, found.version, found.adapters) == (build.variant, "1", False)
        assert {"use_mmap", "flash_attention", "kv_cache_type"} <= set(found.ignores)
        assert ("num_gpu" in found.ignores, "main_gpu" in found.ignores) == (gpu_options, gpu_options)
        assert not {"num_ctx", "num_batch", "num_thread"} & set(found.ignores)


def test_the_backend_loads_the_format_of_this_plugin() -> None:
    (backend,) = corectl_backends()
    assert (backend.name, backend.formats) == ("onnx", ("onnx-genai",))


MADE_FOR_CPU: tuple[str, ...] = ()


@pytest.mark.parametrize(
    ("made_for", "variant", "placement", "way"),
    [
        (MADE_FOR_CPU, "cpu", CPU, Way()),
        (("cuda",), "cuda", GPU, Way(accelerated=True, device="GPU-1")),
        # The scheduler says itself that the GPU has no room, or that nobody wants it.
        (("cuda",), "cuda", CPU, Way()),
        (("cuda",), "cuda", PART, Way()),
        (("dml",), "directml", CPU, Way(accelerated=True)),
        (("openvino",), "openvino", CPU, Way(accelerated=True)),
        (("qnn",), "qnn", CPU, Way(accelerated=True)),
        (MADE_FOR_CPU, "cuda", CPU, Way()),
        (MADE_FOR_CPU, "cuda", GPU, Way(surprise="the model was made for it; build it again for cuda")),
        (
            ("cuda",),
            "cpu",
            CPU,
            Way(surprise="the model was made for cuda, and the installed build computes on cpu"),
        ),
        (
            ("dml", "qnn"),
            "cuda",
            GPU,
            Way(surprise="the model was made for dml and qnn, and the installed build computes on cuda"),
        ),
    ],
)
def test_a_model_is_computed_by_what_it_was_made_for(
    made_for: tuple[str, ...], variant: str, placement: Placement, way: Way
) -> None:
    assert way_of(made_for, variant, placement) == way


def spec(folder: Path, file: bytes, **config: Any) -> ModelSpec:
    files = write(folder, file, genai_config(**config), {"model.onnx.data": bytes(4096)})
    return ModelSpec(format="onnx-genai", weights=files.weights, named=files.named)


def estimated(model: ModelSpec, cells: int, **shape: int) -> MemoryUse:
    found = CacheShape(num_batch=shape.get("num_batch", 512), max_sequences=shape.get("max_sequences", 2))
    (use,) = memory_use(OnnxBackend().estimate(model, found), found, cells=cells)
    return use


def test_an_estimate_has_weights_and_room_for_each_cell(tmp_path: Path) -> None:
    head = tensor("head", (32, 16), location="model.onnx.data", offset=0, length=2048)
    plain = spec(tmp_path, onnx(head))
    small, large = estimated(plain, 100), estimated(plain, 200)
    assert (small.weights, small.cache, large.cache) == (2048, 100 * 128, 200 * 128)
    # Logits of 64 tokens are the most that are computed together, whatever a step has.
    assert (
        small.compute
        == estimated(plain, 100, num_batch=64).compute
        > estimated(plain, 100, num_batch=16).compute
    )
    turned = spec(tmp_path, onnx(head, nodes=[node("Transpose", "head")]))
    assert estimated(turned, 100).weights == 4096


def test_a_model_is_one_layer_that_is_on_one_device_as_a_whole(tmp_path: Path) -> None:
    shape = CacheShape(num_batch=64, max_sequences=1)
    model = spec(tmp_path, onnx(tensor("w", (16,), raw=bytes(64))))
    found = OnnxBackend().estimate(model, shape)
    host, gpu = memory_use(found, shape, cells=64, accelerators=["GPU-1"], layers=[2])
    assert (host.weights, gpu.weights, gpu.cache) == (0, 64, 64 * 128)


def test_an_estimate_of_a_damaged_model_fails_with_its_name(tmp_path: Path) -> None:
    with pytest.raises(BadModelFile, match=r"model\.onnx: it is"):
        OnnxBackend().estimate(spec(tmp_path, b"nonsense"), CacheShape(num_batch=64, max_sequences=1))

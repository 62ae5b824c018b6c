"""Which of ggml's devices a placement means, and what llama.cpp says that it took on each."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from pathlib import Path
from typing import Any

import llama_cpp
import psutil
import pytest

from corectl.errors import DevicesMissing
from corectl.runner.engine import MemoryUse, ModelSpec, Placement
from corectl_llamacpp import ggml, logs
from corectl_llamacpp.addresses import address_of
from corectl_llamacpp.backend import LlamaCppBackend
from corectl_llamacpp.devices import Buffer, GgmlDevice, accelerators, chosen, make_visible, measured
from corectl_llamacpp.params import context_params, model_params
from tests.backends.conftest import EMBEDDER, placement

ADDRESS = "0000:03:00.0"


def device(name: str, library: str, kind: str = "gpu", address: str = "", token: int = 0) -> GgmlDevice:
    return GgmlDevice(
        name=name,
        description=f"the {name}",
        library=library,
        kind=kind,
        memory_free=1,
        memory_total=2,
        address=address,
        token=token,
    )


CPU = device("CPU", "CPU", "cpu")
BLAS = device("BLAS", "BLAS", "accel")


def on(*ids: str) -> Placement:
    """A placement with layers on these accelerators."""
    return placement(devices=("cpu", *ids), layers=tuple(range(3, 3 + len(ids))))


def names(
    found: Sequence[GgmlDevice], variant: str, *ids: str, places: dict[str, str] | None = None
) -> dict[str, str]:
    address = address_of if places is None else lambda id: (places or {}).get(id, "")
    return {id: device.name for id, device in chosen(found, on(*ids), variant, address=address).items()}


@pytest.mark.parametrize(
    ("variant", "library", "variable"),
    [("cuda", "CUDA", "CUDA_VISIBLE_DEVICES"), ("rocm", "ROCm", "ROCR_VISIBLE_DEVICES")],
)
def test_only_the_devices_of_the_placement_are_seen(variant: str, library: str, variable: str) -> None:
    environment = {variable: "7"}
    make_visible(variant, on("GPU-b", "GPU-a"), environment)
    assert environment == {variable: "GPU-b,GPU-a"}
    found = [device(f"{library}0", library), device(f"{library}1", library), CPU]
    assert names(found, variant, "GPU-b", "GPU-a") == {"GPU-b": f"{library}0", "GPU-a": f"{library}1"}
    make_visible(variant, placement(), environment)
    assert environment == {variable: ""}
    for other in ("cpu", "vulkan", "metal", "sycl"):
        make_visible(other, on("GPU-b"), environment)
    assert environment == {variable: ""}


def test_variables_of_rocm_do_not_choose_once_more() -> None:
    """They would count what the placement has left."""
    environment = dict.fromkeys(("HIP_VISIBLE_DEVICES", "CUDA_VISIBLE_DEVICES", "GPU_DEVICE_ORDINAL"), "1")
    make_visible("rocm", on("GPU-b"), environment)
    assert environment == {"ROCR_VISIBLE_DEVICES": "GPU-b"}


def test_where_a_device_is_on_the_bus_tells_it(tmp_path: Path) -> None:
    found = [
        device("Vulkan0", "Vulkan", "igpu", "0000:00:02.0"),
        device("Vulkan1", "Vulkan", address="0000:83:00.0"),
        device("Vulkan2", "Vulkan", address=ADDRESS),
        BLAS,
        CPU,
    ]
    assert names(found, "vulkan", ADDRESS) == {ADDRESS: "Vulkan2"}
    assert names(found, "vulkan", ADDRESS.upper(), "0000:00:02.0") == {
        ADDRESS.upper(): "Vulkan2",
        "0000:00:02.0": "Vulkan0",
    }
    card = tmp_path / "sys/bus/pci/devices" / ADDRESS
    card.mkdir(parents=True)
    for name, value in (("vendor", "0x1002"), ("class", "0x030000"), ("unique_id", "8d21f7c6a3b40e19")):
        (card / name).write_text(value)
    assert address_of("GPU-8d21f7c6a3b40e19", tmp_path) == ADDRESS
    for unknown in ("GPU-8d21f7c6a3b40e18", "GPU-", "0", "metal", f"{ADDRESS}1"):
        assert address_of(unknown, tmp_path) == ""


def test_without_a_place_a_device_is_told_by_there_being_no_other() -> None:
    metal = [device("MTL0", "MTL"), BLAS, CPU]
    assert names(metal, "metal", "metal") == {"metal": "MTL0"}
    assert names([device("SYCL0", "SYCL"), CPU], "sycl", ADDRESS) == {ADDRESS: "SYCL0"}
    small = device("Vulkan0", "Vulkan", "igpu")
    large = device("Vulkan1", "Vulkan")
    # A processor's small GPU is not used beside others.
    assert names([small, large, CPU], "vulkan", "1") == {"1": "Vulkan1"}
    assert names([small, CPU], "vulkan", "0") == {"0": "Vulkan0"}
    assert names([small, large, CPU], "vulkan", "0", "1") == {"0": "Vulkan0", "1": "Vulkan1"}


def test_a_build_of_several_parts_uses_its_own() -> None:
    found = [device("CUDA0", "CUDA"), device("Vulkan0", "Vulkan", address=ADDRESS), CPU]
    assert names(found, "cuda", "GPU-a") == {"GPU-a": "CUDA0"}
    assert names(found, "vulkan", ADDRESS) == {ADDRESS: "Vulkan0"}


@pytest.mark.parametrize(
    ("found", "variant", "ids"),
    [
        ([CPU], "cuda", ("GPU-a",)),
        ([device("CUDA0", "CUDA"), CPU], "cuda", ("GPU-a", "GPU-b")),
        ([device("Vulkan0", "Vulkan"), device("Vulkan1", "Vulkan"), CPU], "vulkan", ("0",)),
        ([CPU], "cpu", ("GPU-a",)),
        ([CPU], "unheard of", ("GPU-a",)),
    ],
)
def test_devices_that_cannot_be_told_are_never_guessed(
    found: list[GgmlDevice], variant: str, ids: tuple[str, ...]
) -> None:
    with pytest.raises(DevicesMissing) as caught:
        names(found, variant, *ids)
    message = caught.value.message
    assert f"built for {variant}, does not see {', '.join(ids)}; it finds: " in message
    assert all(device.name in message for device in found if device.kind == "gpu")


def test_a_placement_without_layers_needs_no_device() -> None:
    assert accelerators(placement()) == ()
    assert chosen([CPU], placement(), "cpu") == {} == chosen([device("MTL0", "MTL")], placement(), "metal")


def test_a_placement_as_llama_cpp_takes_it() -> None:
    wanted = on("a", "b")
    params = model_params(wanted, [device("X0", "X", token=77), device("X1", "X", token=99)])
    assert params.n_gpu_layers == 7
    assert params.tensor_split[:3] == [3.0, 4.0, 0.0]
    assert ctypes.cast(params.devices, ctypes.POINTER(ctypes.c_void_p))[:3] == [77, 99, None]
    assert params.load_mode == llama_cpp.LLAMA_LOAD_MODE_MMAP
    alone = model_params(placement(use_mmap=False), [])
    assert (alone.n_gpu_layers, alone.load_mode) == (0, llama_cpp.LLAMA_LOAD_MODE_NONE)
    # An empty list is none of them; without a list it would be all.
    assert ctypes.cast(alone.devices, ctypes.POINTER(ctypes.c_void_p))[0] is None
    context = context_params(placement(num_thread=3), idle=5, at_once=0, embedding=False)
    assert (context.n_threads, context.n_threads_batch, context.n_seq_max) == (3, 3, 9)
    assert (context.kv_unified, context.n_outputs_max) == (True, 9)


def test_what_was_taken_by_device() -> None:
    buffers = [
        Buffer("CPU_Mapped", "model", 900),
        Buffer("CPU_REPACK", "model", 200),
        Buffer("Vulkan0", "model", 300),
        Buffer("Vulkan2", "model", 400),
        Buffer("Vulkan2", "KV", 50),
        Buffer("Vulkan2_Private", "KV", 5),
        Buffer("CPU", "RS", 7),
        Buffer("Vulkan0", "compute", 20),
        Buffer("Vulkan_Host", "compute", 3),
        Buffer("CUDA_Host", "output", 2),
        Buffer("Vulkan0", "LoRA", 1),
        Buffer("Vulkan0", "whatever", 1),
    ]
    devices = {"a": device("Vulkan0", "Vulkan"), "b": device("Vulkan2", "Vulkan")}
    assert measured(buffers, devices, weights=1000, projectors=11) == (
        MemoryUse(device="cpu", weights=1000, cache=7, compute=5),
        MemoryUse(device="a", weights=312, compute=20),
        MemoryUse(device="b", weights=400, cache=55),
    )
    assert measured(buffers, {}, weights=9999, projectors=11) == (
        MemoryUse(device="cpu", weights=900 + 200 + 300 + 400 + 1 + 11, cache=62, compute=25),
    )


def test_ggml_says_what_it_computes_on() -> None:
    logs.install()
    ggml.start(())
    found = {device.name: device for device in ggml.devices()}
    host = found["CPU"]
    assert (host.library, host.kind, host.address) == ("CPU", "cpu", "")
    assert host.description and host.token
    total = psutil.virtual_memory().total
    assert 0 < host.memory_free <= host.memory_total and abs(host.memory_total - total) < total / 10


def test_a_load_on_devices_that_are_not_there_is_refused_with_what_ggml_says(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    def find(*_: Any) -> list[GgmlDevice]:
        logs.recent_errors.append(
            "ggml_cuda_init: failed to initialize CUDA: no CUDA-capable device is detected"
        )
        return [CPU]

    monkeypatch.setattr(ggml, "devices", find)
    spec = ModelSpec(format="gguf", weights=EMBEDDER, embedding=True)
    with pytest.raises(DevicesMissing, match=r"does not see GPU-a; it finds: none: .*no CUDA-capable device"):
        LlamaCppBackend().load(spec, on("GPU-a"), lambda _: None)

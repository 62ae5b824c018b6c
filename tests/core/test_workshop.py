"""What the workshop knows of formats, converters and backends, and which of them it has do what."""

from __future__ import annotations

import threading
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corectl.config import Settings
from corectl.errors import BadModelFile, BadRequest, Canceled, NotSupported
from corectl.hardware.device import Device
from corectl.jobs.messages import AdapterConversion, Conversion, Job, Made, MadeFile, Quantization
from corectl.messages import Notice
from corectl.model.files import ModelFiles
from corectl.model.name import ModelName
from corectl.plugins import PluginHost
from corectl.progress import Progress
from corectl.runner.engine import Availability
from corectl.scheduler.machine import Machine
from corectl.server.workshop import CONVERTING, QUANTIZING, WAITING, Workshop
from corectl.store.importer import Wish

GPU = Device(id="gpu0", kind="metal", name="GPU", memory_total=1, memory_free=1)
CPU = Device(id="cpu", kind="cpu", name="CPU", memory_total=1, memory_free=1)
FILES = ModelFiles(weights=Path("model.safetensors"))
NOTICE = Notice(code="quantize_fallback", message="1 of 2 tensors fell back")


class Loader:
    """A backend that loads one format."""

    def __init__(self, name: str, format: str, variant: str = "cpu", reason: str = "") -> None:
        self.name = name
        self.formats = (format,)
        self._says = Availability(variant=variant, reason=reason)

    def availability(self) -> Availability:
        return self._says


class Choosy(Loader):
    """One that does not know every model."""

    problem = ""

    def why_not(self, format: str, files: ModelFiles) -> str:
        if self.problem == "damaged":
            raise BadModelFile("config.json is damaged")
        return self.problem


class Shrinker(Loader):
    """One that quantises."""

    quantizations: tuple[str, ...] = ()

    def quantize(
        self, files: ModelFiles, target: str, folder: Path, done: Callable[[int, int], None]
    ) -> Sequence[Notice]:
        raise AssertionError("only in a process of its own")


class Changer:
    name = "changer"
    source = "safetensors"
    target = "gguf"

    def __init__(self, problem: str = "") -> None:
        self._problem = problem

    def why_not(self, files: ModelFiles) -> str:
        return self._problem


class Processes:
    """Jobs that are done at once, and remembered."""

    def __init__(self) -> None:
        self.jobs: list[Job] = []

    def run(self, job: Job, done: Callable[[int, int], None], waiting: Callable[[], None]) -> Made:
        self.jobs.append(job)
        waiting()
        done(1, 2)
        return Made((MadeFile("x", "sha256:0", 1),), (NOTICE,))

    def close(self) -> None:
        self.jobs.clear()


def workshop(*backends: Any, converters: Sequence[Any] = (), gpu: bool = False, **settings: Any) -> Workshop:
    plugins = PluginHost()
    plugins.backends = {backend.name: backend for backend in backends}
    plugins.converters = {converter.name: converter for converter in converters}
    plugins.plugin_of = lambda provider, name: f"plugin of {name}"  # type: ignore[method-assign]
    changed = msgspec.structs.replace(Settings(), **settings)
    machine = Machine(changed, plugins)
    machine.inventory.devices = (CPU, GPU) if gpu else (CPU,)
    made = Workshop(changed, plugins, machine)
    made._jobs = Processes()  # type: ignore[assignment]
    return made


def wish(**fields: str) -> Wish:
    return Wish(name=ModelName.parse("tiny"), **fields)


def shrinker(name: str, format: str, *kinds: str, variant: str = "cpu") -> Shrinker:
    backend = Shrinker(name, format, variant)
    backend.quantizations = kinds
    return backend


MLX = Choosy("mlx", "safetensors", "metal")
LLAMA = Loader("llamacpp", "gguf")


@pytest.mark.parametrize(
    ("gpu", "fields", "settings", "format"),
    [
        (False, {}, {}, "gguf"),
        (True, {}, {}, "safetensors"),
        (False, {"backend": "mlx"}, {}, "safetensors"),
        (True, {"backend": "llamacpp"}, {}, "gguf"),
        (False, {}, {"backend": "mlx"}, "safetensors"),
        (False, {}, {"backends": {"t*": "mlx"}}, "safetensors"),
        (False, {}, {"backends": {"other*": "mlx"}}, "gguf"),
    ],
)
def test_a_folder_goes_where_it_is_computed_with_best(
    gpu: bool, fields: dict[str, str], settings: dict[str, Any], format: str
) -> None:
    shop = workshop(MLX, LLAMA, converters=[Changer()], gpu=gpu, **settings)
    assert shop.way("safetensors", FILES, wish(**fields)).format == format


@pytest.mark.parametrize("problem", ["mlx-lm does not know it", "damaged"])
def test_a_backend_that_does_not_know_a_model_does_not_keep_it(problem: str) -> None:
    choosy = Choosy("mlx", "safetensors", "metal")
    choosy.problem = problem
    assert workshop(choosy, LLAMA, converters=[Changer()], gpu=True).way(
        "safetensors", FILES, wish()
    ).converter == ("changer")
    with pytest.raises(NotSupported, match=r"^odd architecture; .*(know it|is damaged)$"):
        workshop(choosy, LLAMA, converters=[Changer("odd architecture")], gpu=True).way(
            "safetensors", FILES, wish()
        )


def test_without_a_backend_for_the_result_nothing_is_converted() -> None:
    broken = Loader("llamacpp", "gguf", reason="llama-cpp-python is not installed")
    assert workshop(MLX, broken, converters=[Changer()]).way("safetensors", FILES, wish()).format == (
        "safetensors"
    )
    with pytest.raises(NotSupported, match="llama-cpp-python is not installed"):
        workshop(broken, converters=[Changer()]).way("safetensors", FILES, wish())


def test_what_has_no_converter_needs_a_backend() -> None:
    assert workshop(Loader("onnx", "onnx-genai")).way("onnx-genai", FILES, wish()).converter == ""
    with pytest.raises(NotSupported, match="no installed backend loads 'onnx-genai'"):
        workshop(LLAMA).way("onnx-genai", FILES, wish())


def test_the_best_backend_that_knows_a_kind_quantises() -> None:
    shop = workshop(
        shrinker("a", "gguf", "Q4_K_M"), shrinker("b", "gguf", "Q4_K_M", "Q8_0", variant="metal"), gpu=True
    )
    assert shop.quantizing("gguf", wish(target="q4_k")).backend == "b"
    assert shop.quantizing("gguf", wish(target="q8_0", backend="b")).target == "Q8_0"
    with pytest.raises(BadRequest, match=r"type Q8_0 - supported types are Q4_K_M$"):
        shop.quantizing("gguf", wish(target="q8_0", backend="a"))
    with pytest.raises(NotSupported, match="there is no backend 'c'"):
        shop.quantizing("gguf", wish(target="q8_0", backend="c"))


@pytest.mark.parametrize(
    ("backends", "reason"),
    [
        ((), "no installed backend loads 'gguf'"),
        ((LLAMA,), "quantize is not supported for gguf models"),
        ((Loader("llamacpp", "gguf", reason="it is broken"),), "it is broken"),
    ],
)
def test_where_nobody_quantises_that_is_said(backends: tuple[Any, ...], reason: str) -> None:
    with pytest.raises(NotSupported, match=reason):
        workshop(*backends).quantizing("gguf", wish(target="q8_0"))


def test_jobs_name_the_plugin_and_are_reported(tmp_path: Path) -> None:
    shop = workshop(shrinker("b", "gguf", "Q8_0"), converters=[Changer()])
    jobs = shop._jobs.jobs  # type: ignore[attr-defined]
    steps: list[Progress] = []
    way = shop.way("safetensors", FILES, wish())
    shop.convert(way, FILES, tmp_path, steps.append)
    assert jobs[-1] == Conversion(
        plugin="plugin of changer", converter="changer", files=FILES, folder=tmp_path
    )
    assert steps == [
        Progress("converting model"),
        Progress(WAITING),
        Progress("converting model", CONVERTING, 2, 1),
        Progress(NOTICE.message, notice=NOTICE),
    ]
    steps.clear()
    how = shop.quantizing("gguf", wish(target="q8_0"))
    shop.quantize(how, "F16", FILES, tmp_path, steps.append)
    assert jobs[-1] == Quantization(
        plugin="plugin of b", backend="b", files=FILES, target="Q8_0", folder=tmp_path
    )
    assert steps[2] == Progress("quantizing F16 model to Q8_0", QUANTIZING, 2, 1)
    shop.convert_adapter(FILES, FILES, "gguf", tmp_path, steps.append)
    assert isinstance(jobs[-1], AdapterConversion)
    with pytest.raises(NotSupported, match="the adapter is safetensors and the model ggml"):
        shop.convert_adapter(FILES, FILES, "ggml", tmp_path, steps.append)


def test_a_closed_workshop_takes_no_work() -> None:
    shop = workshop()
    assert shop.submit(lambda: 1).result(10) == 1
    shop.close()
    with pytest.raises(Canceled, match="the server is stopping"):
        shop.submit(lambda: 1)


def test_what_takes_long_is_told_that_the_server_stops() -> None:
    shop = workshop(LLAMA)
    begun = threading.Event()

    def work() -> None:
        begun.set()
        for _ in range(3000):
            shop.check()
            time.sleep(0.01)

    shop.check()
    working = shop.submit(work)
    assert begun.wait(30)
    shop.close()
    with pytest.raises(Canceled, match="stopping"):
        working.result(30)

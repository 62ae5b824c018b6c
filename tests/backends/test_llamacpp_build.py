"""What an installed llama-cpp-python was built for, and whether that is the best for this machine."""

from __future__ import annotations

import asyncio
import importlib.metadata
import importlib.util
import os
import shutil
import subprocess
import sys
from collections.abc import Sequence
from importlib.machinery import ModuleSpec
from pathlib import Path
from typing import Any

import llama_cpp
import msgspec
import pytest

from corectl.errors import LoadFailed
from corectl.hardware.processor import Processor, processor
from corectl.runner import protocol
from corectl.runner.engine import DetailedBackend, EngineInfo, ModelSpec
from corectl.runner.supervisor import Runner
from corectl_llamacpp import ggml, load, numa, params, seen
from corectl_llamacpp.backend import LlamaCppBackend
from corectl_llamacpp.build import Build, build_of, installed
from corectl_llamacpp.extensions import computes_with_amx, lacking, notices_of
from tests.backends.conftest import EMBEDDER, placement

BACKEND = LlamaCppBackend()
COMMON = ("libggml-base.so", "libggml-cpu.so", "libggml.so", "libllama.so", "libmtmd.so")
HERE = Build(version="0.3.36", variant="cpu", folders=())

TREES: dict[str, tuple[tuple[str, ...], str]] = {
    "cpu": (COMMON, "cpu"),
    "cpu with versions": (
        tuple(f"{name}{end}" for name in COMMON for end in ("", ".0", ".0.25.3")),
        "cpu",
    ),
    "cuda": ((*COMMON, "libggml-cuda.so"), "cuda"),
    "rocm": ((*COMMON, "libggml-hip.so"), "rocm"),
    "vulkan": ((*COMMON, "libggml-vulkan.so.0.25.3"), "vulkan"),
    "sycl": ((*COMMON, "libggml-sycl.so"), "sycl"),
    "metal": (tuple(name.replace("so", "dylib") for name in (*COMMON, "libggml-metal.so")), "metal"),
    "metal and blas": (("libllama.dylib", "libggml-blas.dylib", "libggml-metal.dylib"), "metal"),
    "windows": (("llama.dll", "ggml-base.dll", "ggml-cpu.dll", "ggml-cuda.dll"), "cuda"),
    "several": ((*COMMON, "libggml-vulkan.so", "libggml-cuda.so"), "cuda"),
    "blas": ((*COMMON, "libggml-blas.so"), "cpu"),
    "what has such a name": ((*COMMON, "libggml-cuda.txt", "notlibggml-cuda.so", "libggml-cudart"), "cpu"),
}


def tree(folder: Path, files: Sequence[str], inside: str = "llama_cpp/lib") -> Path:
    """A package with these libraries, all empty; its folder."""
    (folder / inside).mkdir(parents=True, exist_ok=True)
    for name in files:
        (folder / inside / name).touch()
    return folder / "llama_cpp"


@pytest.mark.parametrize(("files", "variant"), TREES.values(), ids=TREES)
def test_a_build_is_known_by_its_libraries(tmp_path: Path, files: tuple[str, ...], variant: str) -> None:
    found = build_of(tree(tmp_path, files), "1.2.3")
    assert (found.variant, found.version, found.complete, found.processors) == (variant, "1.2.3", True, ())


def test_a_build_for_several_processors(tmp_path: Path) -> None:
    """Its libraries are loaded one by one, and lie where programs do."""
    kinds = ("libggml-cpu-haswell.so", "libggml-cpu-skylakex.so", "libggml-cpu-armv8.2_1.so")
    package = tree(tmp_path, ("libggml-base.so", "libggml.so", "libllama.so"))
    tree(tmp_path, (*kinds, "libggml-cuda.so"), "bin")
    found = build_of(package, "1")
    assert (found.variant, found.processors) == ("cuda", ("armv8.2_1", "haswell", "skylakex"))
    assert found.folders == (tmp_path / "bin", package / "lib")


def test_libraries_elsewhere(tmp_path: Path) -> None:
    package = tree(tmp_path, (*COMMON, "libggml-cuda.so"))
    tree(tmp_path, (*COMMON, "libggml-vulkan.so"), "other")
    assert build_of(package, "1", str(tmp_path / "other")).variant == "vulkan"
    assert not build_of(package, "1", str(tmp_path / "none")).complete


def install(monkeypatch: pytest.MonkeyPatch, package: Path) -> None:
    spec = ModuleSpec("llama_cpp", None, is_package=True)
    spec.submodule_search_locations = [str(package)]
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: spec)


@pytest.mark.parametrize(("files", "variant"), TREES.values(), ids=TREES)
def test_availability_names_it(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path, files: tuple[str, ...], variant: str
) -> None:
    install(monkeypatch, tree(tmp_path, files))
    found = BACKEND.availability()
    assert found.usable and found.adapters and found.variant == variant
    assert found.version == importlib.metadata.version("llama-cpp-python")


def test_a_package_without_its_libraries_says_what_to_type(
    monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    install(monkeypatch, tree(tmp_path, ("libggml.so",)))
    found = BACKEND.availability()
    assert not found.usable and "without its libraries; type: CMAKE_ARGS=" in found.reason
    assert BACKEND.details() == {}


def test_a_build_without_metadata(monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    install(monkeypatch, tree(tmp_path, COMMON))
    monkeypatch.setattr(
        importlib.metadata,
        "version",
        lambda name: (_ for _ in ()).throw(importlib.metadata.PackageNotFoundError(name)),
    )
    found = BACKEND.availability()
    assert found.usable and found.version == "unknown"


@pytest.mark.parametrize(
    ("variant", "flags"),
    [
        ("cpu", "-DGGML_NATIVE=ON"),
        ("cuda", "-DGGML_CUDA=ON -DGGML_NATIVE=ON"),
        ("rocm", "-DGGML_HIP=ON -DGGML_NATIVE=ON"),
        ("sycl", "-DGGML_SYCL=ON -DGGML_NATIVE=ON -DCMAKE_C_COMPILER=icx -DCMAKE_CXX_COMPILER=icpx"),
    ],
)
def test_the_command_that_builds_it_again(variant: str, flags: str) -> None:
    assert msgspec.structs.replace(HERE, variant=variant).command == (
        f'CMAKE_ARGS="{flags}" pip install --force-reinstall --no-deps --no-cache-dir '
        "--no-binary llama-cpp-python llama-cpp-python==0.3.36"
    )


X86 = Processor("Fast 9000", "x86_64", ("sse3", "avx", "f16c", "fma", "avx2", "bmi2", "avx512f", "amx_int8"))
ARM = Processor("Arm", "arm64", ("neon", "fp16", "dotprod", "i8mm"))


@pytest.mark.parametrize(
    ("there", "features", "missing"),
    [
        (X86, {"AVX", "F16C", "FMA", "AVX2", "BMI2", "AVX512", "AMX_INT8", "REPACK"}, ()),
        (X86, {"AVX", "F16C", "FMA", "AVX2", "BMI2", "REPACK"}, ("avx512f",)),
        (X86, {"SSE3", "REPACK"}, ("avx", "f16c", "fma", "avx2", "bmi2", "avx512f")),
        (ARM, {"NEON", "ARM_FMA", "FP16_VA", "MATMUL_INT8", "DOTPROD"}, ()),
        (ARM, {"NEON", "ARM_FMA"}, ("fp16", "dotprod", "i8mm")),
        (Processor("Old", "x86_64", ("sse3", "avx")), {"AVX", "AVX2", "FMA"}, ()),
        (Processor("Odd", "riscv64"), {"RISCV_V"}, ()),
        (X86, set(), ()),
    ],
)
def test_what_a_build_does_not_use(there: Processor, features: set[str], missing: tuple[str, ...]) -> None:
    assert lacking(there, features) == missing
    notices = notices_of(there, features, HERE)
    assert len(notices) == bool(missing)
    for notice in notices:
        assert notice.code == "slow_build"
        assert f"this processor has {', '.join(missing)}, which" in notice.message
        assert notice.message.endswith(HERE.command)


def test_amx_is_left_alone(monkeypatch: pytest.MonkeyPatch) -> None:
    """What follows it is that the tests of this backend run at all on a processor that has it."""
    with_amx = frozenset({"AVX512", "AMX_INT8"})
    assert computes_with_amx(X86, with_amx)
    assert not computes_with_amx(X86, {"AVX512"}) and not computes_with_amx(ARM, with_amx)
    for features, extra in ((frozenset({"AVX512"}), True), (with_amx, False)):
        monkeypatch.setattr(params, "processor", lambda: X86)
        monkeypatch.setattr(ggml, "features", lambda features=features: features)
        assert params.weight_params().use_extra_bufts is extra


def test_what_this_build_uses_is_what_ggml_says() -> None:
    ggml.start(())
    features = ggml.features()
    for feature in ("AVX2", "FMA", "AVX512", "NEON", "DOTPROD"):
        said = f"{feature} = 1" in llama_cpp.llama_print_system_info().decode()
        assert (feature in features) == said
    assert features and "CPU" not in features


@pytest.mark.parametrize(
    ("text", "features"),
    [
        (b"CPU : AVX = 1 | AVX2 = 1 | SVE_CNT = 16 | ", {"AVX", "AVX2"}),
        (b"CUDA : ARCHS = 890 | USE_GRAPHS = 1 | CPU : FMA = 1 | BMI2 = 0 | ", {"FMA"}),
        (b"CPU : NEON = 1 | REPACK = 1 | MTL : EMBED_LIBRARY = 1 | ", {"NEON", "REPACK"}),
        (b"", set()),
        (b"\xff something new", set()),
    ],
)
def test_features_are_those_of_the_part_for_processors(
    monkeypatch: pytest.MonkeyPatch, text: bytes, features: set[str]
) -> None:
    monkeypatch.setattr(llama_cpp, "llama_print_system_info", lambda: text)
    assert ggml.features() == features


def loaded(**changes: Any) -> EngineInfo:
    spec = ModelSpec(format="gguf", weights=EMBEDDER, embedding=True)
    engine = BACKEND.load(spec, placement(num_ctx=64, num_batch=64, **changes), lambda _: None)
    engine.close()
    return engine.info


def test_a_load_says_that_the_build_could_be_better(monkeypatch: pytest.MonkeyPatch) -> None:
    here = processor()
    assert [notice.code for notice in loaded().notices] == (
        ["slow_build"] if lacking(here, ggml.features()) else []
    )
    monkeypatch.setattr(load, "processor", lambda: Processor(here.name, here.family, ("avx", "avx2")))
    monkeypatch.setattr(ggml, "features", lambda: frozenset({"AVX"}))
    (notice,) = loaded().notices
    assert notice.code == "slow_build" and "this processor has avx2, which" in notice.message
    build = installed()
    assert build is not None and notice.message.endswith(build.command)


# NUMA


def test_nodes_of_a_machine(tmp_path: Path) -> None:
    for folder in ("node0/cpu0", "node0/cpu1", "node0/cpumap", "node1/cpu2", "node1/cpu3", "node2", "power"):
        (tmp_path / "sys/devices/system/node" / folder).mkdir(parents=True)
    assert numa.nodes(tmp_path) == [{0, 1}, {2, 3}, set()]
    assert numa.nodes(tmp_path / "none") == []


@pytest.mark.parametrize(
    ("nodes", "allowed", "strategy"),
    [
        ([], {0, 1}, numa.OFF),
        ([{0, 1}], {0, 1}, numa.OFF),
        ([{0, 1}, {2, 3}], {0, 1, 2, 3}, numa.DISTRIBUTE),
        # Somebody has confined the server, to one node or to a part of both.
        ([{0, 1}, {2, 3}], {2, 3}, numa.OFF),
        ([{0, 1}, {2, 3}], {0, 2}, numa.AS_ALLOWED),
        # A node of memory alone has no cores to put a thread on.
        ([{0, 1}, {2, 3}, set()], {0, 1, 2, 3}, numa.AS_ALLOWED),
        ([{0, 1}, set()], {0, 1}, numa.OFF),
    ],
)
def test_what_is_spread_over_nodes(nodes: list[set[int]], allowed: set[int], strategy: int) -> None:
    assert numa.strategy(nodes, allowed) == strategy


def test_numa_is_for_those_who_ask_on_machines_that_have_nodes(monkeypatch: pytest.MonkeyPatch) -> None:
    asked: list[int] = []
    monkeypatch.setattr(llama_cpp, "llama_numa_init", asked.append)
    monkeypatch.setattr(os, "sched_getaffinity", lambda pid: {0, 1, 2, 3}, raising=False)
    monkeypatch.setattr(numa, "nodes", lambda: [{0, 1, 2, 3}])
    loaded(numa=True)
    monkeypatch.setattr(numa, "nodes", lambda: [{0, 1}, {2, 3}])
    loaded()
    assert asked == []
    loaded(numa=True)
    assert asked == [numa.DISTRIBUTE]


# Asked in another process


def test_the_library_is_asked_in_a_process_of_its_own() -> None:
    assert isinstance(BACKEND, DetailedBackend)
    program = (
        "import sys; from corectl_llamacpp.backend import LlamaCppBackend\n"
        "facts = LlamaCppBackend().details()\n"
        "assert \"ggml's CPU\" in facts and facts['built to use'], facts\n"
        "sys.exit('llama_cpp' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0
    found = seen.ask()
    assert "CPU" in [device.name for device in found.devices] and found.features == ggml.features()


def test_facts_of_a_build_that_could_be_better(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "processor", lambda: X86)
    monkeypatch.setattr(seen, "ask", lambda: seen.Seen((), frozenset({"AVX", "FMA"})))
    facts = seen.facts_of(msgspec.structs.replace(HERE, processors=("haswell", "sandybridge")))
    assert facts == {
        "built to use": "AVX FMA",
        "built for processors": "haswell sandybridge",
        "not built for": "f16c avx2 bmi2 avx512f",
        "remedy": f"for more speed: {HERE.command}",
    }


def test_a_library_that_does_not_answer(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(seen, "SECONDS", 0.01)
    with pytest.raises(LoadFailed, match=r"has not answered within 0\.01 seconds"):
        seen.ask()


@pytest.fixture
def foreign(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A build that does what one for another processor does when it is loaded."""
    compiler = shutil.which("cc") or shutil.which("gcc")
    if compiler is None:
        pytest.skip("needs a C compiler")
    source = tmp_path / "foreign.c"
    source.write_text("#include <signal.h>\n__attribute__((constructor)) void f(void) { raise(SIGILL); }\n")
    name = "libllama.dylib" if sys.platform == "darwin" else "libllama.so"
    subprocess.run([compiler, "-shared", "-fPIC", "-o", tmp_path / name, source], check=True)
    monkeypatch.setenv("LLAMA_CPP_LIB_PATH", str(tmp_path))


@pytest.mark.usefixtures("foreign")
def test_a_build_for_another_processor_is_known_by_how_it_ends() -> None:
    facts = BACKEND.details()
    assert "built for a processor with instructions that this one does not have" in facts["library"]
    assert "-DGGML_NATIVE=ON" in facts["remedy"]


@pytest.mark.usefixtures("foreign")
def test_a_load_with_a_build_for_another_processor_says_so() -> None:
    async def story() -> None:
        request = protocol.Load(
            plugins=("llamacpp",),
            backend="llamacpp",
            model=ModelSpec(format="gguf", weights=EMBEDDER, embedding=True),
            placement=placement(num_ctx=64, num_batch=64),
        )
        with pytest.raises(LoadFailed, match=r"killed by SIGILL: the engine was built for another processor"):
            await Runner.start(request, load_timeout=60)

    asyncio.run(story())

"""What is said of ctransformers and of a model's memory without loading either."""

from __future__ import annotations

import subprocess
import sys
from collections.abc import Sequence
from pathlib import Path

import msgspec
import pytest

from corectl.hardware.processor import Processor
from corectl.runner.engine import Placement
from corectl_ctransformers import variant
from corectl_ctransformers.backend import CTransformersBackend
from corectl_ctransformers.header import Header, Tensor, read_header
from corectl_ctransformers.layouts import LAYOUTS, Sizes
from corectl_ctransformers.memory import BATCH, Graph, cell, estimate, fixed_context, native_context, weights
from tests.legacy_ggml import Size, write_ggml

MIB = 1 << 20
REAL = {
    "gpt2": Sizes(vocabulary=50257, width=1600, heads=25, layers=48, context=1024, type=1),
    "gptj": Sizes(vocabulary=50400, width=4096, heads=16, layers=28, context=2048, rotary=64, type=1),
    "gptneox": Sizes(vocabulary=50432, width=6144, heads=64, layers=44, context=2048, rotary=24, type=1),
    "mpt": Sizes(vocabulary=50432, width=4096, heads=32, layers=32, context=2048, type=1),
    "replit": Sizes(vocabulary=32768, width=2560, heads=32, layers=32, context=2048, type=1),
    "llama": Sizes(vocabulary=32000, width=4096, heads=32, layers=32, rotary=128, multiple=256, type=1),
    "falcon": Sizes(vocabulary=65024, width=4544, heads=71, key_heads=1, layers=32, kind=7, type=1),
}
"""The numbers of GPT-2 XL, GPT-J 6B, GPT-NeoX 20B, MPT 7B, Replit 3B, Llama 7B and Falcon 7B."""


def header(family: str, sizes: Sizes | None = None) -> Header:
    """As if a file had been read: all tensors in 16 bits."""
    layout = next(layout for layout in LAYOUTS if layout.family == family)
    sizes = sizes or REAL[family]
    tensors = tuple(Tensor(name, 1, shape) for name, shape in layout.expected(sizes).items())
    return Header(family=family, layout=layout, version=0, sizes=sizes, tensors=tensors, vocabulary=0)


@pytest.mark.parametrize(
    ("extensions", "name"),
    [
        (("avx", "f16c", "fma", "avx2", "avx512f"), "avx2"),
        (("avx", "f16c", "avx2"), "avx"),
        (("sse3", "avx", "f16c"), "avx"),
        (("sse3", "avx"), "basic"),
        (("neon", "dotprod"), "basic"),
        ((), None),
    ],
)
def test_the_build_is_that_for_the_processor(
    monkeypatch: pytest.MonkeyPatch, extensions: Sequence[str], name: str | None
) -> None:
    monkeypatch.setattr(variant, "processor", lambda: Processor("a processor", "x86_64", tuple(extensions)))
    assert variant.library_variant() == name


def test_a_build_that_was_made_here_comes_first(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    (tmp_path / "local").mkdir()
    monkeypatch.setattr(variant, "library_folder", lambda: tmp_path)
    assert variant.library_variant() == "local"


def test_what_is_missing_is_said(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    found = CTransformersBackend().availability()
    assert (found.usable, found.variant, found.version[:2]) == (True, "cpu", "0.")
    monkeypatch.setattr("corectl_ctransformers.backend.library_folder", lambda: None)
    assert "pip install 'corectl[ctransformers]'" in CTransformersBackend().availability().reason
    monkeypatch.setattr("corectl_ctransformers.backend.library_folder", lambda: tmp_path)
    for module in ("backend", "variant"):
        monkeypatch.setattr(f"corectl_ctransformers.{module}.platform.machine", lambda: "riscv64")
    assert "no build for riscv64" in CTransformersBackend().availability().reason
    (tmp_path / "local").mkdir()
    assert CTransformersBackend().availability().usable


def test_only_the_format_of_this_plugin_is_loaded() -> None:
    """llama.cpp loads GGUF files better."""
    assert CTransformersBackend().formats == ("ggml",)


@pytest.mark.parametrize(
    ("family", "gigabytes", "kilobytes"),
    [
        ("gpt2", 3.28, 600),
        ("gptj", 12.1, 448),
        ("gptneox", 41.1, 1056),
        ("mpt", 13.3, 512),
        ("replit", 5.2, 320),
        ("llama", 13.5, 512),
        ("falcon", 14.4, 12),
    ],
)
def test_weights_and_cells_of_known_models(family: str, gigabytes: float, kilobytes: int) -> None:
    found = header(family)
    assert weights(found) / 1e9 == pytest.approx(gigabytes, rel=0.02)
    assert cell(found) == kilobytes << 10
    whole = estimate(found)
    assert sum(layer.weights for layer in whole.layers) + whole.host == weights(found)
    assert len(whole.layers) == found.sizes.layers
    assert whole.compute < 256 * MIB


def test_a_last_matrix_that_is_the_first_one_is_in_memory_twice() -> None:
    whole = header("gpt2")
    tied = msgspec.structs.replace(
        whole, tensors=tuple(tensor for tensor in whole.tensors if tensor.name != "model/lm_head")
    )
    assert weights(tied) == weights(whole)


def test_a_llama_of_70_billion_has_an_eighth_of_the_keys() -> None:
    sizes = Sizes(
        vocabulary=32000, width=8192, heads=64, layers=80, rotary=128, multiple=4096, type=1, groups=8
    )
    found = header("llama", sizes)
    assert weights(found) / 1e9 == pytest.approx(137.9, rel=0.01)
    assert cell(found) == 320 << 10


@pytest.mark.parametrize(
    ("family", "first", "last"),
    [
        ("gpt2", 64, 64),
        ("gptj", 8, 8),
        ("gptneox", 64, 64),
        ("mpt", 64, 64),
        ("replit", 16, 0),
        ("falcon", 64, 64),
    ],
)
def test_as_many_tokens_are_computed_at_once_as_fit(family: str, first: int, last: int) -> None:
    found = header(family)
    graph = Graph(found, 2048)
    length = found.sizes.context or 2048
    assert (graph.batch(0), graph.batch(length - 1)) == (first, last)
    sizes = [graph.batch(position) for position in range(0, length, 64)]
    assert sizes == sorted(sizes, reverse=True)


def test_replits_context_ends_where_the_buffer_does() -> None:
    graph = Graph(header("replit"), 2048)
    longest = graph.longest(2048)
    assert 1250 < longest < 1450
    assert graph.batch(longest - 1) > 0 == graph.batch(longest)
    assert graph.longest(100) == 100


def test_a_long_mpt_is_cut_as_well() -> None:
    story = msgspec.structs.replace(REAL["mpt"], context=65536)
    assert 20_000 < Graph(header("mpt", story), 65536).longest(65536) < 32_000


def test_llama_measures_its_buffers_by_itself() -> None:
    graph = Graph(header("llama"), 100_000)
    assert graph.longest(100_000) == 100_000
    assert graph.batch(99_999) == BATCH


def test_memory_for_the_context_follows_the_wish_where_the_library_can() -> None:
    sized = {family for family in REAL if not fixed_context(header(family))}
    assert sized == {"mpt", "llama", "falcon"}


@pytest.mark.parametrize(
    ("family", "wanted", "loaded"),
    [
        ("gptj", 100, 2048),
        ("mpt", 100, 100),
        ("mpt", 4096, 2048),
        ("llama", 4096, 4096),
        ("llama", 1 << 40, 1 << 20),
    ],
)
def test_the_context_that_is_loaded(family: str, wanted: int, loaded: int) -> None:
    assert native_context(header(family), wanted) == loaded


def test_sizes_are_multiplied_as_32_bits() -> None:
    large = msgspec.structs.replace(REAL["falcon"], layers=60, kind=40, width=8192, heads=128, key_heads=8)
    longest = native_context(header("falcon", large), 1 << 20)
    assert 8 * 64 * 60 * longest < 1 << 31 < 8 * 64 * 60 * (longest + 1)


NATIVE = """
import ctypes, sys
from ctransformers.llm import LLM, Config
path, loader, context, position, count = sys.argv[1:3] + list(map(int, sys.argv[3:]))
native = LLM(path, loader, config=Config(context_length=context), lib="basic")
tokens = (ctypes.c_int * count)(*[5] * count)
assert native.ctransformers_llm_batch_eval(tokens, count, position, count, 1)
"""


@pytest.mark.parametrize("family", ["gptj", "replit", "mpt"])
def test_the_library_overflows_where_it_is_not_let(tmp_path: Path, family: str) -> None:
    """The largest batch that is allowed works, and four times as many tokens end the process."""
    size = Size(width=256, heads=128 if family != "gptj" else 64, layers=4, context=8192)
    path = write_ggml(tmp_path / "model.bin", family, "f32", size)
    found = read_header(path)
    position = 8000
    count = Graph(found, 8192).batch(position)

    def ends(tokens: int) -> int:
        command = [sys.executable, "-c", NATIVE, str(path), found.layout.loader, "8192"]
        ran = subprocess.run([*command, str(position), str(tokens)], capture_output=True, check=False)
        return ran.returncode

    assert count and ends(count) == 0
    assert ends(4 * count) < 0


def test_a_real_load_takes_about_what_is_said(tmp_path: Path) -> None:
    """In a process of its own, whose memory is measured."""
    size = Size(width=384, heads=6, layers=6, context=512)
    path = write_ggml(tmp_path / "model.bin", "gpt2", "f32", size)
    code = (
        "import sys, psutil, msgspec\n"
        "from pathlib import Path\n"
        "import ctransformers.llm\n"
        "from corectl.runner.engine import ModelSpec, Placement\n"
        "from corectl.testing.drive import draw\n"
        "from corectl_ctransformers.backend import CTransformersBackend\n"
        "placement = msgspec.json.decode(sys.argv[2], type=Placement)\n"
        "before = psutil.Process().memory_info().rss\n"
        "spec = ModelSpec(format='ggml', weights=Path(sys.argv[1]))\n"
        "engine = CTransformersBackend().load(spec, placement, lambda fraction: None)\n"
        "draw(engine, [5] * 500, 4, piece=64)\n"
        "print(psutil.Process().memory_info().rss - before, engine.info.memory)\n"
    )
    placement = Placement(num_ctx=512, cells=512, num_batch=64, max_sequences=1, num_thread=1)
    ran = subprocess.run(
        [sys.executable, "-c", code, str(path), msgspec.json.encode(placement).decode()],
        capture_output=True,
        check=True,
        text=True,
    )
    taken, said = map(int, ran.stdout.split())
    assert said / 1.5 < taken < said * 1.5, (taken, said)

"""Every kind of weights that llama.cpp makes: in the process that is made for it, loaded, and asked."""

from __future__ import annotations

import struct
from collections import Counter
from pathlib import Path

import pytest

from corectl.errors import BadModelFile, BadRequest, LoadFailed
from corectl.jobs.messages import Made, Quantization
from corectl.jobs.processes import Jobs
from corectl.model.details import quantization_level
from corectl.model.files import ModelFiles
from corectl.model.gguf import read_header
from corectl_llamacpp.backend import LlamaCppBackend
from corectl_llamacpp.kinds import KINDS
from tests.backends.conftest import draw, load, smollm2
from tests.forms import Forms
from tests.gguf_parts import split_gguf

pytestmark = pytest.mark.engine

LABELS = {"F32": "unknown", "MXFP4_MOE": "MXFP4"}
"""What the file says where that is not the kind's name; 0 stands for F32 and for not being said."""

PROMPT = "Why is the sky blue?"


class Steps(list[tuple[int, int]]):
    def __call__(self, completed: int, total: int) -> None:
        self.append((completed, total))


def quantize(source: ModelFiles, target: str, folder: Path, done: Steps | None = None) -> Made:
    folder.mkdir()
    job = Quantization(plugin="llamacpp", backend="llamacpp", files=source, target=target, folder=folder)
    return Jobs().run(job, Steps() if done is None else done)


def answer(path: Path) -> list[int]:
    """Four greedy tokens."""
    engine = load(path)
    try:
        return [item.token for item in draw(engine, engine.tokenizer.encode(PROMPT), 4)]
    finally:
        engine.close()


def test_documented_kinds_are_offered() -> None:
    documented = (
        *("q4_0", "q4_1", "q5_0", "q5_1", "q8_0", "q2_K", "q3_K_S", "q3_K_M", "q3_K_L"),
        *("q4_K_S", "q4_K_M", "q5_K_S", "q5_K_M", "q6_K", "f16", "bf16", "f32"),
    )
    assert {kind.upper() for kind in documented} <= set(LlamaCppBackend().quantizations)


@pytest.mark.parametrize("target", [kind for kind in KINDS if kind != "Q1_0"])
def test_a_kind_loads_and_answers(tmp_path: Path, forms: Forms, target: str) -> None:
    source = forms.gguf(2)
    steps = Steps()
    made = quantize(ModelFiles(weights=source), target, tmp_path / "made", steps)
    (file,) = made.files
    path = tmp_path / "made" / file.name
    header, before = read_header(path), read_header(source)
    assert quantization_level(header) == LABELS.get(target, target)
    assert header.parameter_count == before.parameter_count
    if target in ("F32", "F16", "BF16"):
        assert not made.notices
    else:
        assert path.stat().st_size < source.stat().st_size
    total = sum(tensor.size_bytes for tensor in before.tensors)
    assert steps == sorted(steps) and steps[-1] == (total, total)
    assert len(answer(path)) == 4


def test_half_the_bits_say_the_same(tmp_path: Path, forms: Forms) -> None:
    quantize(ModelFiles(weights=forms.gguf(2)), "Q8_0", tmp_path / "made")
    assert answer(tmp_path / "made" / "model.gguf")[0] == answer(forms.gguf(2))[0]


@pytest.mark.parametrize(("target", "count"), [("Q4_K_M", 12), ("Q4_0", 1)])
def test_tensors_of_another_kind_are_counted(tmp_path: Path, forms: Forms, target: str, count: int) -> None:
    """SmolLM2's rows of 576 do not divide by 256; one tensor would have become Q6_K in any case."""
    made = quantize(ModelFiles(weights=forms.gguf(2)), target, tmp_path / "made")
    ((code, message),) = [(notice.code, notice.message) for notice in made.notices]
    assert code == "quantize_fallback" and message.startswith(f"{count} of 20 tensors have rows")
    types = Counter(tensor.type_name for tensor in read_header(tmp_path / "made" / "model.gguf").tensors)
    instead = message.rpartition("they are ")[2].removesuffix(" instead").split(" or ")
    assert sum(types[name] for name in instead) >= count


def test_what_llama_cpp_refuses_says_why(tmp_path: Path, forms: Forms) -> None:
    with pytest.raises(LoadFailed, match="fallback"):
        quantize(ModelFiles(weights=forms.gguf(2)), "Q1_0", tmp_path / "made")


def test_what_is_quantised_is_not_quantised_again(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="only supported for F16, BF16 and F32"):
        quantize(ModelFiles(weights=smollm2()), "Q8_0", tmp_path / "made")


def test_a_damaged_file_never_reaches_llama_cpp(tmp_path: Path, forms: Forms) -> None:
    data = bytearray(forms.gguf(2).read_bytes())
    data[8:16] = struct.pack("<Q", 2**63)
    path = tmp_path / "damaged.gguf"
    path.write_bytes(data)
    with pytest.raises(BadModelFile):
        quantize(ModelFiles(weights=path), "Q8_0", tmp_path / "made")


def test_a_split_model_becomes_one_file(tmp_path: Path, forms: Forms) -> None:
    parts = split_gguf(forms.gguf(2), tmp_path / "parts", 3)
    named = {path.name: path for path in parts}
    quantize(ModelFiles(weights=parts[0], named=named), "Q8_0", tmp_path / "made")
    quantize(ModelFiles(weights=forms.gguf(2)), "Q8_0", tmp_path / "whole")
    ours, theirs = (read_header(tmp_path / name / "model.gguf") for name in ("made", "whole"))
    assert {tensor.name for tensor in ours.tensors} == {tensor.name for tensor in theirs.tensors}
    assert ours.metadata.get("split.count", 0) in (0, 1)
    assert answer(tmp_path / "made" / "model.gguf") == answer(tmp_path / "whole" / "model.gguf")

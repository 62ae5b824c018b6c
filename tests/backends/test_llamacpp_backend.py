"""The descriptor: what it says without loading, and how loads fail."""

from __future__ import annotations

import importlib.metadata
import importlib.util
import subprocess
import sys
from pathlib import Path

import pytest

from corectl.errors import BadModelFile, CorectlError, LoadFailed
from corectl.runner.engine import ModelSpec
from corectl_llamacpp.backend import LlamaCppBackend
from tests.backends.conftest import EMBEDDER, load, placement

BACKEND = LlamaCppBackend()


def _spec(weights: Path, *, embedding: bool = False) -> ModelSpec:
    return ModelSpec(format="gguf", weights=weights, embedding=embedding)


def test_availability() -> None:
    found = BACKEND.availability()
    assert found.usable
    assert found.version == importlib.metadata.version("llama-cpp-python")
    assert found.variant in ("cpu", "cuda", "hip", "metal", "vulkan", "sycl")


def test_availability_without_the_library_says_what_to_type(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None)
    found = BACKEND.availability()
    assert not found.usable
    assert "pip install 'corectl[llamacpp]'" in found.reason


def test_nothing_is_imported_to_describe_or_estimate() -> None:
    program = (
        "import sys; from pathlib import Path\n"
        "from corectl.runner.engine import CacheShape, ModelSpec\n"
        "from corectl_llamacpp.backend import LlamaCppBackend\n"
        "backend = LlamaCppBackend(); backend.availability()\n"
        f"model = ModelSpec(format='gguf', weights=Path({str(EMBEDDER)!r}))\n"
        "backend.estimate(model, CacheShape(num_batch=1, max_sequences=1))\n"
        "sys.exit('llama_cpp' in sys.modules or 'numpy' in sys.modules)"
    )
    assert subprocess.run([sys.executable, "-c", program], check=False).returncode == 0


def test_progress_grows_to_one() -> None:
    seen: list[float] = []
    engine = BACKEND.load(_spec(EMBEDDER, embedding=True), placement(num_ctx=64, num_batch=64), seen.append)
    engine.close()
    assert seen == sorted(seen) and seen[-1] == 1.0


def test_a_missing_file(tmp_path: Path) -> None:
    with pytest.raises((LoadFailed, BadModelFile), match="no-such"):
        load(tmp_path / "no-such.gguf")


@pytest.mark.parametrize("size", [0, 3, 100, 5000, -1000], ids=lambda size: f"{size} bytes")
def test_a_truncated_file(tmp_path: Path, size: int) -> None:
    data = EMBEDDER.read_bytes()
    short = tmp_path / "short.gguf"
    short.write_bytes(data[:size])
    with pytest.raises(CorectlError) as caught:
        load(short, embedding=True, num_ctx=64)
    assert isinstance(caught.value, LoadFailed | BadModelFile)
    assert caught.value.message


def test_a_file_that_only_llama_cpp_can_judge(tmp_path: Path) -> None:
    """The header is sound, but its tokenizer is one that llama.cpp does not know."""
    damaged = tmp_path / "damaged.gguf"
    data = EMBEDDER.read_bytes()
    key = b"tokenizer.ggml.model"
    at = data.index(key) + len(key)
    assert data.find(b"bert", at) < at + 32
    damaged.write_bytes(data[:at] + data[at:].replace(b"bert", b"zzz2", 1))
    with pytest.raises(LoadFailed, match="zzz2"):
        load(damaged, embedding=True, num_ctx=64)

"""The GGUF format plugin: recognising files, and what the server learns from a header."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from corectl.errors import BadModelFile
from corectl.model.files import ModelFiles
from corectl_gguf import Gguf, corectl_model_formats

FORMAT = Gguf()


def write(path: Path, fill: Callable[[Any], None], architecture: str = "llama") -> Path:
    """A file as other programs write it, with one small tensor."""
    writer = gguf.GGUFWriter(str(path), architecture)
    fill(writer)
    writer.add_tensor("token_embd.weight", np.ones((4, 32), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def test_it_is_offered_by_the_name_that_backends_use() -> None:
    assert [kind.name for kind in corectl_model_formats()] == ["gguf"]


def test_a_model_that_generates(tmp_path: Path) -> None:
    def fill(writer: Any) -> None:
        writer.add_context_length(2048)
        writer.add_embedding_length(32)
        writer.add_file_type(1)
        writer.add_chat_template("{{ messages }}")

    found = FORMAT.describe(ModelFiles(weights=write(tmp_path / "m.gguf", fill)))
    assert (found.architecture, found.parameter_count, found.quantization) == ("llama", 128, "F16")
    assert (found.context_length, found.embedding_length) == (2048, 32)
    assert (found.capabilities, found.chat_template) == (("completion",), "{{ messages }}")


def test_a_model_that_embeds(tmp_path: Path) -> None:
    def fill(writer: Any) -> None:
        writer.add_pooling_type(gguf.PoolingType.MEAN)

    found = FORMAT.describe(ModelFiles(weights=write(tmp_path / "m.gguf", fill, "bert")))
    assert (found.architecture, found.capabilities) == ("bert", ("embedding",))
    assert (found.context_length, found.embedding_length, found.chat_template) == (0, 0, "")


@pytest.mark.parametrize(
    "fill",
    [
        lambda writer: writer.add_int32("llama.context_length", -5),
        lambda writer: writer.add_string("llama.context_length", "many"),
        lambda writer: writer.add_bool("llama.context_length", True),
        lambda writer: writer.add_float32("llama.context_length", 4096.0),
        lambda writer: writer.add_context_length(0),
    ],
    ids=["negative", "text", "bool", "float", "zero"],
)
def test_a_length_that_is_none_is_damage(tmp_path: Path, fill: Callable[[Any], None]) -> None:
    with pytest.raises(BadModelFile, match="context_length"):
        FORMAT.describe(ModelFiles(weights=write(tmp_path / "m.gguf", fill)))


def test_a_chat_template_that_is_no_text(tmp_path: Path) -> None:
    path = write(tmp_path / "m.gguf", lambda writer: writer.add_uint32("tokenizer.chat_template", 7))
    assert FORMAT.describe(ModelFiles(weights=path)).chat_template == ""


@pytest.mark.parametrize("data", [b"", b"GGUF", b"GGUF" + b"\xff" * 40])
def test_a_damaged_file_says_so(tmp_path: Path, data: bytes) -> None:
    path = tmp_path / "m.gguf"
    path.write_bytes(data)
    with pytest.raises(BadModelFile):
        FORMAT.describe(ModelFiles(weights=path))

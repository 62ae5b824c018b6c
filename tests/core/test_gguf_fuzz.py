"""GGUF headers made at random, sound and hurt: a typed error or a checked header, quickly, and nothing else.

A longer run: `FUZZ_EXAMPLES=500000 pytest tests/core/test_gguf_fuzz.py`.
"""

from __future__ import annotations

import os
import struct
import time
from pathlib import Path
from typing import TypeVar

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from corectl.errors import BadModelFile
from corectl.model.details import model_info
from corectl.model.ggml import SCALAR_FORMATS
from corectl.model.gguf import read_header

T = TypeVar("T")

EXAMPLES = int(os.environ.get("FUZZ_EXAMPLES", "400"))

STRING, ARRAY = 8, 9
ODD = st.sampled_from(
    [0, 1, 2, 31, 32, 33, 255, 2**31 - 1, 2**31, 2**32 - 1, 2**62, 2**63 - 1, 2**63, 2**64 - 1]
)
COUNTS = st.one_of(st.integers(0, 8), ODD)


def mostly(value: T, otherwise: st.SearchStrategy[T]) -> st.SearchStrategy[T]:
    """Seldom something else: a file with many wounds dies of the first one, and the others are never looked at."""
    return st.integers(0, 24).flatmap(lambda dice: otherwise if dice == 24 else st.just(value))


def length(data: bytes) -> st.SearchStrategy[bytes]:
    """A string with its length in front, which now and then is another one."""
    return mostly(len(data), ODD).map(lambda count: struct.pack("<Q", count) + data)


TEXTS = st.text(max_size=12).map(str.encode)
STRINGS = st.one_of(TEXTS, TEXTS, st.binary(max_size=24)).flatmap(length)
KNOWN = (
    "general.architecture",
    "general.alignment",
    "llama.block_count",
    "split.no",
    "tokenizer.chat_template",
)
NAMES = st.integers(0, 9).flatmap(
    lambda dice: st.sampled_from(KNOWN).map(str.encode) if dice == 9 else TEXTS.map(lambda text: b"k" + text)
)
Named = tuple[bytes, bytes]
"""A name, and all bytes of the entry that has it."""


@st.composite
def scalars(draw: st.DrawFn, kind: int) -> bytes:
    code = SCALAR_FORMATS.get(kind)
    return draw(st.binary(max_size=8)) if code is None else draw(st.binary(**_exactly(struct.calcsize(code))))


def _exactly(size: int) -> dict[str, int]:
    return {"min_size": size, "max_size": size}


@st.composite
def arrays(draw: st.DrawFn) -> bytes:
    kind = draw(st.integers(0, 12).map(lambda kind: 14 if kind == ARRAY else kind))
    items = draw(st.lists(STRINGS if kind == STRING else scalars(kind), max_size=6))
    count = draw(mostly(len(items), COUNTS))
    return struct.pack("<IQ", kind, count) + b"".join(items)


@st.composite
def pairs(draw: st.DrawFn) -> Named:
    kind = draw(mostly(draw(st.integers(0, 12)), st.integers(13, 2**32 - 1)))
    value = draw(STRINGS if kind == STRING else arrays() if kind == ARRAY else scalars(kind))
    name = draw(NAMES)
    return name, draw(length(name)) + struct.pack("<I", kind) + value


@st.composite
def tensors(draw: st.DrawFn) -> Named:
    shape = draw(st.lists(mostly(draw(st.sampled_from([1, 2])), COUNTS), max_size=3))
    shape.insert(0, draw(mostly(256, COUNTS)))
    kind = draw(mostly(draw(st.sampled_from([0, 1, 8, 12])), st.integers(0, 2**32 - 1)))
    offset = draw(mostly(draw(st.integers(0, 128)) * 32, ODD))
    rank = draw(mostly(len(shape), COUNTS.map(lambda n: n % 2**32)))
    packed = (
        struct.pack("<I", rank) + struct.pack(f"<{len(shape)}Q", *shape) + struct.pack("<IQ", kind, offset)
    )
    name = draw(NAMES)
    return name, draw(length(name)) + packed


ARCHITECTURE = struct.pack("<Q", 20) + b"general.architecture" + struct.pack("<IQ", STRING, 5) + b"llama"


@st.composite
def files(draw: st.DrawFn) -> tuple[bytes, int]:
    """The header, and how many zeros come after it."""
    keys = [data for _, data in draw(st.lists(pairs(), max_size=6, unique_by=lambda entry: entry[0]))]
    if draw(mostly(True, st.just(False))):
        keys.insert(0, ARCHITECTURE)
    placed = [data for _, data in draw(st.lists(tensors(), max_size=4, unique_by=lambda entry: entry[0]))]
    version = draw(mostly(3, st.sampled_from([2, 1, 4, 0, 0x03000000])))
    key_count, tensor_count = draw(mostly(len(keys), COUNTS)), draw(mostly(len(placed), COUNTS))
    head = b"GGUF" + struct.pack("<IQQ", version, tensor_count, key_count) + b"".join([*keys, *placed])
    data = bytearray(head + bytes(-len(head) % 32))
    for _ in range(draw(mostly(0, st.integers(1, 3)))):
        data[draw(st.integers(0, len(head) - 1))] = draw(st.integers(0, 255))
    end = draw(mostly(len(data), st.integers(0, len(data))))
    return bytes(data[:end]), draw(st.sampled_from([8192, 8192, 64, 0])) if end == len(data) else 0


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return tmp_path_factory.mktemp("fuzz") / "model.gguf"


@settings(max_examples=EXAMPLES, suppress_health_check=list(HealthCheck))
@given(file=files(), with_arrays=st.booleans())
def test_a_header_is_sound_or_refused(path: Path, file: tuple[bytes, int], with_arrays: bool) -> None:
    data = file[0] + bytes(file[1])
    path.write_bytes(data)
    # What is slow is slow twice; a collection of what hundreds of thousands of examples have left is not.
    assert any(seconds_for(path, data, with_arrays) < 1 for _ in range(2))


def seconds_for(path: Path, data: bytes, with_arrays: bool) -> float:
    """The processor's time for one header, whose answer is checked."""
    before = time.process_time()
    try:
        header = read_header(path, arrays=with_arrays)
    except BadModelFile as error:
        assert str(path) not in error.message and len(error.message) < 2000
    else:
        assert header.data_offset <= len(data) + header.alignment
        for tensor in header.tensors:
            assert tensor.offset >= 0 and header.data_offset + tensor.offset + tensor.size_bytes <= len(data)
            assert tensor.elements > 0
        model_info(path, verbose=with_arrays)
    return time.process_time() - before

"""Creating models whose GGUF is split into several files."""

from __future__ import annotations

from typing import Any

import pytest

from corectl.errors import BadModelFile, BadRequest
from corectl.model.details import human_number, model_info, tensor_list
from corectl.model.manifest import MediaType
from corectl.model.name import ModelName
from corectl.model.split import parts_of, whole_header
from corectl.store import weights
from tests.core.create_kit import CHATML, CHATML_GO, Bench

TENSORS = ("token_embd.weight", "blk.0.attn_q.weight", "output.weight")


def upload_parts(bench: Bench, count: int = 3, **first: Any) -> list[str]:
    """The digests of parts with one tensor each."""
    return [
        bench.upload(
            tensors=TENSORS[number : number + 1],
            split=(number, count, count),
            **(first if not number else {}),
        )
        for number in range(count)
    ]


def named(digests: list[str]) -> dict[str, str]:
    return {
        f"w-{number:05d}-of-{len(digests):05d}.gguf": digest for number, digest in enumerate(digests, start=1)
    }


def test_the_parts_are_one_model(bench: Bench) -> None:
    digests = upload_parts(bench, chat_template=CHATML, file_type=1)
    files = dict(reversed(named(digests).items()))
    statuses = bench.create("split", files=files)
    assert statuses[:5] == [
        "parsing GGUF",
        "verifying conversion",
        *(f"using existing layer {digest}" for digest in digests),
    ]
    record = bench.get("split")
    layers = [layer for layer in record.layers if layer.media_type == MediaType.MODEL]
    assert [layer.digest for layer in layers] == digests
    assert [layer.name for layer in layers] == list(named(digests))
    assert record.files is not None
    assert parts_of(record.files) == tuple(bench.catalog.blobs.path_of(digest) for digest in digests)
    assert record.weights == record.files.weights == parts_of(record.files)[0]
    assert (record.config.file_type, record.config.model_type) == ("F16", human_number(24))
    assert record.template == CHATML_GO


def test_what_is_said_of_it_is_about_all_parts(bench: Bench) -> None:
    bench.create("split", files=named(upload_parts(bench)))
    record = bench.get("split")
    assert record.files is not None
    header = whole_header(record.files)
    assert {tensor.name for tensor in header.tensors} == set(TENSORS)
    assert header.parameter_count == 24
    assert header.file_size == sum(path.stat().st_size for path in parts_of(record.files))
    assert model_info(record)["general.parameter_count"] == 24
    assert {tensor.name for tensor in tensor_list(parts_of(record.files))} == set(TENSORS)


def test_names_say_nothing_and_the_store_has_better_ones(bench: Bench) -> None:
    first, second, third = upload_parts(bench)
    bench.create("split", files={"a.gguf": third, "b": first, "model-00001-of-00003.gguf": second})
    record = bench.get("split")
    layers = [(layer.name, layer.digest) for layer in record.layers if layer.media_type == MediaType.MODEL]
    assert layers == [
        ("model-00001-of-00003.gguf", first),
        ("model-00002-of-00003.gguf", second),
        ("model-00003-of-00003.gguf", third),
    ]


def test_others_may_store_the_parts_without_names(bench: Bench) -> None:
    digests = upload_parts(bench)
    bench.create("split", files=named(digests))
    manifest = bench.catalog.manifests.read(ModelName.parse("split"))
    data = manifest.data
    for number in (1, 2, 3):
        data = data.replace(f',"name":"w-{number:05d}-of-00003.gguf"'.encode(), b"")
    assert data != manifest.data
    bench.catalog.install(ModelName.parse("other"), data)
    files = bench.get("other").files
    assert files is not None
    assert parts_of(files) == tuple(bench.catalog.blobs.path_of(digest) for digest in digests)


def test_a_projector_beside_the_parts(bench: Bench) -> None:
    files = {**named(upload_parts(bench)), "mmproj.gguf": bench.upload("clip")}
    bench.create("seeing", files=files)
    record = bench.get("seeing")
    assert len(record.paths(MediaType.MODEL)) == 3 and len(record.paths(MediaType.PROJECTOR)) == 1
    assert record.files is not None and len(record.files.named) == 3


def test_one_of_one_is_a_whole(bench: Bench) -> None:
    bench.create("whole", files={"m.gguf": bench.upload(split=(0, 1, 1))})
    (layer,) = [layer for layer in bench.get("whole").layers if layer.media_type == MediaType.MODEL]
    assert layer.name == ""


def test_a_copy_and_a_quantised_one(bench: Bench) -> None:
    bench.create("split", files=named(upload_parts(bench, file_type=1)))
    bench.create("child", from_="split", system="Be brief.")
    assert bench.get("child").files == bench.get("split").files
    bench.create("small", from_="split", quantize="q8_0")
    record = bench.get("small")
    assert len(record.paths(MediaType.MODEL)) == 1 and record.config.file_type == "Q8_0"


def test_parts_that_do_not_make_a_model_are_refused(bench: Bench) -> None:
    first, second, third = upload_parts(bench)
    other = bench.upload(tensors=("x",), split=(1, 4, 4))
    same = bench.upload(tensors=("y",), split=(1, 3, 3))
    beyond = bench.upload(tensors=("y",), split=(7, 3, 3))
    more = bench.upload(tensors=("y", "z"), split=(1, 3, 3))
    again = bench.upload(tensors=TENSORS[:1], split=(1, 3, 3))
    many = bench.upload(split=(0, 60000, 1))
    for files, problem in (
        ((first, third), "missing 2"),
        ((second,), "missing 1, 3"),
        ((first, other, third), "parts of different models: of 3, 4 files"),
        ((first, second, same, third), "are here twice: 2"),
        ((first, beyond, third), "one of them is number 8"),
        ((first, more, third), "hold 4 tensors, not 3"),
        ((first, again, third), "a tensor twice"),
        ((many,), "60000 files, at most 1024"),
    ):
        before = bench.blobs()
        with pytest.raises(BadModelFile, match=problem):
            bench.create("x", files={f"{number}.gguf": digest for number, digest in enumerate(files)})
        assert bench.blobs() == before
    with pytest.raises(BadRequest, match="more than one model"):
        whole = bench.upload()
        bench.create("x", files={"0.gguf": first, "1.gguf": second, "2.gguf": third, "whole.gguf": whole})


def test_endless_files_and_tensors_are_refused(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    digests = upload_parts(bench)
    monkeypatch.setattr(weights, "MOST_FILES", 2)
    with pytest.raises(BadRequest, match="names 3 GGUF files, at most 2"):
        bench.create("x", files=named(digests))
    monkeypatch.setattr(weights, "MOST_FILES", 3)
    monkeypatch.setattr(weights, "MOST_TENSORS", 2)
    with pytest.raises(BadModelFile, match="more than 2 tensors"):
        bench.create("x", files=named(digests))

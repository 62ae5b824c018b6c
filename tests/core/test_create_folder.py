"""Creating models of folders: kept as they are, converted, and with adapters."""

from __future__ import annotations

import pytest

from corectl.errors import BadModelFile, BadRequest, NotSupported
from corectl.model.manifest import MediaType
from corectl.model.name import ModelName
from tests.core.create_kit import CHATML_GO, Bench


def test_a_folder_of_files_keeps_their_names(bench: Bench) -> None:
    statuses = bench.create("folder", files=bench.checkpoint())
    assert statuses[-1] == "success"
    assert "using autodetected template chatml" in statuses
    record = bench.get("folder")
    config = record.config
    assert (config.model_format, config.model_family, config.file_type, config.model_type) == (
        *("safetensors", "llama", "F16", "8"),
    )
    assert (config.context_length, config.embedding_length) == (64, 2)
    assert record.files is not None
    assert record.weights == record.files.weights == record.files.named["model-1.safetensors"]
    assert record.files.named.keys() == {
        *(
            "model-1.safetensors",
            "model-2.safetensors",
            "config.json",
            "tokenizer_config.json",
            "sub/extra.txt",
        ),
    }
    assert record.files.read("sub/extra.txt", 9) == b"x"
    assert record.template == CHATML_GO


def test_a_copy_and_a_derived_model_have_the_same_files(bench: Bench) -> None:
    bench.create("folder", files=bench.checkpoint())
    bench.catalog.copy(ModelName.parse("folder"), ModelName.parse("copy"))
    bench.create("derived", from_="folder", system="Be brief.")
    original = bench.get("folder").files
    assert original == bench.get("copy").files == bench.get("derived").files


def test_a_folder_that_no_format_claims_is_no_model(bench: Bench) -> None:
    files = bench.checkpoint()
    del files["config.json"]
    before = bench.blobs()
    with pytest.raises(NotSupported, match=r"config\.json belongs to them"):
        bench.create("x", files=files)
    with pytest.raises(BadRequest, match="unknown type"):
        bench.create("x", files={"notes.txt": bench.put(b"x")})
    assert bench.blobs() >= before


def test_a_damaged_folder_leaves_no_trace(bench: Bench) -> None:
    files = bench.checkpoint(config_json=b'{"model_type": ')
    before = bench.blobs()
    with pytest.raises(BadModelFile, match=r"config\.json is damaged"):
        bench.create("x", files=files)
    assert bench.blobs() == before
    assert bench.catalog.find(ModelName.parse("x")) is None


def test_a_folder_is_not_laid_over_another_model(bench: Bench) -> None:
    bench.create("folder", files=bench.checkpoint())
    with pytest.raises(BadRequest, match="both 'from' and 'files'"):
        bench.create("x", from_="folder", files=bench.checkpoint())


def test_an_adapter_of_safetensors_for_such_a_model(bench: Bench) -> None:
    bench.create("folder", files=bench.checkpoint())
    adapter = {
        name: bench.put(name.encode()) for name in ("adapters.safetensors", "adapter_config.json", "x.json")
    }
    bench.create("tuned", from_="folder", adapters=adapter)
    record = bench.get("tuned")
    assert set(record.named(MediaType.ADAPTER)) == {"adapters.safetensors", "adapter_config.json"}
    assert record.files == bench.get("folder").files
    del adapter["adapter_config.json"]
    with pytest.raises(BadRequest, match="adapter_config"):
        bench.create("x", from_="folder", adapters=adapter)


def test_a_sentence_embedding_model_keeps_its_modules(bench: Bench) -> None:
    """They say how its vectors are pooled; the weights that stand for the model are those that lie highest."""
    files = bench.checkpoint()
    more = {
        "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}',
        "2_Dense/model.safetensors": b"dense",
        "modules.json": b"[]",
        "chat_template.jinja": b"{{ messages }}",
        "vocab.txt": b"a",
        "README.md": b"# A model",
    }
    header = b"{}".ljust(8)
    more["2_Dense/model.safetensors"] = len(header).to_bytes(8, "little") + header
    files |= {name: bench.put(data) for name, data in more.items()}
    bench.create("embedder", files=files)
    record = bench.get("embedder")
    assert record.files is not None and record.files.named.keys() == files.keys()
    assert record.weights == record.files.named["model-1.safetensors"]
    assert record.named(MediaType.MODEL).keys() == {
        *("model-1.safetensors", "model-2.safetensors", "2_Dense/model.safetensors")
    }

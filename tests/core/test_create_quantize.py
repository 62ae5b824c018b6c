"""Creating models with smaller weights, and which way their files go."""

from __future__ import annotations

import hashlib

import pytest

from corectl.errors import BadRequest, LoadFailed, NotSupported
from corectl.model.details import details_of
from corectl.model.manifest import MediaType
from corectl.model.name import ModelName
from corectl.progress import Progress
from corectl.store.blobs import BlobStore, StoredBlob
from corectl.store.create import CreateSpec, create
from corectl.store.ways import Way
from tests.core.create_kit import CHATML, CHATML_GO, FALLBACK, STOP, Bench, digest

LAYER = "using existing layer"


def weights(bench: Bench, model: str) -> str:
    (layer,) = [layer for layer in bench.get(model).layers if layer.media_type == MediaType.MODEL]
    return layer.digest


def test_a_model_is_quantised(bench: Bench) -> None:
    bench.create("half", files={"m.gguf": bench.upload(chat_template=CHATML, file_type=1)})
    statuses = bench.create("small", from_="half", quantize="q4_k_m")
    assert statuses == [
        "quantizing F16 model to Q4_K_M",
        FALLBACK.message,
        "verifying conversion",
        f"creating new layer {weights(bench, 'small')}",
        f"{LAYER} {digest(CHATML_GO.encode())}",
        f"{LAYER} {digest(STOP)}",
        "writing manifest",
        "success",
    ]
    details = details_of(bench.get("small"))
    assert (details.quantization_level, details.format, details.parent_model) == ("Q4_K_M", "gguf", "")
    assert weights(bench, "small") != weights(bench, "half")
    assert not [name for name in bench.blobs() if name.startswith("tmp-")]


def test_what_was_made_is_not_copied(bench: Bench, monkeypatch: pytest.MonkeyPatch) -> None:
    """It lies on the store's file system, also where that has neither links nor clones."""
    bench.create("half", files={"m.gguf": bench.upload(chat_template=CHATML, file_type=1)})

    def copied(*args: object) -> StoredBlob:
        raise AssertionError("gigabytes are copied while the store is locked")

    monkeypatch.setattr(BlobStore, "link", lambda *args: None)
    monkeypatch.setattr(BlobStore, "copy", copied)
    bench.create("small", from_="half", quantize="q4_k_m")
    path = bench.catalog.blobs.path_of(weights(bench, "small"))
    assert hashlib.sha256(path.read_bytes()).hexdigest() == path.name.removeprefix("sha256-")
    assert path.stat().st_mode & 0o777 == 0o644
    statuses = bench.create("again", from_="half", quantize="q4_k_m")
    assert f"{LAYER} {weights(bench, 'small')}" in statuses


def test_a_link_is_no_result(bench: Bench) -> None:
    """What it leads to is somebody else's."""
    place = bench.root / "elsewhere"
    place.write_bytes(b"hello")
    with bench.catalog.blobs.scratch() as folder:
        (folder / "link").symlink_to(place)
        for path in (folder / "link", folder):
            with pytest.raises(BadRequest, match="not a regular file"):
                bench.catalog.blobs.move(path, digest(b"hello"))
    assert place.read_bytes() == b"hello"
    assert not bench.catalog.blobs.exists(digest(b"hello"))


def test_an_uploaded_file_is_quantised(bench: Bench) -> None:
    upload = bench.upload(chat_template=CHATML, file_type=32)
    statuses = bench.create("small", files={"m.gguf": upload}, quantize="Q4_K")
    assert statuses[:4] == [
        "parsing GGUF",
        "quantizing BF16 model to Q4_K_M",
        FALLBACK.message,
        "verifying conversion",
    ]
    assert "using autodetected template chatml" in statuses
    record = bench.get("small")
    assert record.config.file_type == "Q4_K_M" and record.template == CHATML_GO
    assert weights(bench, "small") != upload


def test_weights_of_no_stated_kind_are_what_they_hold(bench: Bench) -> None:
    statuses = bench.create("small", files={"m.gguf": bench.upload(file_type=0)}, quantize="q8_0")
    assert statuses[1] == "quantizing F32 model to Q8_0"
    bench.create("wide", files={"m.gguf": bench.upload(file_type=1)}, quantize="f32")
    assert bench.get("wide").config.file_type == "F32"


def test_what_has_the_kind_already_stays_as_it_is(bench: Bench) -> None:
    upload = bench.upload(file_type=1)
    bench.create("half", files={"m.gguf": upload}, quantize="f16")
    bench.create("same", from_="half", quantize="F16")
    assert weights(bench, "same") == weights(bench, "half") == upload
    assert details_of(bench.get("same")).parent_model == "half:latest"


def test_a_projector_is_not_quantised(bench: Bench) -> None:
    files = {"m.gguf": bench.upload(file_type=1), "p.gguf": bench.upload("clip", file_type=1)}
    bench.create("seeing", files=files)
    bench.create("small", from_="seeing", quantize="q8_0")
    record = bench.get("small")
    projectors = [layer.digest for layer in record.layers if layer.media_type == MediaType.PROJECTOR]
    assert projectors == [files["p.gguf"]]
    assert record.config.model_families == ("llama", "clip")
    assert weights(bench, "small") != files["m.gguf"]


def test_a_job_that_fails_leaves_no_trace(bench: Bench) -> None:
    def fail() -> None:
        raise LoadFailed("the process broke off")

    bench.create("half", files={"m.gguf": bench.upload(file_type=1)})
    before = bench.blobs()
    bench.workshop.during = fail
    with pytest.raises(LoadFailed, match="broke off"):
        bench.create("small", from_="half", quantize="q8_0")
    assert bench.blobs() == before
    assert bench.catalog.find(ModelName.parse("small")) is None


def test_a_folder_is_quantised_on_the_way_in(bench: Bench) -> None:
    files = bench.checkpoint()
    before = bench.blobs()
    statuses = bench.create("small", files=files, quantize="INT4")
    assert statuses[0] == "quantizing F16 model to int4"
    record = bench.get("small")
    assert record.files is not None and "model-2.safetensors" not in record.files.named
    assert record.config.model_type == "4"
    with pytest.raises(BadRequest, match="INT3 - supported types are int4"):
        bench.create("other", files=files, quantize="int3")
    # Nothing is left but what was uploaded, and what the model has.
    config = {path.name for path in (bench.root / "blobs").iterdir() if path.stat().st_size < 400}
    made = {layer.digest.replace(":", "-") for layer in record.layers}
    assert bench.blobs() - before <= made | config


def test_a_kept_folder_is_quantised_later(bench: Bench) -> None:
    bench.create("folder", files=bench.checkpoint(), system="Be brief.")
    bench.create("small", from_="folder", quantize="int4")
    record = bench.get("small")
    assert record.files is not None and record.files.named.keys() == {
        *("model-1.safetensors", "config.json", "tokenizer_config.json", "sub/extra.txt")
    }
    assert record.system == "Be brief." and record.config.model_format == "safetensors"


CONVERTED = Way(format="gguf", converter="fake", quantizations=("Q8_0",))


def test_a_folder_is_converted_where_that_is_its_way(bench: Bench) -> None:
    bench.workshop.ways = [Way(format="safetensors"), CONVERTED]
    statuses = bench.create("converted", files=bench.checkpoint())
    assert statuses[:2] == ["converting model", "verifying conversion"]
    assert "using autodetected template chatml" in statuses
    record = bench.get("converted")
    assert (record.config.model_format, record.config.file_type) == ("gguf", "F16")
    assert len(record.layers) == 3 and not record.named(MediaType.MODEL, MediaType.JSON)
    statuses = bench.create("small", files=bench.checkpoint(), quantize="q8_0")
    assert statuses[:2] == ["converting model", "quantizing F16 model to Q8_0"]
    assert bench.get("small").config.file_type == "Q8_0"


def test_a_kept_folder_is_converted_for_a_kind_that_its_format_has_not(bench: Bench) -> None:
    bench.create("folder", files=bench.checkpoint())
    bench.workshop.ways = [Way(format="safetensors", quantizations=("int4",)), CONVERTED]
    bench.create("small", from_="folder", quantize="q8_0")
    config = bench.get("small").config
    assert (config.model_format, config.file_type, config.model_family) == ("gguf", "Q8_0", "llama")


def test_a_backend_that_is_named_decides(bench: Bench) -> None:
    bench.workshop.ways = [
        Way(format="safetensors", backends=("mlx",)),
        Way(format="gguf", converter="fake", backends=("llamacpp",)),
    ]
    bench.create("kept", files=bench.checkpoint(), parameters={"backend": "mlx"})
    assert bench.get("kept").config.model_format == "safetensors"
    assert bench.workshop.wishes[-1].backend == "mlx" and bench.workshop.wishes[-1].name.model == "kept"


def test_a_folder_that_nothing_here_can_use_says_why(bench: Bench) -> None:
    bench.workshop.ways = [
        Way(format="safetensors", problem="no backend"),
        Way(format="gguf", converter="fake", problem='unsupported architecture "Odd"'),
    ]
    with pytest.raises(NotSupported, match=r'^unsupported architecture "Odd"; no backend$'):
        bench.create("x", files=bench.checkpoint())


def test_an_adapter_is_converted_for_a_base_in_gguf(bench: Bench) -> None:
    adapter = {name: bench.put(name.encode()) for name in ("adapters.safetensors", "adapter_config.json")}
    base = bench.upload(file_type=1)
    bench.create("base", files={"m.gguf": base})
    statuses = bench.create("tuned", from_="base", adapters=adapter)
    assert statuses[0] == "converting adapter"
    record = bench.get("tuned")
    (layer,) = [layer for layer in record.layers if layer.media_type == MediaType.ADAPTER]
    assert not layer.name and f"creating new layer {layer.digest}" in statuses
    ((given, for_base),) = bench.workshop.adapters
    assert set(given.named) == set(adapter)
    assert for_base.weights == bench.catalog.blobs.path_of(base)


def test_an_adapter_fits_the_base_as_it_is_made(bench: Bench) -> None:
    """A base that is quantised in the same request is what the adapter is converted for."""
    adapter = {name: bench.put(name.encode()) for name in ("adapters.safetensors", "adapter_config.json")}
    files = {"m.gguf": bench.upload(file_type=1)}
    bench.create("tuned", files=files, adapters=adapter, quantize="q8_0")
    ((_, base),) = bench.workshop.adapters
    assert base.weights.name == "model.gguf"


def test_what_was_said_of_a_job_is_a_notice(bench: Bench) -> None:
    steps: list[Progress] = []
    spec = CreateSpec(model="x", files={"m.gguf": bench.upload(file_type=1)}, quantize="q8_0")
    create(bench.catalog, spec, steps.append, importer=bench.workshop)
    assert [step.notice for step in steps if step.notice] == [FALLBACK]


def test_what_is_made_has_the_digest_of_its_bytes(bench: Bench) -> None:
    bench.create("small", files={"m.gguf": bench.upload(file_type=1)}, quantize="q8_0")
    path = bench.catalog.blobs.path_of(weights(bench, "small"))
    assert f"sha256:{hashlib.sha256(path.read_bytes()).hexdigest()}" == weights(bench, "small")
    assert path.stat().st_nlink == 1

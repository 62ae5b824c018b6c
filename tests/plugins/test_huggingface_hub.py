"""What a session with the hub offers for a repository, whom it shows the token, and what it refuses."""

from __future__ import annotations

import asyncio
import hashlib
import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator, Mapping
from contextlib import suppress
from pathlib import Path
from typing import Any

import msgspec
import pytest
from hypothesis import given
from hypothesis import strategies as st

import corectl_huggingface.hub
from corectl.errors import (
    BadModelFile,
    BadRequest,
    Busy,
    CorectlError,
    Forbidden,
    NotFound,
    NotSupported,
    RemoteError,
    RemoteUnreachable,
    Unauthorized,
)
from corectl.model.manifest import Layer, Manifest, MediaType, ModelConfig
from corectl.model.name import ModelName
from corectl.registry.remote import Location, Offer, Origin
from corectl.transfer import peers
from corectl.transfer.client import make_client
from corectl_huggingface.cache import HuggingFaceCache
from corectl_huggingface.listing import MAX_FILES, read_listing
from corectl_huggingface.registry import HuggingFace
from tests.plugins.hub_kit import COMMIT, TOKEN, Hub
from tests.registry import faults
from tests.registry.host import Answer, Asked, Host, plain

CONFIG = json.dumps({"model_type": "llama", "torch_dtype": "float16", "max_position_embeddings": 64}).encode()
FOLDER = {
    "README.md": b"# Words",
    "config.json": CONFIG,
    "tokenizer.json": b'{"version": "1.0"}',
    "model.safetensors": b"weights",
}
GGUF = {"m-Q4_K_M.gguf": b"four bits", "m-Q8_0.gguf": b"eight bits", "README.md": b"# Words"}


@pytest.fixture(autouse=True)
def environment(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    for name in list(os.environ):
        if name.startswith(("HF_", "HUGGING")):
            monkeypatch.delenv(name)
    monkeypatch.setenv("HF_HOME", str(tmp_path / "hf"))


@pytest.fixture
def hub(environment: None, monkeypatch: pytest.MonkeyPatch) -> Iterator[Hub]:
    with Hub() as running:
        monkeypatch.setenv("HF_ENDPOINT", running.url)
        yield running


class Pulled:
    """An offer, taken apart."""

    def __init__(self, offer: Offer, locations: Mapping[str, Location]) -> None:
        self.offer, self.locations = offer, locations
        manifest = msgspec.json.decode(offer.manifest, type=Manifest)
        self.layers = manifest.layers
        self.config = msgspec.json.decode(self.bytes(manifest.config), type=ModelConfig)

    def of(self, media_type: MediaType) -> list[Layer]:
        return [layer for layer in self.layers if layer.media_type == media_type]

    def bytes(self, layer: Layer) -> bytes:
        """Of one that is here."""
        data = self.offer.here[layer.digest]
        assert isinstance(data, bytes) and len(data) == layer.size
        assert layer.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
        return data


def pull(name: str) -> Pulled:
    """Asks for an offer, and where all is that is not in it."""

    async def ask() -> Pulled:
        async with make_client() as http:
            session = HuggingFace().session(Origin(ModelName.parse(name)), http)
            offer = await session.offer()
            layers = msgspec.json.decode(offer.manifest, type=Manifest).layers
            wanted = [layer for layer in layers if layer.digest not in offer.here]
            return Pulled(offer, {layer.digest: await session.locate(layer) for layer in wanted})

    return asyncio.run(ask())


def test_a_quantisation_is_chosen_by_its_tag(hub: Hub) -> None:
    facts = {"gguf": {"total": 1_234_567_890, "architecture": "llama", "context_length": 131072}}
    hub.add("o/m-GGUF", GGUF, facts=facts)
    for name, data in (("hf.co/o/m-GGUF", b"four bits"), ("huggingface.co/o/m-GGUF:q8_0", b"eight bits")):
        pulled = pull(name)
        (weights,) = pulled.layers
        assert weights.digest == f"sha256:{hashlib.sha256(data).hexdigest()}" and weights.size == len(data)
        assert (weights.media_type, weights.name) == (MediaType.MODEL, "")
        config = pulled.config
        assert (config.model_format, config.model_family, config.model_type) == ("gguf", "llama", "1.2B")
    assert config.file_type == "Q8_0" and config.context_length == 131072
    location = pulled.locations[weights.digest]
    assert location.url == f"{hub.url}/o/m-GGUF/resolve/{COMMIT}/m-Q8_0.gguf" and location.headers == {}
    assert hub.cdn.asked == []


def test_what_the_hub_does_not_know_is_left_out(hub: Hub) -> None:
    for facts in (
        {},
        {"gguf": None},
        {"gguf": {"total": -1, "architecture": 7}},
        {"gguf": {"architecture": "\x1b["}},
    ):
        hub.add("o/m", GGUF, facts=facts)
        config = pull("hf.co/o/m").config
        assert (config.model_format, config.model_family, config.model_type) == ("gguf", "", "")


def test_shards_projector_and_texts_are_layers(hub: Hub) -> None:
    hub.add(
        "o/m",
        {
            "Q4_K_M/m-Q4_K_M-00002-of-00002.gguf": b"second",
            "Q4_K_M/m-Q4_K_M-00001-of-00002.gguf": b"first",
            "mmproj-F32.gguf": b"large eyes",
            "mmproj-F16.gguf": b"eyes",
            "template": b"{{ .Prompt }}",
            "system": b"Be kind.",
            "params": b'{"stop": ["</s>"]}',
            "LICENSE": "© somebody".encode("latin-1"),
        },
    )
    pulled = pull("hf.co/o/m")
    names = [f"m-Q4_K_M-0000{number}-of-00002.gguf" for number in (1, 2)]
    assert [layer.name for layer in pulled.of(MediaType.MODEL)] == names
    for layer, data in zip(pulled.layers, (b"first", b"second", b"eyes"), strict=False):
        assert layer.digest == f"sha256:{hashlib.sha256(data).hexdigest()}"
    kinds = (MediaType.TEMPLATE, MediaType.SYSTEM, MediaType.PARAMS, MediaType.LICENSE)
    texts = [pulled.bytes(pulled.of(kind)[0]).decode() for kind in kinds]
    assert texts == ["{{ .Prompt }}", "Be kind.", '{"stop": ["</s>"]}', "\ufffd somebody"]


@pytest.mark.parametrize(
    ("name", "data", "text"),
    [
        ("params", b"[1]", "params is damaged"),
        ("system", b"\xff", "not UTF-8"),
        ("template", bytes(2**23), "large"),
    ],
)
def test_texts_that_are_none_are_refused(hub: Hub, name: str, data: bytes, text: str) -> None:
    hub.add("o/m", {**GGUF, name: data})
    with pytest.raises(BadModelFile, match=text):
        pull("hf.co/o/m")


def test_safetensors_are_a_folder(hub: Hub) -> None:
    hub.add(
        "o/m",
        {
            **FOLDER,
            "generation_config.json": b"{}",
            "chat_template.jinja": b"{{ messages }}",
            "pytorch_model.bin": b"\x80\x04.",
            "modeling_own.py": b"import os",
            "onnx/model.onnx": b"other weights",
            "onnx/config.json": b"{}",
            "modules.json": b'[{"path": ""}, {"path": "1_Pooling"}]',
            "1_Pooling/config.json": b'{"pooling_mode_mean_tokens": true}',
        },
        facts={"safetensors": {"parameters": {"F16": 77_000}, "total": 77_000}},
    )
    pulled = pull("hf.co/o/m")
    assert [layer.name for layer in pulled.of(MediaType.MODEL)] == ["model.safetensors"]
    beside = ["1_Pooling/config.json", "chat_template.jinja", "config.json"]
    beside += ["generation_config.json", "modules.json", "tokenizer.json"]
    assert [layer.name for layer in pulled.of(MediaType.JSON)] == beside
    assert len(pulled.layers) == 7
    config = pulled.config
    assert (config.model_format, config.model_family, config.model_type) == ("safetensors", "llama", "77K")
    assert (config.file_type, config.context_length) == ("F16", 64)
    assert list(pulled.locations) == [pulled.layers[0].digest]


def test_the_index_says_which_files_are_the_weights(hub: Hub) -> None:
    shards = [f"model-0000{number}-of-00002.safetensors" for number in (1, 2)]
    index = json.dumps({"weight_map": {"b": shards[1], "a": shards[0], "c": shards[0]}}).encode()
    files = {**FOLDER, "model.safetensors.index.json": index, "consolidated.safetensors": b"once more"}
    del files["model.safetensors"]
    hub.add("o/m", {**files, shards[0]: b"first", shards[1]: b"second"})
    pulled = pull("hf.co/o/m")
    assert [layer.name for layer in pulled.of(MediaType.MODEL)] == shards
    for wrong in ({shards[0]: b"first"}, {}, {shards[0]: b"first", "consolidated.safetensors": b""}):
        hub.add("o/m", {**files, **wrong})
        with pytest.raises(NotSupported, match="no model that can be pulled"):
            pull("hf.co/o/m")


def test_a_tokenizer_that_is_large_is_fetched_in_parts(hub: Hub) -> None:
    data = b'{"version": "1.0", "model": "' + b"x" * 2**17 + b'"}'
    hub.add("o/m", {**FOLDER, "tokenizer.json": data})
    assert f"sha256:{hashlib.sha256(data).hexdigest()}" in pull("hf.co/o/m").locations


def test_repositories_without_a_model_are_refused(hub: Hub) -> None:
    for files in ({}, {"pytorch_model.bin": b"pickle", "config.json": CONFIG}, {"model.safetensors": b"w"}):
        hub.add("o/m", files)
        with pytest.raises(NotSupported, match="no model that can be pulled"):
            pull("hf.co/o/m")


def test_a_quantisation_that_is_not_there(hub: Hub) -> None:
    hub.add("o/m", GGUF)
    with pytest.raises(NotFound, match="it has Q4_K_M, Q8_0"):
        pull("hf.co/o/m:Q2_K")
    hub.add("o/m", FOLDER)
    with pytest.raises(NotFound, match="has no GGUF files"):
        pull("hf.co/o/m:Q2_K")


def test_a_repository_that_is_not_there(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    with pytest.raises(Unauthorized, match=r"file does not exist, or o/m is private.*HF_TOKEN"):
        pull("hf.co/o/m")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    with pytest.raises(NotFound, match=r"^file does not exist$"):
        pull("hf.co/o/m")


def test_private_repositories_need_a_token(hub: Hub, monkeypatch: pytest.MonkeyPatch, tmp_path: Path) -> None:
    hub.add("o/m", {**GGUF, "system": b"Be."}, private=True)
    with pytest.raises(Unauthorized):
        pull("hf.co/o/m")
    monkeypatch.setenv("HF_TOKEN", "hf_wrong")
    with pytest.raises(Unauthorized, match="does not know the token"):
        pull("hf.co/o/m")
    monkeypatch.delenv("HF_TOKEN")
    (tmp_path / "hf").mkdir()
    (tmp_path / "hf" / "token").write_text(f"{TOKEN}\n")
    pulled = pull("hf.co/o/m")
    (location,) = pulled.locations.values()
    assert location.headers == {"authorization": f"Bearer {TOKEN}"}


def test_gated_repositories_say_what_to_do(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("o/m", GGUF, gated=True)
    with pytest.raises(Unauthorized, match=rf"accept its terms at {hub.url}/o/m, and set HF_TOKEN"):
        pull("hf.co/o/m")
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    pull("hf.co/o/m")

    def not_accepted(asked: Asked, further: Callable[[Asked], Answer]) -> Answer:
        return plain(403, b"", x_error_code="GatedRepo") if "/resolve/" in asked.path else further(asked)

    hub.host.layers.append(not_accepted)
    with pytest.raises(Forbidden, match=rf"accept its terms at {hub.url}/o/m with the account"):
        pull("hf.co/o/m")


@pytest.mark.parametrize(
    ("answer", "kind", "text"),
    [
        (
            plain(403, x_error_message="Access to this resource is disabled."),
            Forbidden,
            "resource is disabled",
        ),
        (plain(429), Busy, "too many requests"),
        (plain(500, b"oh\x1b[2J no"), RemoteError, r"500: oh \[2J no"),
        (plain(204), RemoteError, "204"),
    ],
)
def test_other_refusals(hub: Hub, answer: Answer, kind: type[CorectlError], text: str) -> None:
    hub.host.layers.append(lambda asked, further: answer)
    with pytest.raises(kind, match=text):
        pull("hf.co/o/m")


def test_the_token_is_for_the_endpoint_only(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    """Small files may be redirected elsewhere as well; what the hub says itself comes from the hub."""
    monkeypatch.setenv("HF_TOKEN", TOKEN)
    hub.add("o/m", {**FOLDER, "tokenizer.json": b"0" * 2**17, "modules.json": b" " * 2**17 + b"[]"})
    pull("hf.co/o/m")
    assert hub.cdn.count("GET") == 1
    assert hub.cdn.received("authorization") == []
    assert set(hub.host.received("authorization")) == {f"Bearer {TOKEN}"}
    with Host(lambda asked: plain(200, b"{}")) as other:
        hub.host.layers.append(lambda asked, further: plain(302, location=f"{other.url}/api/models/o/m"))
        with pytest.raises(RemoteError, match="is not followed"):
            pull("hf.co/o/m")
        assert other.asked == []


def test_other_hosts_are_neither_quoted_nor_inside(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    hub.add("o/m", {**FOLDER, "modules.json": b" " * 2**17 + b"[]"})
    hub.cdn.layers.append(lambda asked, further: plain(418, b"secret"))
    with pytest.raises(RemoteError, match=r"fetched: status 418$"):
        pull("hf.co/o/m")
    # As if the hub had a public address.
    port = int(hub.url.rpartition(":")[2])
    monkeypatch.setattr(peers, "_is_inside", lambda stream: stream.get_extra_info("server_addr")[1] != port)
    asked = len(hub.cdn.asked)
    with pytest.raises(RemoteError, match="not on the internet; it is not followed"):
        pull("hf.co/o/m")
    assert len(hub.cdn.asked) == asked


@pytest.mark.parametrize(
    "location", ["", "ftp://example.com/x", "http://u:p@127.0.0.1/", "http://[", "/again"]
)
def test_redirects_that_lead_nowhere(hub: Hub, location: str) -> None:
    hub.host.layers.append(lambda asked, further: plain(302, location=location))
    with pytest.raises(RemoteError, match="redirects"):
        pull("hf.co/o/m")


def test_a_repository_with_a_new_name_is_found(hub: Hub) -> None:
    hub.add("o/new", GGUF)

    def renamed(asked: Asked, further: Callable[[Asked], Answer]) -> Answer:
        if "/o/old" not in asked.path:
            return further(asked)
        return plain(307, location=asked.path.replace("/o/old", "/o/new"))

    hub.host.layers.append(renamed)
    assert pull("hf.co/o/old").layers


def test_files_in_the_cache_are_not_fetched(hub: Hub, tmp_path: Path) -> None:
    repository = hub.add("o/m", {**FOLDER})
    blobs = tmp_path / "hf" / "hub" / "models--O--M" / "blobs"
    blobs.mkdir(parents=True)
    for path, data in FOLDER.items():
        told = repository.sibling(path)
        (blobs / (told["lfs"]["sha256"] if "lfs" in told else told["blobId"])).write_bytes(data)
    pulled = pull("hf.co/o/m")
    weights = pulled.layers[0]
    assert pulled.offer.here[weights.digest] == blobs / weights.digest.removeprefix("sha256:")
    assert len(hub.host.asked) == 1 and pulled.locations == {}
    for blob in blobs.iterdir():
        blob.write_bytes(b"!" * blob.stat().st_size)
    # The large one is not read for an offer, but when it is taken.
    pulled = pull("hf.co/o/m")
    assert pulled.offer.here[weights.digest] == blobs / weights.digest.removeprefix("sha256:")
    assert hub.host.count("GET", "/resolve/") == 2


def test_the_hubs_own_library_sees_the_same_and_leaves_it_in_the_cache(hub: Hub) -> None:
    """So the hub of these tests is one, and the cache is as that library makes it."""
    pytest.importorskip("huggingface_hub")
    hub.add("o/m", {**FOLDER, "x/deep.txt": b""})
    program = (
        "import huggingface_hub as hub\n"
        "info = hub.HfApi().model_info('o/m', revision='main', files_metadata=True)\n"
        "print(info.sha, sorted(file.rfilename for file in info.siblings))\n"
        "for name in ('config.json', 'tokenizer.json', 'model.safetensors'): hub.hf_hub_download('o/m', name)\n"
    )
    settings = {
        "HF_HUB_DISABLE_XET": "1",
        "HF_HUB_DISABLE_TELEMETRY": "1",
        "HF_HUB_DISABLE_PROGRESS_BARS": "1",
    }
    found = subprocess.run(
        [sys.executable, "-c", program],
        env={**os.environ, **settings},
        capture_output=True,
        text=True,
        timeout=120,
    )
    assert found.stdout.strip() == f"{COMMIT} {sorted([*FOLDER, 'x/deep.txt'])}", found.stderr
    listings = [asked.path for asked in hub.host.asked if "/api/models/o/m/" in asked.path]
    assert pull("hf.co/o/m").locations == {}
    assert hub.host.asked[-1].path == listings[0]
    (record,) = HuggingFaceCache().list()
    assert record.name.short == "hf.co/o/m:latest" and len(record.layers) == 3


def test_files_that_are_others_than_was_said_are_refused(hub: Hub) -> None:
    repository = hub.add("o/m", FOLDER)
    repository.siblings = [repository.sibling(path) for path in FOLDER]
    for damaged, text in (
        (CONFIG.replace(b"llama", b"lambs"), "not what"),
        (CONFIG[1:], "not as long"),
        (CONFIG * 2, "not as long"),
        (bytes(2**17), "sent"),
    ):
        repository.files = {**FOLDER, "config.json": damaged}
        with pytest.raises(RemoteError, match=text):
            pull("hf.co/o/m")


def sibling(**changes: Any) -> dict[str, Any]:
    told = {"rfilename": "m-Q8_0.gguf", "size": 4, "blobId": "a" * 40}
    return {**told, "lfs": {"sha256": "b" * 64, "size": 4, "pointerSize": 135}, **changes}


@pytest.mark.parametrize(
    "changes",
    [
        *(
            {"rfilename": name}
            for name in ("", "/etc/x.gguf", "../x.gguf", "a/../x.gguf", "a//x.gguf", "./x.gguf")
        ),
        *(
            {"rfilename": name}
            for name in ("a\\..\\x.gguf", "C:x.gguf", "x\0.gguf", "x\n.gguf", "x\x1b[2J.gguf")
        ),
        *({"rfilename": name} for name in ("a/", "x" * 1025, None, 7, "\u202ex.gguf")),
        *({"size": size} for size in (-1, 2**63, 2**64, 2**200, 1e300, "4", None, 5)),
        *(
            {"lfs": {"sha256": digest, "size": 4}}
            for digest in ("", "b" * 63, "B" * 64, "../" + "b" * 61, None)
        ),
        {"lfs": {"sha256": "b" * 64, "size": -4}},
        {"lfs": None, "blobId": "../../x"},
        {"lfs": None, "blobId": ""},
        {"lfs": []},
    ],
)
def test_hostile_lists_are_refused(hub: Hub, changes: dict[str, Any]) -> None:
    hub.add("o/m", {}).siblings = [sibling(**changes)]
    with pytest.raises(RemoteError, match="Hugging Face"):
        pull("hf.co/o/m")


def test_lists_have_limits(hub: Hub) -> None:
    repository = hub.add("o/m", {})
    repository.siblings = [sibling(), sibling()]
    with pytest.raises(RemoteError, match="twice"):
        pull("hf.co/o/m")
    repository.siblings = [sibling(rfilename=f"{number}.gguf") for number in range(MAX_FILES + 1)]
    with pytest.raises(RemoteError, match="more than"):
        pull("hf.co/o/m")
    names = [f"m-{number:05}-of-02000.safetensors" for number in range(1, 2001)]
    hub.add("o/m", {"config.json": CONFIG, **dict.fromkeys(names, b"w")})
    with pytest.raises(NotSupported, match="more than 1000 files"):
        pull("hf.co/o/m")
    folders = [f"{number}_X" for number in range(33)]
    hub.add("o/m", {**FOLDER, "modules.json": json.dumps([{"path": folder} for folder in folders]).encode()})
    with pytest.raises(BadModelFile, match="modules"):
        pull("hf.co/o/m")


@pytest.mark.parametrize(
    "body",
    [b"", b"[]", b"{}", b'{"sha": "x", "siblings": []}', b"[" * 10**6, b'{"sha": "\xff"}', b"\x1f\x8b\x08"],
)
def test_answers_that_are_no_lists(hub: Hub, body: bytes) -> None:
    hub.host.layers.append(lambda asked, further: plain(200, body))
    with pytest.raises(RemoteError, match="Hugging Face"):
        pull("hf.co/o/m")


def test_endless_answers_end(hub: Hub) -> None:
    hub.host.layers = [faults.endless]
    with pytest.raises(RemoteError, match="sent more than"):
        pull("hf.co/o/m")
    hub.host.layers = [faults.gzip_bomb(2**26)]
    with pytest.raises(RemoteError, match="compressed"):
        pull("hf.co/o/m")


def test_a_hub_that_falls_silent_is_left(hub: Hub, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(corectl_huggingface.hub, "OFFER_SECONDS", 0.5)
    hub.add("o/m", FOLDER)
    hub.host.layers = [faults.only(lambda asked: "resolve-cache" in asked.path, faults.stalling(1))]
    with pytest.raises(RemoteUnreachable, match="has not sent"):
        pull("hf.co/o/m")


def test_repositories_inside_are_passed_over(hub: Hub) -> None:
    repository = hub.add("o/m", GGUF)
    repository.siblings = [{"rfilename": "inside"}, *map(repository.sibling, GGUF)]
    assert pull("hf.co/o/m").layers


JSON = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats(allow_nan=False) | st.text(max_size=5),
    lambda inner: st.lists(inner, max_size=3) | st.dictionaries(st.text(max_size=5), inner, max_size=3),
    max_leaves=8,
)


@given(
    st.fixed_dictionaries(
        {},
        optional={
            "sha": JSON | st.just(COMMIT),
            "siblings": JSON
            | st.lists(st.fixed_dictionaries({"rfilename": JSON, "size": JSON, "lfs": JSON})),
            "gated": JSON,
            "gguf": JSON
            | st.fixed_dictionaries({"total": JSON, "architecture": JSON, "context_length": JSON}),
            "safetensors": JSON,
        },
    )
)
def test_any_answer_is_taken_or_refused(info: dict[str, Any]) -> None:
    with suppress(RemoteError):
        read_listing(json.dumps(info).encode())


NAMES = st.text(st.one_of(st.sampled_from("./\\:\0-"), st.characters(codec="utf-8")), max_size=30)


@given(st.lists(NAMES, max_size=5), st.lists(st.integers(), max_size=5))
def test_any_names_and_sizes_are_taken_or_refused(names: list[str], sizes: list[int]) -> None:
    told = [
        {**sibling(rfilename=name), "size": size, "lfs": {"sha256": "c" * 64, "size": size}}
        for name, size in zip(names, sizes, strict=False)
    ]
    try:
        files = read_listing(json.dumps({"sha": COMMIT, "siblings": told}).encode()).files
    except RemoteError:
        return
    for path, file in files.items():
        assert Path("/root", path).resolve() == Path("/root") / path and path.isprintable()
        assert file.size >= 0


def test_hosts_and_endpoints(monkeypatch: pytest.MonkeyPatch) -> None:
    assert HuggingFace().hosts == ("hf.co", "huggingface.co")
    monkeypatch.setenv("HF_ENDPOINT", "https://mirror.example:8443/hub/")
    assert HuggingFace().hosts == ("hf.co", "huggingface.co", "mirror.example:8443")
    for wrong in (
        "mirror.example",
        "ftp://mirror.example",
        "http://",
        "https://u:p@mirror.example",
        "https://[",
    ):
        monkeypatch.setenv("HF_ENDPOINT", wrong)
        assert HuggingFace().hosts == ("hf.co", "huggingface.co")
        with pytest.raises(BadRequest, match="HF_ENDPOINT"):
            pull("hf.co/o/m")


@pytest.mark.parametrize("token", ["hf_a b", "hf_\x7f", "hf_\u00e9", "x" * 513])
def test_tokens_that_cannot_be_sent(hub: Hub, monkeypatch: pytest.MonkeyPatch, token: str) -> None:
    monkeypatch.setenv("HF_TOKEN", token)
    with pytest.raises(BadRequest, match="HF_TOKEN") as raised:
        pull("hf.co/o/m")
    assert token not in raised.value.message and hub.host.asked == []

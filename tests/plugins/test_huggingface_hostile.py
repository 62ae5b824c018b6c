"""What a hub may say that is not taken."""

from __future__ import annotations

import json
from contextlib import suppress
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st

import corectl_huggingface.hub
from corectl.errors import (
    BadModelFile,
    NotSupported,
    RemoteError,
    RemoteUnreachable,
)
from corectl_huggingface.listing import MAX_FILES, read_listing
from tests.plugins.hub_kit import COMMIT, Hub
from tests.plugins.hub_session_kit import CONFIG, FOLDER, GGUF, pull
from tests.registry import faults
from tests.registry.host import plain


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

"""`create`: what is read and sent from this side."""

from __future__ import annotations

import hashlib
from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from corectl.cli.failure import CliError
from corectl.cli.sources import files_of, find_source

if TYPE_CHECKING:
    from tests.cli.conftest import FakeServer, Result

    Corectl = Callable[..., Result]

MODELFILE = '''FROM smol
TEMPLATE """{{ .Prompt }}
"""
SYSTEM You are a pirate.
PARAMETER temperature 0
PARAMETER stop <|im_start|>
PARAMETER stop <|im_end|>
LICENSE MIT
MESSAGE user hi
MESSAGE assistant Arr: yes!
'''


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_the_request(server: FakeServer, corectl: Corectl, folder: Path) -> None:
    (folder / "Modelfile").write_text(MODELFILE)
    statuses = ["using existing layer sha256:1", "creating new layer sha256:2", "writing manifest", "success"]
    server.reply("POST /api/create", [{"status": status} for status in statuses])
    result = corectl("create", "cli1", "-q", "q8_0")
    assert (result.code, result.out) == (0, "")
    assert result.err.splitlines() == ["gathering model components", *statuses]
    assert server.bodies("POST /api/create") == [
        {
            "model": "cli1",
            "from": "smol",
            "template": "{{ .Prompt }}\n",
            "system": "You are a pirate.",
            "parameters": {"temperature": 0, "stop": ["<|im_start|>", "<|im_end|>"]},
            "license": ["MIT"],
            "messages": [{"role": "user", "content": "hi"}, {"role": "assistant", "content": "Arr: yes!"}],
            "quantize": "q8_0",
            "stream": True,
        }
    ]


@pytest.mark.parametrize("known", [True, False])
def test_files_are_sent_once(server: FakeServer, corectl: Corectl, folder: Path, known: bool) -> None:
    content = b"GGUF" + bytes(3_000_000)
    (folder / "m.gguf").write_bytes(content)
    (folder / "sub").mkdir()
    (folder / "sub" / "Modelfile").write_text("FROM ../m.gguf\n")
    digest = f"sha256:{hashlib.sha256(content).hexdigest()}"
    server.reply(f"HEAD /api/blobs/{digest}", None, 200 if known else 404)
    server.reply(f"POST /api/blobs/{digest}", None, 201)
    server.reply("POST /api/create", [{"status": "parsing GGUF"}, {"status": "success"}])
    result = corectl("create", "cli2", "-f", "sub/Modelfile")
    assert result.err.splitlines() == [
        "gathering model components",
        f"copying file {digest} 100%",
        "parsing GGUF",
        "success",
    ]
    assert server.bodies(f"POST /api/blobs/{digest}") == ([] if known else [content])
    assert server.bodies("POST /api/create")[0]["files"] == {"m.gguf": digest}


def test_files_of_one_name_in_two_folders(server: FakeServer, corectl: Corectl, folder: Path) -> None:
    digests = []
    for name in ("text", "vision"):
        (folder / name).mkdir()
        (folder / name / "m.gguf").write_text(name)
        digests.append(f"sha256:{hashlib.sha256(name.encode()).hexdigest()}")
        server.reply(f"HEAD /api/blobs/{digests[-1]}", None)
    (folder / "Modelfile").write_text("FROM text/m.gguf\nFROM vision/m.gguf\n")
    server.reply("POST /api/create", [{"status": "success"}])
    assert corectl("create", "m").code == 0
    files = {"m.gguf": digests[0], "1/m.gguf": digests[1]}
    assert server.bodies("POST /api/create")[0]["files"] == files


@pytest.mark.parametrize(
    ("text", "error"),
    [
        (None, "no Modelfile or safetensors files found"),
        ("SYSTEM x\n", "no FROM line"),
        ("FROM smol\nPARAMETER temperature hot\n", "invalid float value [hot]"),
        ("FROM smol\nFROM other\n", "only one FROM can name a model, not both smol and other"),
        ("FROM smol\nADAPTER ./nope\n", "adapter ./nope: no such file or directory"),
        (
            "FROM smol\nMESSAGE robot hi\n",
            '(line 2): message role must be one of "system", "user", or "assistant"',
        ),
    ],
)
def test_what_cannot_be_sent(
    server: FakeServer, corectl: Corectl, folder: Path, text: str | None, error: str
) -> None:
    if text is not None:
        (folder / "Modelfile").write_text(text)
    result = corectl("create", "clibad")
    assert (result.code, result.err.splitlines()[-1]) == (1, f"Error: {error}")
    assert server.seen == []


def test_errors_before_and_within_the_stream(server: FakeServer, corectl: Corectl, folder: Path) -> None:
    (folder / "Modelfile").write_text("FROM smol\n")
    server.reply("POST /api/create", {"error": "invalid model name"}, 400)
    assert corectl("create", "m").err.splitlines()[-1] == "Error: 400 Bad Request: invalid model name"
    server.reply(
        "POST /api/create", [{"status": "parsing GGUF"}, {"error": "supplied file was not in GGUF format"}]
    )
    assert corectl("create", "m").err.splitlines()[-1] == "Error: supplied file was not in GGUF format"
    server.reply("POST /api/create", [{"status": "parsing GGUF"}])
    assert corectl("create", "m").code == 1


def test_the_first_kind_of_weights_in_a_folder_counts(tmp_path: Path) -> None:
    for name in ("model-1.safetensors", "model-2.safetensors", "config.json", "x.gguf", "notes.txt"):
        (tmp_path / name).write_text("")
    assert set(files_of(tmp_path)) == {"model-1.safetensors", "model-2.safetensors", "config.json"}


def test_weights_without_a_header_are_not_taken_for_a_model(tmp_path: Path) -> None:
    (tmp_path / "a.bin").write_bytes(b"no model")
    with pytest.raises(CliError, match="no Modelfile or safetensors files found"):
        files_of(tmp_path)
    (tmp_path / "b.bin").write_bytes(b"GGUF....")
    assert set(files_of(tmp_path)) == {"b.bin"}


def test_files_from_before_gguf_come_with_what_is_beside_them(tmp_path: Path) -> None:
    for name in ("config.json", "tokenizer_config.json", "README.md"):
        (tmp_path / name).write_text("{}")
    (tmp_path / "ggml-model.bin").write_bytes(b"GGUF....")
    assert set(files_of(tmp_path)) == {"ggml-model.bin"}
    for magic in (b"lmgg", b"fmgg", b"tjgg", b"ccgg"):
        (tmp_path / "ggml-model.bin").write_bytes(magic + bytes(8))
        assert set(files_of(tmp_path)) == {"ggml-model.bin", "config.json", "tokenizer_config.json"}


def test_a_link_out_of_the_folder_is_not_followed(tmp_path: Path) -> None:
    (tmp_path / "secret.txt").write_text("x")
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "model.safetensors").write_text("")
    (tmp_path / "model" / "config.json").symlink_to(tmp_path / "secret.txt")
    with pytest.raises(CliError, match="insecure path"):
        files_of(tmp_path / "model")


def test_where_a_source_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HOME", str(tmp_path))
    (tmp_path / "m.gguf").write_text("")
    assert find_source("./m.gguf", tmp_path) == find_source("~/m.gguf", Path("/")) == tmp_path / "m.gguf"
    assert find_source("smol", tmp_path) is None


def test_a_part_of_a_split_model_stands_for_all_of_them(tmp_path: Path) -> None:
    names = [f"m-{number:05d}-of-00003.gguf" for number in (1, 2, 3)]
    for name in (*names, "other-00001-of-00003.gguf", "m-00001-of-00002.gguf"):
        (tmp_path / name).write_bytes(b"GGUF")
    assert list(files_of(tmp_path / names[0])) == list(files_of(tmp_path / names[1])) == names
    (tmp_path / "secret").write_bytes(b"password")
    (tmp_path / names[2]).unlink()
    (tmp_path / names[2]).symlink_to(tmp_path / "secret")
    assert list(files_of(tmp_path / names[0])) == names[:2]
    endless = tmp_path / "m-00001-of-99999.gguf"
    endless.write_bytes(b"GGUF")
    assert list(files_of(endless)) == [endless.name]


def test_a_sentence_embedding_model_comes_with_its_modules(tmp_path: Path) -> None:
    wanted = {
        *("model.safetensors", "config.json", "modules.json", "vocab.txt", "tokenizer.json"),
        *("1_Pooling/config.json", "chat_template.jinja"),
    }
    (tmp_path / "1_Pooling").mkdir()
    for name in (*wanted, "README.md", "pytorch_model.bin", "onnx.py"):
        (tmp_path / name).write_bytes(b"{}")
    assert set(files_of(tmp_path)) == wanted

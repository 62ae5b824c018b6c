"""What `show --modelfile` prints, `create` takes, and makes the same model of it."""

from __future__ import annotations

import time
from pathlib import Path
from typing import Any, cast

import pytest

from corectl.cli.commands.create import request
from corectl.cli.sources import Sender
from corectl.messages import Message
from corectl.model.modelfile import parse, quote, show_modelfile
from corectl.model.record import ModelRecord
from corectl.store.local_file import LocalFile
from tests.core.create_kit import CHATML, Bench

DOCSTRING = 'Answer with code:\n    """What it does."""\n  '
TEXTS: dict[str, Any] = {
    "template": '{{ .System }}\n{{ .Prompt }}"""\nend ',
    "system": DOCSTRING,
    "parameters": {"stop": ["<|a|>", ' "', '"""\n'], "temperature": 0.5, "num_ctx": 4096, "use_mmap": False},
    "messages": (Message(role="user", content="Hi:\n\n'\""), Message(role="assistant", content=" ")),
    "license": ["MIT\n\n", '"""\nquoted\n"""\nend'],
    "renderer": "qwen3-coder",
    "parser": "qwen3-coder",
    "requires": "0.14.0",
}


class Reading:
    """Stands for what sends files to a server: puts them into the bench."""

    def __init__(self, bench: Bench) -> None:
        self._bench = bench

    def send(self, files: dict[str, Path]) -> dict[str, str]:
        return {name: self._bench.put(path.read_bytes()) for name, path in files.items()}


def again(bench: Bench, name: str) -> ModelRecord:
    """The model that is made of what is printed of another one."""
    text = show_modelfile(bench.get(name))
    body = request(parse(text), bench.root, cast(Sender, Reading(bench)))
    messages = tuple(Message(**message) for message in body.pop("messages", ()))
    bench.create("again", from_=body.pop("from", ""), messages=messages, **body)
    return bench.get("again")


def content(record: ModelRecord) -> tuple[Any, ...]:
    """All that makes a model what it is; not the order of its layers, nor what it was made from."""
    layers = sorted((layer.media_type, layer.digest, layer.name) for layer in record.layers)
    return layers, record.config


@pytest.mark.parametrize("texts", [{}, TEXTS], ids=["plain", "texts"])
@pytest.mark.parametrize("beside", ["", "adapter", "projector"])
def test_a_file(bench: Bench, beside: str, texts: dict[str, Any]) -> None:
    files = {"m.gguf": bench.upload(chat_template=CHATML)}
    adapters = None
    if beside == "projector":
        files["p.gguf"] = bench.upload("clip", tensors=("v",))
    if beside == "adapter":
        adapters = {"a.gguf": bench.upload(kind="adapter", tensors=("blk.0.attn_q.weight.lora_a",))}
    bench.create("first", files=files, adapters=adapters, **texts)
    first = bench.get("first")
    assert content(again(bench, "first")) == content(first)
    if texts:
        assert first.system == DOCSTRING and first.licenses == texts["license"]


@pytest.mark.parametrize("texts", [{}, TEXTS], ids=["plain", "texts"])
@pytest.mark.parametrize("kind", ["folder", "split", "derived", "stub"])
def test_what_no_single_file_says(bench: Bench, kind: str, texts: dict[str, Any]) -> None:
    """It is named by its own name, which brings its files, or the server that it is on."""
    if kind == "stub":
        bench.create("first", from_="far", remote_host="http://192.0.2.1:1234", **texts)
    elif kind == "split":
        parts = [
            bench.upload(tensors=(f"t{number}",), split=(number, 2, 2), chat_template=CHATML)
            for number in range(2)
        ]
        files = {f"w-0000{number}-of-00002.gguf": part for number, part in enumerate(parts, 1)}
        bench.create("first", files=files, **texts)
    else:
        bench.create("first", files=bench.checkpoint(), **texts)
    if kind == "derived":
        bench.create("base", from_="first")
        bench.create("first", from_="base", system="other")
    first = bench.get("first")
    assert "FROM first:latest\n" in show_modelfile(first)
    made = again(bench, "first")
    assert content(made) == content(first)
    assert made.files == first.files


def test_a_file_that_is_used_where_it_lies(bench: Bench, tmp_path: Path) -> None:
    digest = bench.upload(chat_template=CHATML)
    source = bench.catalog.blobs.path_of(digest).rename(tmp_path / "lying here.gguf")
    with LocalFile.open(source) as file:
        bench.catalog.blobs.refer(file, digest)
    bench.create("first", files={"m.gguf": digest})
    assert f"FROM {source}\n" in show_modelfile(bench.get("first"))
    assert content(again(bench, "first")) == content(bench.get("first"))
    assert bench.catalog.blobs.path_of(digest).is_symlink()


def test_what_no_modelfile_can_say_is_left_out_and_said(bench: Bench) -> None:
    messages = (Message(role="tool", content="x"), Message(role="user", content="y"))
    files = {"m.gguf": bench.upload()}
    parameters = {"two words": 1, "num_gqa": 8, "logit_bias": {"1": 2}, "num_ctx": 1024, "seed": 2**63 - 1}
    bench.create("first", files=files, messages=messages, parameters=parameters)
    text = show_modelfile(bench.get("first"))
    assert "# Left out" in text
    made = again(bench, "first")
    assert [message.role for message in made.messages] == ["user"]
    assert made.parameters == {"num_ctx": 1024, "seed": 2**63 - 1}


def test_a_text_with_many_ends_of_fences_takes_no_longer_for_each() -> None:
    text = "\n".join(f'END{number}""""' for number in ["", *range(1, 30_000)]) + '\n"""x"""'
    began = time.thread_time()
    quoted = quote(text)
    assert quoted.endswith('\nEND30000""""') and time.thread_time() - began < 2

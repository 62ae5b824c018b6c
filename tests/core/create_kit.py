"""A catalog with the tools to create models in it, and a workshop whose jobs are done in this process."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

import gguf
import msgspec
import numpy as np

from corectl.jobs.messages import Made, MadeFile
from corectl.messages import Notice
from corectl.model.files import ModelFiles
from corectl.model.name import ModelName
from corectl.model.record import ModelRecord
from corectl.progress import Progress, Report
from corectl.store.catalog import Catalog
from corectl.store.create import CreateSpec, create
from corectl.store.importer import Quantizing, Recognised, Wish
from corectl.store.ways import Way, choose_way, meant, unknown_kind
from corectl_safetensors import Safetensors

CHATML = (
    "{% for message in messages %}{{'<|im_start|>' + message['role'] + '\n' + message['content'] + '<|im_end|>\n'}}"
    "{% endfor %}{% if add_generation_prompt %}{{ '<|im_start|>assistant\n' }}{% endif %}"
)
CHATML_GO = "{{- range .Messages }}<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
STOP = b'{"stop":["\\u003c|im_start|\\u003e","\\u003c|im_end|\\u003e"]}\n'

KINDS = {"gguf": ("F32", "F16", "Q4_K_M", "Q8_0"), "safetensors": ("int4",)}
FALLBACK = Notice(code="quantize_fallback", message="1 of 1 tensors fell back")


def digest(data: bytes) -> str:
    return "sha256:" + hashlib.sha256(data).hexdigest()


def write_gguf(
    path: Path,
    architecture: str = "llama",
    *,
    chat_template: str = "",
    kind: str = "model",
    file_type: int = 3,
    tensors: Iterable[str] = ("token_embd.weight",),
    split: tuple[int, int, int] | None = None,
) -> Path:
    """A GGUF file with tensors of 2 x 4. `split` are the part's number from 0, the parts, and the tensors of all."""
    writer = gguf.GGUFWriter(str(path), architecture)
    writer.add_type(kind)
    writer.add_file_type(file_type)
    if chat_template:
        writer.add_chat_template(chat_template)
    if split is not None:
        number, count, total = split
        writer.add_uint16("split.no", number)
        writer.add_uint16("split.count", count)
        writer.add_int32("split.tensors.count", total)
    for name in tensors:
        writer.add_tensor(name, np.ones((2, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


class Workshop:
    """What is known and made here: safetensors are kept, unless `way` says otherwise.

    Making is writing a file of the format; `during` is called in the middle of it.
    """

    def __init__(self) -> None:
        self.ways: list[Way] | None = None
        self.wishes: list[Wish] = []
        self.adapters: list[tuple[ModelFiles, ModelFiles]] = []
        self.during: Callable[[], None] = lambda: None

    def recognise(self, files: ModelFiles) -> Recognised | None:
        format = Safetensors()
        return Recognised(format.name, format.describe(files)) if format.claims(files) else None

    def way(self, format: str, files: ModelFiles, wish: Wish) -> Way:
        self.wishes.append(wish)
        ways = self.ways or [Way(format=format, quantizations=KINDS.get(format, ()))]
        return choose_way(ways, backend=wish.backend, target=wish.target)

    def quantizing(self, format: str, wish: Wish) -> Quantizing:
        names = KINDS[format]
        if target := meant(wish.target, names):
            return Quantizing("fake", target)
        raise unknown_kind(wish.target, names)

    def convert(self, way: Way, files: ModelFiles, folder: Path, report: Report) -> Made:
        report(Progress("converting model"))
        self.during()
        write_gguf(folder / "model.gguf", chat_template=CHATML, file_type=1)
        return made(folder)

    def convert_adapter(
        self, adapter: ModelFiles, base: ModelFiles, format: str, folder: Path, report: Report
    ) -> Made:
        report(Progress("converting adapter"))
        self.adapters.append((adapter, base))
        write_gguf(folder / "adapter.gguf", kind="adapter")
        return made(folder)

    def quantize(self, how: Quantizing, kind: str, files: ModelFiles, folder: Path, report: Report) -> Made:
        report(Progress(f"quantizing {kind} model to {how.target}"))
        self.during()
        if how.target in KINDS["gguf"]:
            types = {"F32": 0, "F16": 1, "Q4_K_M": 15, "Q8_0": 7}
            write_gguf(folder / "model.gguf", chat_template=CHATML, file_type=types[how.target])
            report(Progress(FALLBACK.message, notice=FALLBACK))
            return made(folder, FALLBACK)
        for name, path in files.named.items():
            if name != "model-2.safetensors":
                place = folder / name
                place.parent.mkdir(exist_ok=True)
                place.write_bytes(path.read_bytes())
        return made(folder)


def made(folder: Path, *notices: Notice) -> Made:
    paths = sorted(path for path in folder.rglob("*") if path.is_file())
    return Made(
        tuple(
            MadeFile(path.relative_to(folder).as_posix(), digest(path.read_bytes()), path.stat().st_size)
            for path in paths
        ),
        notices,
    )


class Bench:
    """A catalog with the tools to create models in it."""

    def __init__(self, root: Path) -> None:
        self.root = root
        self.catalog = Catalog(root)
        self.workshop = Workshop()
        self.statuses: list[str] = []

    def upload(self, *args: Any, **kwargs: Any) -> str:
        path = write_gguf(self.root / "upload", *args, **kwargs)
        return self.put(path.read_bytes())

    def put(self, data: bytes) -> str:
        return self.catalog.blobs.put(data).digest

    def create(self, model: str, **fields: Any) -> list[str]:
        self.statuses = []
        spec = CreateSpec(model=model, **fields)
        create(self.catalog, spec, self.report, importer=self.workshop)
        return self.statuses

    def report(self, step: Progress) -> None:
        self.statuses.append(step.status)

    def get(self, model: str) -> ModelRecord:
        record = self.catalog.find(ModelName.parse(model))
        assert record is not None
        return record

    def blobs(self) -> set[str]:
        return {path.name for path in (self.root / "blobs").iterdir()}

    def checkpoint(self, **more: bytes) -> dict[str, str]:
        """An uploaded folder with weights in two files, by name; further files have `_` for the dot in their names."""
        header = b'{"w":{"dtype":"F16","shape":[2,2],"data_offsets":[0,8]}}'
        config = b'{"model_type":"llama","max_position_embeddings":64,"hidden_size":2}'
        tokenizer = msgspec.json.encode({"chat_template": CHATML})
        named = {
            f"model-{part}.safetensors": len(header).to_bytes(8, "little") + header + bytes([part] * 8)
            for part in (1, 2)
        }
        named |= {"config.json": config, "tokenizer_config.json": tokenizer, "sub/extra.txt": b"x"}
        named |= {name.replace("_", "."): data for name, data in more.items()}
        return {name: self.put(data) for name, data in named.items()}

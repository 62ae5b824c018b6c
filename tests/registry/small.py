"""The small registry that recorded pulls spoke to: a good model, a new one, and three that are damaged."""

from __future__ import annotations

import json
from pathlib import Path

from tests.registry import stock
from tests.registry.docker import DockerRegistry
from tests.registry.faults import serving
from tests.registry.host import Host, forward

RECORDED = "127.0.0.1:25000"
"""Where it was when the recording was made."""

TEMPLATE = (
    "{{- if .System }}<|im_start|>system\n{{ .System }}<|im_end|>\n{{ end }}{{- range .Messages }}"
    "<|im_start|>{{ .Role }}\n{{ .Content }}<|im_end|>\n{{ end }}<|im_start|>assistant\n"
)
PARAMETERS = {"num_ctx": 1024, "seed": 42, "stop": ["<|im_end|>", "<|im_start|>"], "temperature": 0.2}
MESSAGES = [{"role": "user", "content": "Hello"}, {"role": "assistant", "content": "Arr, matey!"}]


def small_registry(registry: DockerRegistry, chat: Path, embedder: Path) -> Host:
    """A host that has the models, made of the weights of SmolLM2 and of a tiny BERT."""
    _fill(registry, chat.read_bytes(), embedder.read_bytes())
    return Host(forward(registry.url), serving("/v2/library/badjson/manifests/latest", b"{not json"))


def _fill(registry: DockerRegistry, chat: bytes, embedder: bytes) -> None:
    smolt = stock.model(
        ("model", chat),
        ("template", TEMPLATE.encode()),
        ("system", b"You are a helpful pirate."),
        ("license", b"MIT License\nCopyright (c) test"),
        ("params", json.dumps(PARAMETERS).encode()),
        ("messages", json.dumps(MESSAGES).encode()),
        config=_config("llama", "134.52M", "Q4_1"),
    )
    fresh = stock.model(
        ("model", embedder),
        ("template", b"{{ .Prompt }}"),
        ("license", b"fresh license text"),
        config=_config("bert", "0.1M", "F32"),
    )
    # Blobs are shared by all names of a registry, so what is damaged must be nobody else's.
    corrupt = stock.model(("model", embedder), ("license", b"a text that is changed"))
    missing = stock.model(("model", embedder), ("license", b"a text that is taken away"))
    for name, model in (("smolt", smolt), ("fresh", fresh), ("corrupt", corrupt), ("missingblob", missing)):
        stock.put(registry, f"library/{name}", model)
    registry.blob_file(corrupt.layers[1]).write_bytes(b"A text that is changed")
    stock.remove_blob(registry, "library/missingblob", missing.layers[1])


def _config(family: str, size: str, level: str) -> dict[str, object]:
    return {
        "model_format": "gguf",
        "model_family": family,
        "model_families": [family],
        "model_type": size,
        "file_type": level,
        "architecture": "amd64",
        "os": "linux",
    }

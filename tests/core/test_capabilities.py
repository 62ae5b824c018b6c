"""What models are said to be able to do."""

from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest

from corectl.model.capabilities import capabilities
from corectl.model.details import details_of, model_info
from corectl.model.manifest import MediaType, ModelConfig
from corectl.model.modelfile import show_modelfile, template_text
from corectl.model.name import ModelName
from corectl.model.record import ModelRecord, StoredLayer

JINJA_WITH_ALL = "{% if tools %}<tool_call>{% endif %}<think>x</think>"


def weights(path: Path, architecture: str = "llama", chat_template: str = "", **keys: int | bool) -> Path:
    writer = gguf.GGUFWriter(str(path), architecture)
    for key, value in keys.items():
        full = key.replace("__", ".")
        writer.add_bool(full, value) if isinstance(value, bool) else writer.add_uint32(full, value)
    if chat_template:
        writer.add_chat_template(chat_template)
    writer.add_tensor("token_embd.weight", np.ones((2, 4), np.float32))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def record(config: ModelConfig | None = None, **files: Path) -> ModelRecord:
    """A model whose layers are the files by the name of their media type."""
    layers = tuple(
        StoredLayer(media_type=MediaType[kind.upper()], digest="sha256:" + "0" * 64, size=1, path=path)
        for kind, path in files.items()
    )
    return ModelRecord(
        name=ModelName.parse("m"),
        digest="",
        size=0,
        modified_at=datetime.now(UTC),
        config=config or ModelConfig(model_format="gguf"),
        layers=layers,
    )


def written(tmp_path: Path, text: str) -> Path:
    path = tmp_path / "template"
    path.write_text(text)
    return path


@pytest.mark.parametrize(
    ("template", "expected"),
    [
        ("{{ .prompt }}", ["completion"]),
        ("{{ .Prompt }}", ["completion"]),
        ("{{- if .Tools }}{{ range .Tools }}{{ . }}{{ end }}{{ end }}", ["completion", "tools"]),
        (
            "{{ .prompt }}{{ if .tools }}{{ .tools }}{{ end }}{{ if .suffix }}{{ .suffix }}{{ end }}",
            ["completion", "tools", "insert"],
        ),
        ("{{ if and $.IsThinkSet $.Think }}<think>{{ end }}", ["completion"]),
        ("{{ if .Thinking }}<think>{{ .Thinking }}</think>{{ end }}", ["completion"]),
        ("{{ range .Messages }}<think>{{ .Thinking }}</think>{{ end }}", ["completion", "thinking"]),
        ("{{ range .Messages }}{{ .Thinking }}{{ end }}", ["completion"]),
        ("{{ .Tools ", ["completion"]),
        ('.Tools {{ ".Tools" }}{{ `.Suffix` }}{{ .ToolCalls }}', ["completion"]),
    ],
)
def test_the_template_tells(tmp_path: Path, template: str, expected: list[str]) -> None:
    model = record(model=weights(tmp_path / "w"), template=written(tmp_path, template))
    assert capabilities(model) == expected


def test_the_chat_template_of_the_weights_counts_where_there_is_no_other(tmp_path: Path) -> None:
    path = weights(tmp_path / "w", chat_template=JINJA_WITH_ALL)
    assert capabilities(record(model=path)) == ["completion", "tools", "thinking"]


def test_of_two_templates_that_one_counts_which_renders_chats(tmp_path: Path) -> None:
    path = weights(tmp_path / "w", chat_template=JINJA_WITH_ALL)
    fills = record(model=path, template=written(tmp_path, "{{ .Prompt }}{{ .Suffix }}"))
    assert capabilities(fills) == ["completion", "tools", "insert", "thinking"]
    assert capabilities(fills, prefer_go=True) == ["completion", "insert"]
    both = record(model=path, template=written(tmp_path, "{{ .Tools }}{{ .Suffix }}"))
    assert capabilities(both) == ["completion", "tools", "insert"]
    assert capabilities(both, prefer_go=False) == ["completion", "tools", "insert", "thinking"]


def test_a_renderer_brings_its_template_and_an_unknown_one_nothing(tmp_path: Path) -> None:
    path, template = weights(tmp_path / "w"), written(tmp_path, "{{ .Prompt }}")
    for renderer, expected in {
        "qwen3-coder": ["completion", "tools"],
        "qwen3-vl-thinking": ["completion", "tools", "thinking"],
        "nope": ["completion"],
        "glimmer": ["completion"],
    }.items():
        config = ModelConfig(model_format="gguf", renderer=renderer)
        assert capabilities(record(config, model=path, template=template)) == expected


@pytest.mark.parametrize(
    ("keys", "expected"),
    [
        ({"llama__pooling_type": 1}, ["embedding"]),
        ({"llama__vision__block_count": 2}, ["completion", "vision"]),
    ],
)
def test_the_weights_tell(tmp_path: Path, keys: dict[str, Any], expected: list[str]) -> None:
    assert capabilities(record(model=weights(tmp_path / "w", **keys))) == expected


def test_a_projector_brings_senses(tmp_path: Path) -> None:
    model, plain = weights(tmp_path / "w"), weights(tmp_path / "p", "clip")
    hearing = weights(tmp_path / "q", "clip", clip__has_audio_encoder=True)
    assert capabilities(record(model=model, projector=plain)) == ["completion", "vision"]
    config = ModelConfig(model_format="gguf", parser="functiongemma")
    assert capabilities(record(config, model=model, projector=hearing)) == [
        "completion",
        "vision",
        "audio",
        "tools",
    ]


def test_the_config_adds(tmp_path: Path) -> None:
    path = weights(tmp_path / "w")
    config = ModelConfig(model_format="gguf", capabilities=("completion", "tools"), parser="qwen3-coder")
    assert capabilities(record(config, model=path)) == ["completion", "tools"]
    assert capabilities(record(ModelConfig(capabilities=("image", "vision")))) == ["image", "vision"]
    assert capabilities(record(ModelConfig(remote_host="http://x", remote_model="y"))) == []
    assert (
        capabilities(record(ModelConfig(model_format="gguf", model_family="gptoss"), model=path))[-1]
        == "thinking"
    )


def test_the_modelfile_of_a_model_without_a_template(tmp_path: Path) -> None:
    path = weights(tmp_path / "w")
    assert show_modelfile(record(model=path)) == (
        '# Modelfile generated by "ollama show"\n# To build a new Modelfile based on this, replace FROM with:\n'
        f"# FROM m:latest\n\nFROM {path}\nTEMPLATE {{{{ .Prompt }}}}\n"
    )
    assert template_text(record(model=weights(tmp_path / "v", chat_template="x"))) == ""


def test_a_stub_tells_what_its_config_says() -> None:
    config = ModelConfig(
        model_family="gptoss", context_length=4096, remote_host="http://h:1", remote_model="big:20b"
    )
    stub = record(config)
    assert model_info(stub) == {"general.architecture": "gptoss", "gptoss.context_length": 4096}
    assert details_of(stub, lengths=True).context_length == 4096
    assert show_modelfile(stub).endswith("\nFROM m:latest\n")

"""Commands that ask the server something and print the answer."""

from __future__ import annotations

import json
from collections.abc import Callable
from datetime import UTC, datetime, timedelta
from typing import TYPE_CHECKING, Any

import pytest

if TYPE_CHECKING:
    from tests.cli.conftest import FakeServer, Result

    Corectl = Callable[..., Result]

LLAMA = {
    "general.architecture": "llama",
    "general.parameter_count": 134515008,
    "general.languages": ["en"],
    "llama.context_length": 8192,
    "llama.embedding_length": 576,
    "llama.attention.layer_norm_rms_epsilon": 1e-05,
    "tokenizer.ggml.merges": ["Ġ t", "Ġ a", "i n", "h e"],
    "tokenizer.ggml.token_type": [3, 3, 3, 3],
    "tokenizer.ggml.tokens": ["<|endoftext|>", "<|im_start|>"],
    "tokenizer.ggml.add_bos_token": False,
}
SMOLT = {
    "license": "MIT License\nCopyright (c) test",
    "modelfile": "# Modelfile\nFROM x\n",
    "parameters": 'num_ctx                        1024\nstop                           "<|im_end|>"',
    "template": "{{ .Prompt }}\n",
    "system": "You are a helpful pirate.",
    "details": {"family": "llama", "parameter_size": "134.52M", "quantization_level": "Q4_1"},
    "model_info": LLAMA,
    "tensors": [{"name": "output_norm.weight", "type": "F32", "shape": [576]}],
    "capabilities": ["completion"],
}
MODEL_SECTION = (
    "  Model\n"
    "    architecture        llama      \n"
    "    parameters          134.52M    \n"
    "    context length      8192       \n"
    "    embedding length    576        \n"
    "    quantization        Q4_1       \n\n"
    "  Capabilities\n    completion    \n\n"
)


def ago(**delta: float) -> str:
    return (datetime.now(UTC) - timedelta(**delta)).isoformat()


def tag(name: str, **fields: Any) -> dict[str, Any]:
    size, digest = 98362771, "14f8ac0fb3c4d0781f89e8e94fb0f50f"
    return {"name": name, "digest": digest, "size": size, "modified_at": ago(minutes=6.5), **fields}


def test_list(server: FakeServer, corectl: Corectl) -> None:
    models = [tag("gemma3:270m", size=253_000_000), tag("cloudy:latest", remote_model="big", size=191)]
    server.reply("GET /api/tags", {"models": models})
    expected = (
        "NAME             ID              SIZE      MODIFIED      \n"
        "gemma3:270m      14f8ac0fb3c4    253 MB    6 minutes ago    \n"
        "cloudy:latest    14f8ac0fb3c4    -         6 minutes ago    \n"
    )
    assert corectl("list").out == corectl("ls").out == expected
    assert corectl("list", "GEM").out.splitlines()[1:] == [
        "gemma3:270m    14f8ac0fb3c4    253 MB    6 minutes ago    "
    ]
    assert corectl("list", "zzz").out == "NAME    ID    SIZE    MODIFIED \n"


@pytest.mark.parametrize(
    ("size", "vram", "text"),
    [
        (209505483, 0, "100% CPU"),
        (100, 100, "100% GPU"),
        (100, 52, "48%/52% CPU/GPU"),
        (0, 0, "Unknown"),
        (1, 2, "Unknown"),
    ],
)
def test_ps(server: FakeServer, corectl: Corectl, size: int, vram: int, text: str) -> None:
    model = tag("t0:latest", size=size, size_vram=vram, context_length=4096, expires_at=ago(minutes=-4.5))
    server.reply("GET /api/ps", {"models": [model]})
    head, row = corectl("ps").out.splitlines()
    assert head.split() == ["NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL"]
    assert f"    {text:<9}    4096       4 minutes from now    " in row
    assert len(corectl("ps", "other").out.splitlines()) == 1


def test_ps_with_backends(server: FakeServer, corectl: Corectl) -> None:
    runner = {"backend": "mlx", "variant": "metal", "backend_reason": "the only one"}
    loaded = [
        tag("a:latest", expires_at=ago(minutes=-4.5), runner=runner),
        tag("b:latest", expires_at=ago(minutes=-4.5)),
    ]
    server.reply("GET /api/ps", {"models": loaded})
    head, first, second = corectl("ps", "--verbose").out.splitlines()
    assert head.split()[-2:] == ["BACKEND", "WHY"]
    assert first.rstrip().endswith("mlx (metal)    the only one")
    assert second.rstrip().endswith("from now")


@pytest.mark.parametrize(
    ("since", "text"), [({"days": -36500}, "Forever"), ({"seconds": 1}, "Stopping...")], ids=["ever", "over"]
)
def test_ps_until(server: FakeServer, corectl: Corectl, since: dict[str, float], text: str) -> None:
    server.reply("GET /api/ps", {"models": [tag("m", expires_at=ago(**since))]})
    assert corectl("ps").out.rstrip().endswith(text)


def test_show(server: FakeServer, corectl: Corectl) -> None:
    server.reply("POST /api/show", SMOLT)
    assert corectl("show", "smolt").out == MODEL_SECTION + (
        '  Parameters\n    num_ctx    1024            \n    stop       "<|im_end|>"    \n\n'
        "  System\n    You are a helpful pirate.    \n\n"
        "  License\n    MIT License           \n    Copyright (c) test    \n\n"
    )


def test_show_verbose(server: FakeServer, corectl: Corectl) -> None:
    server.reply("POST /api/show", SMOLT)
    text = corectl("show", "-v", "smolt").out
    rows = dict(line.split(None, 1) for line in text.split("  Metadata\n")[1].split("\n\n")[0].splitlines())
    assert {name: value.rstrip() for name, value in rows.items()} == {
        "general.architecture": "llama",
        "general.parameter_count": "1.34515008e+08",
        "general.languages": "[en]",
        "llama.context_length": "8192",
        "llama.embedding_length": "576",
        "llama.attention.layer_norm_rms_epsilon": "1e-05",
        "tokenizer.ggml.merges": "[Ġ t Ġ a ...+2 more]",
        "tokenizer.ggml.token_type": "[3 3 3 ...+1 more]",
        "tokenizer.ggml.tokens": "[<|endoftext|> ...+1 more]",
        "tokenizer.ggml.add_bos_token": "false",
    }
    assert "  Tensors\n    output_norm.weight    F32    [576]    \n\n" in text
    assert server.bodies("POST /api/show") == [{"model": "smolt", "verbose": True}]


def test_show_without_metadata(server: FakeServer, corectl: Corectl) -> None:
    details = {"family": "test", "parameter_size": "7B", "quantization_level": "FP16"}
    remote = {"details": details, "remote_model": "big:1", "remote_host": "https://ollama.com:443"}
    server.reply("POST /api/show", remote)
    assert [line.split() for line in corectl("show", "x").out.splitlines() if line] == [
        ["Model"],
        ["Remote", "model", "big:1"],
        ["Remote", "URL", "https://ollama.com:443"],
        ["architecture", "test"],
        ["parameters", "7B"],
        ["quantization", "FP16"],
    ]


def test_show_projector_and_long_texts(server: FakeServer, corectl: Corectl) -> None:
    projector = {
        "general.architecture": "clip",
        "general.parameter_count": 133_700_000,
        "clip.vision.embedding_length": 1024,
        "clip.vision.projection_dim": 768,
    }
    server.reply("POST /api/show", {**SMOLT, "projector_info": projector, "license": "\na\n\nb\nc\n"})
    text = corectl("show", "x").out
    assert (
        "  Projector\n    architecture        clip       \n    parameters          133.70M    \n"
        "    embedding length    1024       \n    dimensions          768        \n\n"
    ) in text
    assert text.endswith("  License\n    a      \n    b      \n    ...    \n\n")


@pytest.mark.parametrize(
    ("flag", "text"),
    [
        ("--license", "MIT License\nCopyright (c) test\n"),
        ("--modelfile", "# Modelfile\nFROM x\n\n"),
        ("--parameters", SMOLT["parameters"] + "\n"),  # type: ignore[operator]
        ("--system", "You are a helpful pirate."),
        ("--template", "{{ .Prompt }}\n"),
    ],
)
def test_show_one_part(server: FakeServer, corectl: Corectl, flag: str, text: str) -> None:
    server.reply("POST /api/show", SMOLT)
    assert corectl("show", "smolt", flag).out == text


def test_errors_of_the_server_are_shown_as_they_are(server: FakeServer, corectl: Corectl) -> None:
    server.reply("POST /api/show", {"error": "model 'nope:latest' not found"}, 404)
    server.reply("POST /api/copy", {"error": 'destination "a b" is invalid'}, 400)
    assert corectl("show", "nope").err == "Error: model 'nope:latest' not found\n"
    assert corectl("cp", "cli1", "a b").err == 'Error: destination "a b" is invalid\n'


def test_a_reply_that_is_no_json(server: FakeServer, corectl: Corectl) -> None:
    server.reply("GET /api/tags", None, 502)
    assert corectl("list").err == "Error: 502 Bad Gateway\n"


def test_copy(server: FakeServer, corectl: Corectl) -> None:
    server.reply("POST /api/copy", None)
    assert corectl("cp", "cli1", "cli4").out == "copied 'cli1' to 'cli4'\n"
    assert server.bodies("POST /api/copy") == [{"source": "cli1", "destination": "cli4"}]


def test_remove(server: FakeServer, corectl: Corectl) -> None:
    server.reply("POST /api/generate", {"done": True})
    server.reply("DELETE /api/delete", None)
    result = corectl("rm", "a", "b")
    assert (result.code, result.out, result.err) == (0, "deleted 'a'\ndeleted 'b'\n", "")
    assert server.bodies("POST /api/generate")[0]["keep_alive"] == 0


def test_remove_stops_at_the_first_error(server: FakeServer, corectl: Corectl) -> None:
    server.reply("POST /api/generate", {"error": "no"}, 404)
    server.reply("DELETE /api/delete", {"error": "model 'cli3' not found"}, 404)
    result = corectl("rm", "cli3", "nope2")
    assert (result.code, result.out, result.err) == (1, "", "Error: model 'cli3' not found\n")
    assert len(server.bodies("DELETE /api/delete")) == 1


def test_remove_warns_about_a_model_that_does_not_stop(server: FakeServer, corectl: Corectl) -> None:
    server.reply("POST /api/generate", {"error": "boom"}, 500)
    server.reply("DELETE /api/delete", None)
    result = corectl("rm", "a")
    assert (result.code, result.out, result.err) == (
        0,
        "deleted 'a'\n",
        "Warning: unable to stop model 'a'\n",
    )


def test_stop(server: FakeServer, corectl: Corectl) -> None:
    server.reply("POST /api/generate", {"done": True, "done_reason": "unload"})
    assert corectl("stop", "t0").out == ""
    server.reply("POST /api/generate", {"error": "model 't0' not found"}, 404)
    assert corectl("stop", "t0").err == 'Error: couldn\'t find model "t0" to stop\n'


@pytest.mark.parametrize(
    ("reply", "lines"),
    [
        ({"version": "0.33.0", "corectl": "0.1.0"}, ["corectl version is 0.1.0"]),
        ({"version": "0.33.0", "corectl": "9"}, ["corectl version is 9", "Warning: client version is 0.1.0"]),
    ],
)
def test_version(server: FakeServer, corectl: Corectl, reply: dict[str, str], lines: list[str]) -> None:
    server.reply("GET /api/version", reply)
    assert corectl("--version").out.splitlines() == corectl("version").out.splitlines() == lines


def test_plugins_as_json(corectl: Corectl) -> None:
    value = json.loads(corectl("plugins", "--json").out)
    assert set(value) == {"plugins", "availability"}


def test_plugins_as_a_table(corectl: Corectl, monkeypatch: pytest.MonkeyPatch) -> None:
    from corectl.plugins import PluginHost, PluginInfo

    host = PluginHost()
    host.plugins = [
        PluginInfo(name="good", distribution="corectl", version="0.1.0", hooks=("corectl_backends",)),
        PluginInfo(name="old", distribution="corectl-old", version="2", warnings=("goes soon",)),
        PluginInfo(
            name="bad", distribution="corectl-bad", version="1", state="broken", reason="ImportError: x"
        ),
    ]
    monkeypatch.setattr(host, "availability", lambda: {"gpu": "no driver", "cpu": ""})
    monkeypatch.setattr(PluginHost, "load", lambda settings: host)
    assert corectl("plugins").out.splitlines() == [
        "NAME    DISTRIBUTION    VERSION    STATE     HOOKS ",
        "good    corectl         0.1.0      active    1        ",
        "    backends",
        "old     corectl-old     2          active    0        ",
        "    warning: goes soon",
        "bad     corectl-bad     1          broken    0        ",
        "    ImportError: x",
        "",
        "Not usable here:",
        "    gpu: no driver",
    ]


def test_serve_hands_over_what_was_given(corectl: Corectl, monkeypatch: pytest.MonkeyPatch) -> None:
    import sys
    import types

    seen: list[dict[str, Any]] = []
    fake = types.ModuleType("corectl.server.serve")
    fake.serve = lambda flags: seen.append(flags) or 3  # type: ignore[attr-defined, func-returns-value]
    monkeypatch.setitem(sys.modules, "corectl.server.serve", fake)
    assert corectl("serve").code == 3
    corectl("start", "--port", "0", "--no-plugin", "a", "--no-plugin", "b", "--log-level", "debug")
    assert seen == [{}, {"port": 0, "disabled_plugins": ("a", "b"), "log_level": "debug"}]

"""Settings: where each value comes from, and what is refused."""

from __future__ import annotations

import logging
from pathlib import Path
from typing import Any

import msgspec
import pytest

from corectl.config import DEFAULT_PORT, FOREVER, SETTINGS, Settings, clean, load, loading, split_host
from corectl.errors import BadRequest


@pytest.fixture(autouse=True)
def no_file_of_the_user(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(loading, "config_path", lambda: tmp_path / "nowhere" / "corectl.toml")


def from_file(tmp_path: Path, text: str, **environment: str) -> Settings:
    path = tmp_path / "corectl.toml"
    path.write_text(text, "utf-8")
    return load({}, {"CORECTL_CONFIG": str(path), **environment})


def from_environment(**environment: str) -> Settings:
    return load({}, environment)


def test_the_table_names_every_setting_once() -> None:
    fields = {field.name for field in msgspec.structs.fields(Settings)} - {"sources"}
    names = [setting.name for setting in SETTINGS]
    assert set(names) == fields and len(names) == len(fields)
    variables = [variable for setting in SETTINGS for variable in setting.variables]
    assert len(set(variables)) == len(variables)
    assert all(setting.help for setting in SETTINGS)


def test_without_anything_there_are_the_defaults() -> None:
    assert load({}, {}) == Settings()
    assert load({}, {}).source("port") == "default"


def test_file_then_environment_then_flags(tmp_path: Path) -> None:
    text = 'host = "1.1.1.1"\nport = 1\nmax_queue = 1\nbackend = "one"\n'
    path = tmp_path / "corectl.toml"
    path.write_text(text)
    found = load(
        {"port": 3, "backend": None, "config": str(path)},
        {"OLLAMA_HOST": "2.2.2.2:2", "OLLAMA_MAX_QUEUE": "2"},
    )
    assert (found.host, found.port, found.max_queue, found.backend) == ("2.2.2.2", 3, 2, "one")
    sources = [found.source(name) for name in ("host", "port", "max_queue", "backend", "prune")]
    assert sources == ["OLLAMA_HOST", "command line", "OLLAMA_MAX_QUEUE", str(path), "default"]


def test_a_file_where_it_is_looked_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    path = tmp_path / "found.toml"
    monkeypatch.setattr(loading, "config_path", lambda: path)
    assert load({}, {}).port == DEFAULT_PORT
    path.write_text("port = 5")
    assert (load({}, {}).port, load({}, {}).source("port")) == (5, str(path))


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("port = ", "cannot read the configuration file"),
        ("prot = 1", "unknown setting 'prot'; known are host, port"),
        ('sources = {port = "me"}', "unknown setting 'sources'"),
        ('port = "many"', "port: "),
        ("port = -1", "port: "),
        ("port = 65536", "port: "),
        ("port = 1.5", "port: "),
        ("port = [1]", "port"),
        ("max_queue = -1", "max_queue: "),
        ('keep_alive = "soon"', "keep_alive: time: invalid duration"),
        ("keep_alive = nan", "keep_alive: "),
        ('log_level = "loud"', "log_level: 'loud' is none of"),
        ("host = 5", "host"),
        ("origins = [1]", "origins"),
        ("prune = 7", "prune"),
    ],
)
def test_a_bad_file_is_refused_by_name(tmp_path: Path, text: str, message: str) -> None:
    with pytest.raises(BadRequest) as found:
        from_file(tmp_path, text)
    assert message in found.value.message


def test_a_named_file_must_be_there(tmp_path: Path) -> None:
    with pytest.raises(BadRequest, match="cannot read"):
        load({"config": str(tmp_path / "none.toml")}, {})
    (tmp_path / "binary.toml").write_bytes(b"\xff\xfe")
    with pytest.raises(BadRequest, match="cannot read"):
        load({"config": str(tmp_path / "binary.toml")}, {})


@pytest.mark.parametrize(
    ("text", "name", "value"),
    [
        *(("keep_alive = 60", "keep_alive", 60.0), ("keep_alive = 0.5", "keep_alive", 0.5)),
        *(('keep_alive = "1h"', "keep_alive", 3600.0), ("keep_alive = 0", "keep_alive", 0.0)),
        *(("keep_alive = -1", "keep_alive", FOREVER), ("keep_alive = inf", "keep_alive", FOREVER)),
        *(("load_timeout = 0", "load_timeout", FOREVER), ("load_timeout = 2.5", "load_timeout", 2.5)),
        *(('load_timeout = "-1s"', "load_timeout", FOREVER), ("max_body = 0", "max_body", 0)),
        *(("port = 0", "port", 0), ('port = "80"', "port", 80), ("prune = false", "prune", False)),
        *(('prune = "false"', "prune", False), ('prune = "yes"', "prune", True)),
        *(('origins = ["a", "b"]', "origins", ("a", "b")), ('origins = "a, b,"', "origins", ("a", "b"))),
        *(('models = "~/x"', "models", Path("~/x").expanduser()), ('log_level = "1"', "log_level", "debug")),
    ],
)
def test_the_file_takes_numbers_and_texts(tmp_path: Path, text: str, name: str, value: Any) -> None:
    assert getattr(from_file(tmp_path, text), name) == value


@pytest.mark.parametrize(
    ("text", "cleaned"),
    [(" ' v' ", " v"), ('"v"', "v"), ("  v ", "v"), ("'v", "v"), ("", ""), ("a'b", "a'b"), ("\"'v'\"", "v")],
)
def test_spaces_and_then_quotes_are_stripped(text: str, cleaned: str) -> None:
    assert clean(text) == cleaned


@pytest.mark.parametrize(
    ("text", "seconds"),
    [
        *(("0", 0.0), ("-1", FOREVER), ("-1m", FOREVER), ("60", 60.0), ("2h", 7200.0)),
        *(("1d", 300.0), ("???", 300.0), ("0.5", 300.0), ("9" * 400, 300.0), ("", 300.0)),
    ],
)
def test_keep_alive_from_the_environment(text: str, seconds: float) -> None:
    assert from_environment(OLLAMA_KEEP_ALIVE=text).keep_alive == seconds


@pytest.mark.parametrize(("text", "seconds"), [("0", FOREVER), ("-5s", FOREVER), ("10s", 10.0), ("x", 300.0)])
def test_load_timeout_from_the_environment(text: str, seconds: float) -> None:
    assert from_environment(OLLAMA_LOAD_TIMEOUT=text).load_timeout == seconds


@pytest.mark.parametrize(
    ("text", "prune"), [("1", False), ("true", False), ("0", True), ("F", True), ("", True)]
)
def test_noprune_turns_prune_off(text: str, prune: bool) -> None:
    assert from_environment(OLLAMA_NOPRUNE=text).prune is prune


@pytest.mark.parametrize("text", ["-1", "0x10", "1_000", "ten", "+5", "٣", "1.0", "9" * 30])
def test_a_bad_count_is_warned_about_and_left_out(text: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        found = from_environment(OLLAMA_MAX_QUEUE=text)
    assert (found.max_queue, found.source("max_queue")) == (512, "default")
    assert "OLLAMA_MAX_QUEUE" in caplog.text


@pytest.mark.parametrize(
    ("text", "level"), [("0", "info"), ("1", "debug"), ("2", "debug"), ("-1", "warning"), ("-2", "error")]
)
def test_ollama_debug(text: str, level: str) -> None:
    assert from_environment(OLLAMA_DEBUG=text).log_level == level


def test_our_own_variable_wins_over_the_other_one() -> None:
    found = from_environment(OLLAMA_DEBUG="1", CORECTL_LOG_LEVEL="error")
    assert (found.log_level, found.source("log_level")) == ("error", "CORECTL_LOG_LEVEL")


def test_lists_from_the_environment() -> None:
    found = from_environment(OLLAMA_ORIGINS=" http://a, ,http://b ", CORECTL_DISABLED_PLUGINS="x")
    assert found.origins == ("http://a", "http://b")
    assert found.disabled_plugins == ("x",)


@pytest.mark.parametrize(
    ("text", "host", "port"),
    [
        *(
            ("1.2.3.4", "1.2.3.4", None),
            (":1234", "", 1234),
            (":0", "", 0),
            ("h:1", "h", 1),
            ("h:", "h", None),
        ),
        *(
            ("[::1]", "::1", None),
            ("::1", "::1", None),
            ("[::1]:99", "::1", 99),
            ("fe80::1", "fe80::1", None),
        ),
        *(("http://1.2.3.4", "1.2.3.4", 80), ("https://h", "h", 443), ("http://h:5", "h", 5)),
        *(("https://example.com/ollama", "example.com", 443), ("http://[::1]:7/x", "::1", 7)),
    ],
)
def test_host_and_port(text: str, host: str, port: int | None) -> None:
    assert split_host(text) == (host, port)


@pytest.mark.parametrize("text", ["h:66000", "h:-1", "h:²", "h:1a", "h:" + "9" * 5000])
def test_a_bad_port_counts_as_the_default_one(text: str, caplog: pytest.LogCaptureFixture) -> None:
    with caplog.at_level(logging.WARNING):
        assert split_host(text) == ("h", DEFAULT_PORT)
    assert "not valid" in caplog.text


def test_ollama_host() -> None:
    found = from_environment(OLLAMA_HOST=":1234")
    assert (found.host, found.port, found.source("port")) == ("0.0.0.0", 1234, "OLLAMA_HOST")
    found = from_environment(OLLAMA_HOST="example.com")
    assert (found.host, found.port, found.source("port")) == ("example.com", DEFAULT_PORT, "default")


def test_a_flag_of_the_wrong_type_is_refused() -> None:
    with pytest.raises(BadRequest, match=r"port.*many"):
        load({"port": "many"}, {})


@pytest.mark.parametrize(
    ("text", "kind"),
    [("cpu", "cpu"), ("cpu_avx2", "cpu"), ("CUDA_v12", "cuda"), ("rocm-v6", "rocm"), ("sycl", "sycl")],
)
def test_the_library_is_a_kind_of_device(text: str, kind: str, tmp_path: Path) -> None:
    assert from_environment(OLLAMA_LLM_LIBRARY=text).llm_library == kind
    assert from_file(tmp_path, f'llm_library = "{text}"').llm_library == kind


def test_an_unknown_library_is_left_out(caplog: pytest.LogCaptureFixture, tmp_path: Path) -> None:
    assert from_environment(OLLAMA_LLM_LIBRARY="tpu").llm_library == ""
    assert "none of cpu, cuda, rocm, metal, vulkan, sycl" in caplog.text
    with pytest.raises(BadRequest, match="llm_library"):
        from_file(tmp_path, 'llm_library = "tpu"')


def test_a_gpu_may_be_required_on_the_command_line() -> None:
    assert load({"require_gpu": True}, {}).require_gpu
    assert from_environment(CORECTL_REQUIRE_GPU="1").require_gpu


def test_backends_by_patterns(tmp_path: Path) -> None:
    file = tmp_path / "corectl.toml"
    file.write_text('[backends]\n"hf.co/mlx/*" = "mlx"\n"*-onnx" = "onnx"\n')
    assert load({"config": str(file)}, {}).backends == {"hf.co/mlx/*": "mlx", "*-onnx": "onnx"}
    environment = {"CORECTL_CONFIG": str(file), "CORECTL_BACKENDS": "qwen* = mlx , x=y"}
    assert load({}, environment).backends == {"qwen*": "mlx", "x": "y"}
    assert load({}, {"CORECTL_BACKENDS": "qwen"}).backends == {}
    file.write_text("backends = 5\n")
    with pytest.raises(BadRequest, match="backends"):
        load({"config": str(file)}, {})

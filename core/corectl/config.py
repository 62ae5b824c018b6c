"""Settings: defaults < corectl.toml < environment < command line. Each value remembers where it came from.

The table `SETTINGS` is the only list of settings there is; `docs/configuration.md` is made from it.
"""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import msgspec
import platformdirs

from corectl.duration import parse_duration
from corectl.errors import BadRequest
from corectl.secret import Secret

log = logging.getLogger(__name__)

DEFAULT_PORT = 11434
FOREVER = float("inf")


class Settings(msgspec.Struct, frozen=True, kw_only=True):
    """The effective settings. Durations are in seconds (infinity: for ever), sizes in bytes, contexts in tokens."""

    host: str = "127.0.0.1"
    port: int = DEFAULT_PORT
    models: Path = Path("~/.ollama/models").expanduser()
    backend: str = ""
    backends: dict[str, str] = {}
    disabled_plugins: tuple[str, ...] = ()
    scheduler_policy: str = "default"
    keep_alive: float = 300.0
    load_timeout: float = 300.0
    context_length: int = 0
    strict_context: bool = False
    go_template: bool | None = None
    num_parallel: int = 0
    max_loaded_models: int = 0
    max_queue: int = 512
    max_context: int = 0
    flash_attention: bool | None = None
    kv_cache_type: str = "f16"
    gpu_overhead: int = 0
    sched_spread: bool = False
    require_gpu: bool = False
    llm_library: str = ""
    numa: bool = False
    cache_memory: int = 2**29
    remotes: dict[str, str] = {}
    remote_keys: dict[str, Secret] = {}
    remote_hosts: tuple[str, ...] = ()
    origins: tuple[str, ...] = ()
    max_body: int = 64 * 2**20
    prune: bool = True
    log_level: str = "info"
    log_format: str = "text"
    sources: dict[str, str] = {}

    def source(self, name: str) -> str:
        """Where the value of a setting came from: `default`, a file, a variable or `command line`."""
        return self.sources.get(name, "default")


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table: how a setting is written in the environment, and how its text is read.

    The value of a `secret` one is shown nowhere; its `parse` does not quote it either.
    """

    name: str
    variables: tuple[str, ...]
    parse: Callable[[str], Any]
    help: str
    secret: bool = False


def clean(text: str) -> str:
    """An environment value without the spaces and then the quotes around it."""
    return text.strip().strip("\"'")


def _bool(text: str) -> bool:
    return text.lower() not in ("", "0", "f", "false", "no", "off")


def _inverted(text: str) -> bool:
    return not _bool(text)


def _count(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ValueError(f"{text!r} is no whole number of at least 0")
    return int(text)


def _port(text: str) -> int:
    if (port := _count(text)) > 65535:
        raise ValueError(f"{text} is above 65535")
    return port


def _list(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _split_pairs(text: str) -> dict[str, str]:
    """Names with a value each. Raises ValueError with the part that is none."""
    found: dict[str, str] = {}
    for part in _list(text):
        name, separator, value = part.partition("=")
        if not separator or not name.strip() or not value.strip():
            raise ValueError(part)
        found[name.strip()] = value.strip()
    return found


def _pairs(what: str) -> Callable[[str], dict[str, str]]:
    """Reads pairs; `what` says what a pair is made of."""

    def parse(text: str) -> dict[str, str]:
        try:
            return _split_pairs(text)
        except ValueError as exc:
            raise ValueError(f"{exc.args[0]!r} is no {what}") from None

    return parse


def _secrets(text: str) -> dict[str, Secret]:
    try:
        return {name: Secret(value) for name, value in _split_pairs(text).items()}
    except ValueError:
        raise ValueError("it must be names and keys, such as lab=KEY,other=KEY") from None


def _keep_alive(text: str) -> float:
    seconds = parse_duration(text, bare_seconds=True)
    return FOREVER if seconds < 0 else seconds


def _load_timeout(text: str) -> float:
    seconds = parse_duration(text, bare_seconds=True)
    return FOREVER if seconds <= 0 else seconds


def _log_level(text: str) -> str:
    levels = {
        "-2": "error",
        "-1": "warning",
        "0": "info",
        "false": "info",
        "1": "debug",
        "true": "debug",
        "2": "debug",
    }
    level = levels.get(text.lower(), text.lower())
    if level not in ("debug", "info", "warning", "error"):
        raise ValueError(f"{text!r} is none of debug, info, warning, error")
    return level


def _one_of(*known: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if (value := text.lower()) not in known:
            raise ValueError(f"{text!r} is none of {', '.join(known)}")
        return value

    return parse


LIBRARIES = ("cpu", "cuda", "rocm", "metal", "vulkan", "sycl")


def _library(text: str) -> str:
    """A kind of device. Old names say more, such as `cuda_v12` or `cpu_avx2`; what follows the kind is not needed."""
    kind = text.lower().replace("-", "_").partition("_")[0]
    if kind not in LIBRARIES:
        raise ValueError(f"{text!r} is none of {', '.join(LIBRARIES)}")
    return kind


SETTINGS = (
    Setting(
        name="host",
        variables=("OLLAMA_HOST",),
        parse=str,
        help="address to listen on; the variable takes a port too",
    ),
    Setting(name="port", variables=(), parse=_port, help="port to listen on (0: a free one)"),
    Setting(
        name="models",
        variables=("OLLAMA_MODELS",),
        parse=lambda text: Path(text).expanduser(),
        help="folder of the model store",
    ),
    Setting(
        name="backend",
        variables=("CORECTL_BACKEND",),
        parse=str,
        help="backend to use; empty: the best that fits",
    ),
    Setting(
        name="backends",
        variables=("CORECTL_BACKENDS",),
        parse=_pairs("pattern, '=' and name"),
        help="backends by patterns of model names, before `backend`, such as `qwen*=mlx,*-onnx=onnx`; the first fits",
    ),
    Setting(
        name="disabled_plugins",
        variables=("CORECTL_DISABLED_PLUGINS",),
        parse=_list,
        help="plugins to leave out, by name",
    ),
    Setting(
        name="scheduler_policy",
        variables=("CORECTL_SCHEDULER_POLICY",),
        parse=str,
        help="policy that orders the queue, evicts and places models",
    ),
    Setting(
        name="keep_alive",
        variables=("OLLAMA_KEEP_ALIVE",),
        parse=_keep_alive,
        help="how long an idle model stays loaded (below 0: for ever)",
    ),
    Setting(
        name="load_timeout",
        variables=("OLLAMA_LOAD_TIMEOUT",),
        parse=_load_timeout,
        help="how long a load may make no progress (0: for ever)",
    ),
    Setting(
        name="context_length",
        variables=("OLLAMA_CONTEXT_LENGTH",),
        parse=_count,
        help="context in tokens where neither request nor model says (0: by the memory of the GPUs)",
    ),
    Setting(
        name="strict_context",
        variables=("CORECTL_STRICT_CONTEXT",),
        parse=_bool,
        help="refuse requests that do not fit their context, instead of dropping what is oldest",
    ),
    Setting(
        name="go_template",
        variables=("OLLAMA_GO_TEMPLATE",),
        parse=_bool,
        help="render chats with a model's TEMPLATE; off: with its weights' own; empty: with the one that can do more",
    ),
    Setting(
        name="num_parallel",
        variables=("OLLAMA_NUM_PARALLEL",),
        parse=_count,
        help="requests that one model answers at once (0: 16 that share memory for two full contexts)",
    ),
    Setting(
        name="max_loaded_models",
        variables=("OLLAMA_MAX_LOADED_MODELS",),
        parse=_count,
        help="models in memory at once (0: 3 for each GPU, or 3 without one)",
    ),
    Setting(
        name="max_queue",
        variables=("OLLAMA_MAX_QUEUE",),
        parse=_count,
        help="requests that may wait for a model to load, besides the one whose turn it is; more get a 503",
    ),
    Setting(
        name="max_context",
        variables=("CORECTL_MAX_CONTEXT",),
        parse=_count,
        help="largest context in tokens that a request may ask for (0: what the model was trained for)",
    ),
    Setting(
        name="flash_attention",
        variables=("OLLAMA_FLASH_ATTENTION",),
        parse=_bool,
        help="compute attention without storing it; empty: where the engine finds it useful",
    ),
    Setting(
        name="kv_cache_type",
        variables=("OLLAMA_KV_CACHE_TYPE",),
        parse=_one_of("f16", "q8_0", "q4_0"),
        help="type of values in the key-value memory: f16, q8_0 or q4_0",
    ),
    Setting(
        name="gpu_overhead",
        variables=("OLLAMA_GPU_OVERHEAD",),
        parse=_count,
        help="bytes to leave free on each GPU",
    ),
    Setting(
        name="sched_spread",
        variables=("OLLAMA_SCHED_SPREAD",),
        parse=_bool,
        help="spread each model over all GPUs, even if it fits on one",
    ),
    Setting(
        name="require_gpu",
        variables=("CORECTL_REQUIRE_GPU",),
        parse=_bool,
        help="refuse to load a model that would not lie on GPUs as a whole",
    ),
    Setting(
        name="llm_library",
        variables=("OLLAMA_LLM_LIBRARY",),
        parse=_library,
        help="kind of device to compute on: cpu, cuda, rocm, metal, vulkan or sycl; empty: the best",
    ),
    Setting(
        name="numa",
        variables=("CORECTL_NUMA",),
        parse=_bool,
        help="spread what the CPU computes over the machine's NUMA nodes, where it has several",
    ),
    Setting(
        name="cache_memory",
        variables=("CORECTL_CACHE_MEMORY",),
        parse=_count,
        help="bytes of the machine's memory in which each runner may save prompts, and requests that were put aside",
    ),
    Setting(
        name="remotes",
        variables=("CORECTL_REMOTES",),
        parse=_pairs("name, '=' and address"),
        help="other servers by names, such as `lab=http://10.0.0.2:8000/v1`; their models are here as `lab/MODEL`",
    ),
    Setting(
        name="remote_keys",
        variables=("CORECTL_REMOTE_KEYS",),
        parse=_secrets,
        help="API keys of those servers, such as `lab=KEY`; each goes to its own server only, and is shown nowhere",
        secret=True,
    ),
    Setting(
        name="remote_hosts",
        variables=("OLLAMA_REMOTES",),
        parse=_list,
        help="hosts that models made with `remote_host` may run on, besides the addresses in `remotes`",
    ),
    Setting(
        name="origins",
        variables=("OLLAMA_ORIGINS",),
        parse=_list,
        help="browser origins that may call, besides local ones",
    ),
    Setting(
        name="max_body",
        variables=("CORECTL_MAX_BODY",),
        parse=_count,
        help="largest JSON request in bytes (uploads of model files are not limited by it)",
    ),
    Setting(
        name="prune",
        variables=("OLLAMA_NOPRUNE",),
        parse=_inverted,
        help="remove files that no model uses; the variable turns it off",
    ),
    Setting(
        name="log_level",
        variables=("OLLAMA_DEBUG", "CORECTL_LOG_LEVEL"),
        parse=_log_level,
        help="debug, info, warning or error; OLLAMA_DEBUG=1 means debug",
    ),
    Setting(
        name="log_format",
        variables=("CORECTL_LOG_FORMAT",),
        parse=_one_of("text", "json"),
        help="text or json: how lines of the log are written",
    ),
)


def split_host(text: str) -> tuple[str, int | None]:
    """Host and port of an OLLAMA_HOST value: scheme and path are dropped, a missing port is None.

    A port that is none is warned about and counts as the default one.
    """
    scheme, _, rest = text.rpartition("://")
    rest = rest.partition("/")[0]
    if rest.count(":") > 1 and not rest.startswith("["):
        host, port_text = rest, ""
    else:
        head, separator, tail = rest.rpartition(":")
        inside_brackets = separator and "]" in tail
        host, port_text = (rest, "") if not separator or inside_brackets else (head, tail)
    host = host.strip("[]")
    if not port_text:
        return host, {"http": 80, "https": 443}.get(scheme)
    try:
        return host, _port(port_text)
    except ValueError:
        log.warning("port %r is not valid, using %d", port_text, DEFAULT_PORT)
        return host, DEFAULT_PORT


def config_path() -> Path:
    """Where the configuration file is looked for unless a flag or CORECTL_CONFIG names another."""
    return Path(platformdirs.user_config_dir("corectl")) / "corectl.toml"


def load(flags: Mapping[str, Any] | None = None, environment: Mapping[str, str] | None = None) -> Settings:
    """The effective settings. `flags` holds only what was given on the command line (None counts as not given).

    A bad value in the environment is warned about and left out; one in the file or a flag raises `BadRequest`.
    """
    environment = os.environ if environment is None else environment
    given = {name: value for name, value in (flags or {}).items() if value is not None}
    values: dict[str, Any] = {}
    sources: dict[str, str] = {}

    explicit = given.pop("config", None) or environment.get("CORECTL_CONFIG")
    path = Path(explicit) if explicit else config_path()
    if explicit or path.is_file():
        for name, value in _read_file(path).items():
            values[name], sources[name] = value, str(path)
    for setting in SETTINGS:
        for variable in setting.variables:
            _take_variable(setting, variable, environment.get(variable), values, sources)
    for name, value in given.items():
        values[name], sources[name] = _from_flag(name, value), "command line"
    try:
        return msgspec.convert({**values, "sources": sources}, Settings, strict=False, dec_hook=_from_text)
    except msgspec.ValidationError as exc:
        raise BadRequest(f"setting is not valid: {exc}") from exc


def _from_text(kind: type, value: Any) -> Any:
    """Paths and secrets are the only settings that TOML and msgspec do not know."""
    if kind is Path and isinstance(value, str | Path):
        return Path(value).expanduser()
    return Secret(value) if kind is Secret and isinstance(value, str) else value


def _take_variable(
    setting: Setting, variable: str, text: str | None, values: dict[str, Any], sources: dict[str, str]
) -> None:
    if text is None or not (text := clean(text)):
        return
    try:
        if variable == "OLLAMA_HOST":
            host, port = split_host(text)
            values["host"] = host or "0.0.0.0"
            if port is not None:
                values["port"], sources["port"] = port, variable
        else:
            values[setting.name] = setting.parse(text)
        sources[setting.name] = variable
    except ValueError as exc:
        shown = variable if setting.secret else f"{variable}={text!r}"
        log.warning("%s is left out: %s", shown, exc)


def _from_flag(name: str, value: Any) -> Any:
    parse = {setting.name: setting.parse for setting in SETTINGS}.get(name)
    if parse is None or not isinstance(value, str):
        return value
    try:
        return parse(value)
    except ValueError as exc:
        raise BadRequest(f"--{name.replace('_', '-')}: {exc}") from exc


def _from_toml(setting: Setting, value: Any) -> Any:
    """The value of a setting in the file, where numbers need no quotes."""
    if isinstance(value, str):
        return _bool(value) if setting.parse is _inverted else setting.parse(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if setting.parse in (_keep_alive, _load_timeout):
        return value if value == FOREVER else setting.parse(f"{value:.9f}s")
    return setting.parse(str(value)) if setting.parse in (_count, _port) else value


def _read_file(path: Path) -> dict[str, Any]:
    try:
        content = tomllib.loads(path.read_text("utf-8"))
    except (OSError, tomllib.TOMLDecodeError, UnicodeDecodeError) as exc:
        raise BadRequest(f"cannot read the configuration file {path}: {exc}") from exc
    known = {setting.name: setting for setting in SETTINGS}
    values: dict[str, Any] = {}
    for name, value in content.items():
        if name not in known:
            raise BadRequest(f"{path}: unknown setting {name!r}; known are {', '.join(known)}")
        try:
            values[name] = _from_toml(known[name], value)
        except ValueError as exc:
            raise BadRequest(f"{path}: {name}: {exc}") from exc
    return values

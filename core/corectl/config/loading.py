"""Reads the settings: defaults < corectl.toml < environment < command line. Each value remembers where it came from."""

from __future__ import annotations

import logging
import os
import tomllib
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import msgspec
import platformdirs

from corectl.config import readers
from corectl.config.readers import clean
from corectl.config.settings import DEFAULT_PORT, FOREVER, Settings
from corectl.config.table import SETTINGS, Setting
from corectl.errors import BadRequest
from corectl.secret import Secret

log = logging.getLogger(__name__)


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
        return host, readers.port(port_text)
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
        return readers.boolean(value) if setting.parse is readers.inverted else setting.parse(value)
    if isinstance(value, bool) or not isinstance(value, int | float):
        return value
    if setting.parse in (readers.keep_alive, readers.load_timeout):
        return value if value == FOREVER else setting.parse(f"{value:.9f}s")
    return setting.parse(str(value)) if setting.parse in (readers.count, readers.port) else value


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

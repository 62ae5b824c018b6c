"""How the server writes its log: one line an event, as text or as JSON."""

from __future__ import annotations

import logging
import sys
import threading
from datetime import UTC, datetime
from typing import Any, Final

import msgspec

from corectl import flood
from corectl.flood import Flood
from corectl.plugins.owner import plugin_of

log = logging.getLogger(__name__)

_CORE: Final = "corectl"
_OTHERS: Final = "(others)"
_MOST_SOURCES: Final = 500
"""Packages that are told apart. Names of loggers are the plugins' choice."""

_INDISCREET: Final = ("httpx", "httpcore")
"""They log whole addresses and headers: where a blob lies is often an address that is signed, so that whoever has it
may fetch it."""


def start_log(level: str, form: str) -> None:
    """Sends the log of this process to stderr. `form` is `text` or `json`.

    At the level `debug` nothing is left out but what has secrets in it.
    """
    handler = logging.StreamHandler(sys.stderr)
    handler.setFormatter(JsonFormatter() if form == "json" else TextFormatter())
    if level != "debug":
        handler.addFilter(FloodFilter())
    logging.basicConfig(level=level.upper(), handlers=[handler])
    for name in _INDISCREET:
        logging.getLogger(name).setLevel(logging.WARNING)


class FloodFilter(logging.Filter):
    """Limits the lines of each package that is not the core, plugins and their libraries, and says what it left out."""

    def __init__(self) -> None:
        super().__init__()
        self._sources: dict[str, Flood] = {}
        self._lock = threading.Lock()

    def filter(self, record: logging.LogRecord) -> bool:
        package = record.name.partition(".")[0]
        source, admitted, begins = None, True, False
        with self._lock:
            over = [(each.name, count) for each in self._sources.values() if (count := each.left_out())]
            if package != _CORE:
                source = self._source(package)
                admitted, begins = source.admits(), source.begins
        # What is logged here comes here again, as lines of the core.
        for name, count in over:
            log.warning(flood.ENDS, count, name)
        if source is not None and begins:
            if plugin := plugin_of(record.name):
                source.name = f"plugin {plugin}"
            log.warning(flood.BEGINS, source.name, flood.LINES, flood.SECONDS)
        return admitted

    def _source(self, package: str) -> Flood:
        if package not in self._sources and len(self._sources) >= _MOST_SOURCES:
            package = _OTHERS
        return self._sources.setdefault(package, Flood(f"package {package}"))


class TextFormatter(logging.Formatter):
    """`time=... level=... source=... msg="..."`, then the record's fields as `name=value`.

    What a client or a model file wrote must not look like lines of ours, or move the cursor.
    """

    def __init__(self) -> None:
        super().__init__('time=%(asctime)s level=%(levelname)s source=%(name)s msg="%(message)s"%(tail)s')

    def formatMessage(self, record: logging.LogRecord) -> str:
        record.message = _printable(record.message)
        record.tail = "".join(f" {name}={_word(value)}" for name, value in _fields(record).items())
        return super().formatMessage(record)


class JsonFormatter(logging.Formatter):
    """One JSON object a line: `time` (UTC), `level`, `source`, `msg`, the record's fields, and `error` with a trace."""

    def format(self, record: logging.LogRecord) -> str:
        entry: dict[str, Any] = {
            "time": datetime.fromtimestamp(record.created, UTC).isoformat(timespec="milliseconds"),
            "level": record.levelname,
            "source": record.name,
            "msg": record.getMessage(),
            **_fields(record),
        }
        if record.exc_info:
            entry["error"] = self.formatException(record.exc_info)
        return msgspec.json.encode(_whole(entry)).decode()


def _fields(record: logging.LogRecord) -> dict[str, Any]:
    """What was logged with `extra={"fields": {...}}`."""
    fields: dict[str, Any] = getattr(record, "fields", {})
    return fields


def _printable(text: str) -> str:
    if text.isprintable():
        return text
    return "".join(char if char.isprintable() else char.encode("unicode_escape").decode() for char in text)


def _word(value: Any) -> str:
    """A value without spaces, or in quotes."""
    text = _printable(str(value))
    return f'"{text}"' if not text or " " in text or '"' in text else text


def _whole(entry: dict[str, Any]) -> dict[str, Any]:
    """An entry whose texts can be written: half characters, which a path may hold, become U+FFFD."""
    return {
        name: value.encode("utf-16", "surrogatepass").decode("utf-16", "replace")
        if isinstance(value, str)
        else value
        for name, value in entry.items()
    }

"""How the text of a setting is read: from a variable of the environment, from a flag, or quoted in the file.

Each returns the value, or raises `ValueError` with a text that says what is wrong with it.
"""

from __future__ import annotations

from collections.abc import Callable

from corectl.config.settings import FOREVER
from corectl.duration import parse_duration
from corectl.secret import Secret


def clean(text: str) -> str:
    """An environment value without the spaces and then the quotes around it."""
    return text.strip().strip("\"'")


def boolean(text: str) -> bool:
    return text.lower() not in ("", "0", "f", "false", "no", "off")


def inverted(text: str) -> bool:
    return not boolean(text)


def count(text: str) -> int:
    """A whole number of at least 0."""
    if not text.isascii() or not text.isdigit() or len(text) > 18:
        raise ValueError(f"{text!r} is no whole number of at least 0")
    return int(text)


def port(text: str) -> int:
    if (port := count(text)) > 65535:
        raise ValueError(f"{text} is above 65535")
    return port


def words(text: str) -> tuple[str, ...]:
    return tuple(part.strip() for part in text.split(",") if part.strip())


def _split_pairs(text: str) -> dict[str, str]:
    """Names with a value each. Raises ValueError with the part that is none."""
    found: dict[str, str] = {}
    for part in words(text):
        name, separator, value = part.partition("=")
        if not separator or not name.strip() or not value.strip():
            raise ValueError(part)
        found[name.strip()] = value.strip()
    return found


def pairs(what: str) -> Callable[[str], dict[str, str]]:
    """Reads pairs; `what` says what a pair is made of."""

    def parse(text: str) -> dict[str, str]:
        try:
            return _split_pairs(text)
        except ValueError as exc:
            raise ValueError(f"{exc.args[0]!r} is no {what}") from None

    return parse


def secrets(text: str) -> dict[str, Secret]:
    try:
        return {name: Secret(value) for name, value in _split_pairs(text).items()}
    except ValueError:
        raise ValueError("it must be names and keys, such as lab=KEY,other=KEY") from None


def keep_alive(text: str) -> float:
    seconds = parse_duration(text, bare_seconds=True)
    return FOREVER if seconds < 0 else seconds


def load_timeout(text: str) -> float:
    seconds = parse_duration(text, bare_seconds=True)
    return FOREVER if seconds <= 0 else seconds


def log_level(text: str) -> str:
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


def one_of(*known: str) -> Callable[[str], str]:
    def parse(text: str) -> str:
        if (value := text.lower()) not in known:
            raise ValueError(f"{text!r} is none of {', '.join(known)}")
        return value

    return parse


LIBRARIES = ("cpu", "cuda", "rocm", "metal", "vulkan", "sycl")


def library(text: str) -> str:
    """A kind of device. Old names say more, such as `cuda_v12` or `cpu_avx2`; what follows the kind is not needed."""
    kind = text.lower().replace("-", "_").partition("_")[0]
    if kind not in LIBRARIES:
        raise ValueError(f"{text!r} is none of {', '.join(LIBRARIES)}")
    return kind

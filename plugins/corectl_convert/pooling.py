"""How the vectors of a text's tokens become one, as the library sentence-transformers writes it down."""

from __future__ import annotations

from typing import Any

import msgspec

from corectl.errors import BadModelFile, NotSupported
from corectl.model.files import ModelFiles
from corectl.model.hf import MAX_CONFIG, config_of
from corectl_convert.fields import Fields

MODULES = "modules.json"

MEAN, CLS, LAST = 1, 2, 3
"""llama.cpp's numbers."""

_MODES = {"cls_token": CLS, "mean_tokens": MEAN, "lasttoken": LAST}
_ALIASES = {"cls": CLS, "mean": MEAN, "lasttoken": LAST}
_KNOWN = ("Transformer", "Pooling", "Normalize")


def pooling_of(files: ModelFiles) -> int | None:
    """The kind of pooling, None where nothing is said. Raises `BadModelFile` and `NotSupported`.

    Whether vectors are made to have length 1 is not kept: they are in any case.
    """
    if MODULES not in files.named:
        return None
    found = None
    for module in _modules(files):
        kind = str(module.get("type", "")).rpartition(".")[2]
        if kind not in _KNOWN:
            raise NotSupported(f"{MODULES}: vectors go through a module {kind!r:.40}, which is not supported")
        if kind == "Pooling":
            path = str(module.get("path", "")).strip("/")
            name = f"{path}/config.json" if path else "config.json"
            found = _mode(Fields(name, config_of(files, name, MAX_CONFIG)))
    return found


def _modules(files: ModelFiles) -> list[dict[str, Any]]:
    try:
        return msgspec.json.decode(files.read(MODULES, MAX_CONFIG), type=list[dict[str, Any]])
    except (msgspec.DecodeError, UnicodeDecodeError, RecursionError) as exc:
        raise BadModelFile(f"{MODULES} is damaged: {exc!s:.200}") from exc


def _mode(config: Fields) -> int:
    wanted = [mode for mode in _MODES if config.flag(f"pooling_mode_{mode}", False)]
    if config.has("pooling_mode"):
        mode = config.text("pooling_mode")
        if mode in _ALIASES:
            return _ALIASES[mode]
    others = ("max_tokens", "mean_sqrt_len_tokens", "weightedmean_tokens")
    if len(wanted) != 1 or any(config.flag(f"pooling_mode_{mode}", False) for mode in others):
        raise NotSupported(
            f"{config.file}: only one of the modes mean, cls and lasttoken is supported for pooling"
        )
    return _MODES[wanted[0]]

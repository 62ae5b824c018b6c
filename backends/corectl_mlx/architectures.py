"""Which models the installed mlx-lm knows: it has a module for each architecture. It is not imported for that."""

from __future__ import annotations

import importlib.util
from functools import cache
from pathlib import Path

from corectl.model.files import ModelFiles
from corectl.model.hf import config_of

_OTHER_NAMES = frozenset(
    (
        *(
            "falcon_mamba",
            "gemma4_unified",
            "iquestcoder",
            "joyai_llm_flash",
            "kimi_k2",
            "llava",
            "minimax_m2",
        ),
        *("mistral", "phi-msft", "qwen2_5_vl", "xverse"),
    )
)
"""Architectures that mlx-lm computes with the module of another one."""


def why_not(files: ModelFiles) -> str:
    """Why MLX cannot run a model, by what its config.json calls it; empty if it can. Raises `BadModelFile`."""
    name = config_of(files).get("model_type")
    if isinstance(name, str) and (name in _modules() or name in _OTHER_NAMES):
        return ""
    return f"mlx-lm does not know the architecture {str(name)[:64]!r}"


@cache
def _modules() -> frozenset[str]:
    spec = importlib.util.find_spec("mlx_lm")
    places = spec.submodule_search_locations if spec is not None else None
    return frozenset(path.stem for place in places or () for path in Path(place, "models").glob("[!_]*.py"))

"""MLX, through mlx-lm's models and caches: Apple's GPUs, and on Linux the CPU."""

from __future__ import annotations

from corectl import hookimpl
from corectl.runner.engine import Backend
from corectl_mlx.backend import MlxBackend

corectl_api = 1


@hookimpl
def corectl_backends() -> list[Backend]:
    return [MlxBackend()]

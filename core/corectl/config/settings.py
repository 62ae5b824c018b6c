"""The effective settings, as every other part reads them."""

from __future__ import annotations

from pathlib import Path

import msgspec

from corectl.secret import Secret

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
    import_folders: tuple[str, ...] = ()
    image_urls: bool = False
    prune: bool = True
    log_level: str = "info"
    log_format: str = "text"
    sources: dict[str, str] = {}

    def source(self, name: str) -> str:
        """Where the value of a setting came from: `default`, a file, a variable or `command line`."""
        return self.sources.get(name, "default")

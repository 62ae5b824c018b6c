"""The table of all settings: the only list of them there is; `docs/configuration.md` is made from it."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import msgspec

from corectl.config import readers


class Setting(msgspec.Struct, frozen=True, kw_only=True):
    """One row of the table: how a setting is written in the environment, and how its text is read.

    The value of a `secret` one is shown nowhere; its `parse` does not quote it either.
    """

    name: str
    variables: tuple[str, ...]
    parse: Callable[[str], Any]
    help: str
    secret: bool = False


SETTINGS = (
    Setting(
        name="host",
        variables=("OLLAMA_HOST",),
        parse=str,
        help="address to listen on; the variable takes a port too",
    ),
    Setting(name="port", variables=(), parse=readers.port, help="port to listen on (0: a free one)"),
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
        parse=readers.pairs("pattern, '=' and name"),
        help="backends by patterns of model names, before `backend`, such as `qwen*=mlx,*-onnx=onnx`; the first fits",
    ),
    Setting(
        name="disabled_plugins",
        variables=("CORECTL_DISABLED_PLUGINS",),
        parse=readers.words,
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
        parse=readers.keep_alive,
        help="how long an idle model stays loaded (below 0: for ever)",
    ),
    Setting(
        name="load_timeout",
        variables=("OLLAMA_LOAD_TIMEOUT",),
        parse=readers.load_timeout,
        help="how long a load may make no progress (0: for ever)",
    ),
    Setting(
        name="context_length",
        variables=("OLLAMA_CONTEXT_LENGTH",),
        parse=readers.count,
        help="context in tokens where neither request nor model says (0: by the memory of the GPUs)",
    ),
    Setting(
        name="strict_context",
        variables=("CORECTL_STRICT_CONTEXT",),
        parse=readers.boolean,
        help="refuse requests that do not fit their context, instead of dropping what is oldest",
    ),
    Setting(
        name="go_template",
        variables=("OLLAMA_GO_TEMPLATE",),
        parse=readers.boolean,
        help="render chats with a model's TEMPLATE; off: with its weights' own; empty: with the one that can do more",
    ),
    Setting(
        name="num_parallel",
        variables=("OLLAMA_NUM_PARALLEL",),
        parse=readers.count,
        help="requests that one model answers at once (0: 16 that share memory for two full contexts)",
    ),
    Setting(
        name="max_loaded_models",
        variables=("OLLAMA_MAX_LOADED_MODELS",),
        parse=readers.count,
        help="models in memory at once (0: 3 for each GPU, or 3 without one)",
    ),
    Setting(
        name="max_queue",
        variables=("OLLAMA_MAX_QUEUE",),
        parse=readers.count,
        help="requests that may wait for a model to load, besides the one whose turn it is; more get a 503",
    ),
    Setting(
        name="max_context",
        variables=("CORECTL_MAX_CONTEXT",),
        parse=readers.count,
        help="largest context in tokens that a request may ask for (0: what the model was trained for)",
    ),
    Setting(
        name="flash_attention",
        variables=("OLLAMA_FLASH_ATTENTION",),
        parse=readers.boolean,
        help="compute attention without storing it; empty: where the engine finds it useful",
    ),
    Setting(
        name="kv_cache_type",
        variables=("OLLAMA_KV_CACHE_TYPE",),
        parse=readers.one_of("f16", "q8_0", "q4_0"),
        help="type of values in the key-value memory: f16, q8_0 or q4_0",
    ),
    Setting(
        name="gpu_overhead",
        variables=("OLLAMA_GPU_OVERHEAD",),
        parse=readers.count,
        help="bytes to leave free on each GPU",
    ),
    Setting(
        name="sched_spread",
        variables=("OLLAMA_SCHED_SPREAD",),
        parse=readers.boolean,
        help="spread each model over all GPUs, even if it fits on one",
    ),
    Setting(
        name="require_gpu",
        variables=("CORECTL_REQUIRE_GPU",),
        parse=readers.boolean,
        help="refuse to load a model that would not lie on GPUs as a whole",
    ),
    Setting(
        name="llm_library",
        variables=("OLLAMA_LLM_LIBRARY",),
        parse=readers.library,
        help="kind of device to compute on: cpu, cuda, rocm, metal, vulkan or sycl; empty: the best",
    ),
    Setting(
        name="numa",
        variables=("CORECTL_NUMA",),
        parse=readers.boolean,
        help="spread what the CPU computes over the machine's NUMA nodes, where it has several",
    ),
    Setting(
        name="cache_memory",
        variables=("CORECTL_CACHE_MEMORY",),
        parse=readers.count,
        help="bytes of the machine's memory in which each runner may save prompts, and requests that were put aside",
    ),
    Setting(
        name="remotes",
        variables=("CORECTL_REMOTES",),
        parse=readers.pairs("name, '=' and address"),
        help="other servers by names, such as `lab=http://10.0.0.2:8000/v1`; their models are here as `lab/MODEL`",
    ),
    Setting(
        name="remote_keys",
        variables=("CORECTL_REMOTE_KEYS",),
        parse=readers.secrets,
        help="API keys of those servers, such as `lab=KEY`; each goes to its own server only, and is shown nowhere",
        secret=True,
    ),
    Setting(
        name="remote_hosts",
        variables=("OLLAMA_REMOTES",),
        parse=readers.words,
        help="hosts that models made with `remote_host` may run on, besides the addresses in `remotes`",
    ),
    Setting(
        name="origins",
        variables=("OLLAMA_ORIGINS",),
        parse=readers.words,
        help="browser origins that may call, besides local ones",
    ),
    Setting(
        name="max_body",
        variables=("CORECTL_MAX_BODY",),
        parse=readers.count,
        help="largest JSON request in bytes (uploads of model files are not limited by it)",
    ),
    Setting(
        name="import_folders",
        variables=("CORECTL_IMPORT_FOLDERS",),
        parse=readers.words,
        help="folders of this machine whose files create requests may name by their paths; empty: none",
    ),
    Setting(
        name="image_urls",
        variables=("CORECTL_IMAGE_URLS",),
        parse=readers.boolean,
        help="fetch images that requests name by a web address, from the internet only; off: such requests are refused",
    ),
    Setting(
        name="prune",
        variables=("OLLAMA_NOPRUNE",),
        parse=readers.inverted,
        help="remove files that no model uses; the variable turns it off",
    ),
    Setting(
        name="log_level",
        variables=("OLLAMA_DEBUG", "CORECTL_LOG_LEVEL"),
        parse=readers.log_level,
        help="debug, info, warning or error; OLLAMA_DEBUG=1 means debug",
    ),
    Setting(
        name="log_format",
        variables=("CORECTL_LOG_FORMAT",),
        parse=readers.one_of("text", "json"),
        help="text or json: how lines of the log are written",
    ),
)

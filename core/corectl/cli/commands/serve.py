"""`corectl serve`: the server in the foreground."""

from __future__ import annotations

from typing import Any, Final

import click

from corectl.cli.cobra import Command

_VARIABLES: Final = (
    ("OLLAMA_DEBUG", "Show additional debug information (e.g. OLLAMA_DEBUG=1)"),
    ("OLLAMA_HOST", "Address to listen on (default 127.0.0.1:11434)"),
    ("OLLAMA_CONTEXT_LENGTH", "Context length to use unless otherwise specified"),
    ("OLLAMA_FLASH_ATTENTION", "Use flash attention (1), or never (0)"),
    ("OLLAMA_GPU_OVERHEAD", "Bytes to leave free on each GPU"),
    ("OLLAMA_GO_TEMPLATE", "Render chats with a model's TEMPLATE (1), or never (0)"),
    ("OLLAMA_KEEP_ALIVE", 'The duration that models stay loaded in memory (default "5m")'),
    ("OLLAMA_KV_CACHE_TYPE", "Type of values in the key-value memory (default f16)"),
    ("OLLAMA_LLM_LIBRARY", "Kind of device to compute on, instead of the best"),
    ("OLLAMA_MAX_LOADED_MODELS", "Maximum number of loaded models"),
    ("OLLAMA_MAX_QUEUE", "Maximum number of queued requests"),
    ("OLLAMA_MODELS", "The path to the models directory"),
    ("OLLAMA_NUM_PARALLEL", "Maximum number of parallel requests"),
    ("OLLAMA_NOPRUNE", "Do not prune model blobs on startup"),
    ("OLLAMA_ORIGINS", "A comma separated list of allowed origins"),
    ("OLLAMA_SCHED_SPREAD", "Spread each model over all GPUs"),
    ("OLLAMA_LOAD_TIMEOUT", 'How long model loads may stall before giving up (default "5m")'),
    ("CORECTL_BACKEND", "Backend to run models with"),
    ("CORECTL_CONFIG", "The path to the configuration file"),
    ("CORECTL_DISABLED_PLUGINS", "A comma separated list of plugins to leave out"),
    ("CORECTL_MAX_CONTEXT", "Largest context length that a request may ask for"),
    ("CORECTL_REQUIRE_GPU", "Refuse models that would not lie on GPUs as a whole"),
    ("CORECTL_IMPORT_FOLDERS", "Folders whose files create requests may name by their paths"),
    ("CORECTL_STRICT_CONTEXT", "Refuse requests that do not fit their context"),
)


@click.command("serve", cls=Command, aliases=("start",), variables=_VARIABLES, help="Start corectl")
@click.option("--backend", metavar="name", help="Backend to run models with")
@click.option("--host", metavar="address", help="Address to listen on")
@click.option(
    "--port", type=click.IntRange(0, 65535), metavar="int", help="Port to listen on (0: a free one)"
)
@click.option("--models", metavar="dir", help="Folder of the model store")
@click.option(
    "--no-plugin", "disabled_plugins", multiple=True, metavar="name", help="Leave out a plugin (repeatable)"
)
@click.option(
    "--strict-context", is_flag=True, default=None, help="Refuse requests that do not fit their context"
)
@click.option(
    "--require-gpu", is_flag=True, default=None, help="Refuse models that would not lie on GPUs as a whole"
)
@click.option("--config", metavar="file", help="Configuration file to use")
@click.option("--log-level", metavar="level", help="debug, info, warning or error")
@click.argument("args", nargs=-1)
def serve(args: tuple[str, ...], **flags: Any) -> int:
    """Runs the server until it is stopped; its result is the exit code."""
    from corectl.server.serve import serve as run_server

    return run_server({name: value for name, value in flags.items() if value not in (None, ())})

"""corectl: runs language models on your own machines behind the API that clients already use.

Plugin authors need `hookimpl` and `API_VERSION` from here, and `corectl.hookspecs` to read.
"""

import pluggy

__version__ = "0.1.0"

OLLAMA_LEVEL = "0.33.0"
"""The version of Ollama whose API this is. Clients and registries decide by it what they may offer."""

API_VERSION = 1
"""The plugin contract's version. A plugin module says `corectl_api = 1`; a higher number keeps it out."""
OLDEST_API_VERSION = 1
"""The oldest contract that is still accepted. A plugin between the two works, with a warning."""

hookspec = pluggy.HookspecMarker("corectl")
hookimpl = pluggy.HookimplMarker("corectl")

__all__ = ["API_VERSION", "OLDEST_API_VERSION", "OLLAMA_LEVEL", "__version__", "hookimpl", "hookspec"]

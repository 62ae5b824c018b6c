"""Which installed plugin offers what is tested."""

from __future__ import annotations

import functools

from corectl.config import Settings
from corectl.plugins import PluginHost


@functools.cache
def installed() -> PluginHost:
    """All plugins that are installed here."""
    return PluginHost.load(Settings())


def plugin_of(backend: str) -> str:
    """The plugin that offers a backend. Fails if there is none: a runner would not find it either."""
    host = installed()
    broken = [f"{info.name}: {info.reason}" for info in host.plugins if info.state == "broken"]
    assert backend in host.backends, (
        f"no installed plugin offers the backend {backend!r}; install the project with its entry point first, "
        f"for example with: pip install -e . (broken plugins: {'; '.join(broken) or 'none'})"
    )
    return host.plugin_of("corectl_backends", backend)

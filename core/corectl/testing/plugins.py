"""Which installed plugin offers what is tested."""

from __future__ import annotations

import functools
import sys

from corectl.config import Settings
from corectl.plugins import PluginHost


@functools.cache
def installed() -> PluginHost:
    """All plugins that are installed here."""
    return PluginHost.load(Settings())


def plugin_of(hook: str, name: str) -> str:
    """The plugin that offers something through a provider hook. Fails if there is none: the server has none either."""
    host = installed()
    broken = [f"{info.name}: {info.reason}" for info in host.plugins if info.state == "broken"]
    try:
        return host.plugin_of(hook, name)
    except KeyError:
        raise AssertionError(
            f"no installed plugin offers {name!r} through {hook}; install the project with its entry point first, "
            f"for example with: pip install -e . (broken plugins: {'; '.join(broken) or 'none'})"
        ) from None


def modules_of(plugin: str, names: list[str]) -> list[str]:
    """In a child: loads one plugin, as each process of corectl does. Returns which of the modules that has imported."""
    before = set(sys.modules)
    host = PluginHost.load(Settings(), only=[plugin])
    assert [info.state for info in host.plugins] == ["active"], [info.reason for info in host.plugins]
    return sorted(set(names) & (set(sys.modules) - before))

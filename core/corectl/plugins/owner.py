"""Whose code it is: from a module to the installed plugin that it belongs to."""

from __future__ import annotations

from importlib.metadata import entry_points

from corectl.plugins.entry import GROUP


def plugin_of(module: str) -> str:
    """The plugin whose entry point names this module or a package around it, or an empty text.

    It reads the metadata of everything installed, so it is for the rare case that something has gone wrong.
    """
    names = {entry.module: entry.name for entry in entry_points(group=GROUP)}
    while module and module not in names:
        module = module.rpartition(".")[0]
    return names.get(module, "")

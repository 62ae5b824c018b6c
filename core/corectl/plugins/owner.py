"""Whose code it is: from a module, or from what a thread is doing, to the plugin. For when something has gone wrong.

It reads the metadata of everything installed, which takes milliseconds.
"""

from __future__ import annotations

from importlib.metadata import entry_points
from types import FrameType

from corectl.plugins.entry import GROUP


def plugin_of(module: str) -> str:
    """The plugin whose entry point names this module or a package around it, or an empty text."""
    return _owner(module, {entry.module: entry.name for entry in entry_points(group=GROUP)})


def culprit(frame: FrameType | None) -> str:
    """What is being done, by whom: the innermost code of a plugin on a stack, or else its innermost code."""
    owners = {entry.module: entry.name for entry in entry_points(group=GROUP)}
    innermost = frame
    while frame is not None:
        if plugin := _owner(str(frame.f_globals.get("__name__", "")), owners):
            return f"plugin {plugin} ({_place(frame)})"
        frame = frame.f_back
    return f"no plugin that is known ({_place(innermost)})" if innermost is not None else "nobody"


def _owner(module: str, owners: dict[str, str]) -> str:
    while module and module not in owners:
        module = module.rpartition(".")[0]
    return owners.get(module, "")


def _place(frame: FrameType) -> str:
    return f"{frame.f_globals.get('__name__')}, line {frame.f_lineno}"

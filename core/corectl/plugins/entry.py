"""From an entry point to a module that speaks a contract which this corectl knows."""

from __future__ import annotations

from collections.abc import Iterable
from importlib.metadata import Distribution, EntryPoint
from typing import Any, Final

from corectl import API_VERSION, OLDEST_API_VERSION, deadline
from corectl.deadline import Deadline, Overdue
from corectl.plugins.info import PluginInfo, Unfit

GROUP: Final = "corectl"
BUILT_IN: Final = "corectl"
"""The distribution of the core itself."""


def in_order(entries: Iterable[EntryPoint]) -> list[tuple[EntryPoint, PluginInfo]]:
    """Entry points with what is known before anything is imported.

    Built-in plugins come first, so that no other one can take a name away from them; then the order is that of names.
    """
    origins: dict[Distribution | None, tuple[str, str]] = {}
    found = []
    for entry in entries:
        if entry.dist not in origins:
            origins[entry.dist] = _origin(entry.dist)
        distribution, version = origins[entry.dist]
        found.append((entry, PluginInfo(name=entry.name, distribution=distribution, version=version)))
    return sorted(found, key=lambda item: (item[1].distribution != BUILT_IN, item[0].name, item[0].value))


def import_plugin(entry: EntryPoint, info: PluginInfo) -> object:
    """The plugin's module. Raises whatever it raises, and `Unfit`; bounded in time."""
    try:
        module: Any = Deadline(f"plugin {entry.name}").call(entry.load)
    except Overdue:
        raise Unfit(f"did not finish importing within {deadline.SECONDS:g} seconds") from None
    wants = getattr(module, "corectl_api", None)
    if type(wants) is not int:
        raise Unfit(
            "does not say which plugin contract it is written for; "
            f"its author has to write 'corectl_api = {API_VERSION}' into the module"
        )
    if not OLDEST_API_VERSION <= wants <= API_VERSION:
        raise Unfit(_refusal(wants, info.distribution))
    if wants < API_VERSION:
        info.warnings = (
            f"is written for plugin contract {wants}; a later corectl will refuse it, so look for a newer "
            f"{info.distribution} (the newest contract is {API_VERSION})",
        )
    return module


def _refusal(wants: int, distribution: str) -> str:
    """Why a contract is refused, and what to do about it."""
    known = f"contract {API_VERSION}"
    if OLDEST_API_VERSION < API_VERSION:
        known = f"contracts {OLDEST_API_VERSION} to {API_VERSION}"
    newer = "corectl" if wants > API_VERSION else distribution
    return f"is written for plugin contract {wants}, and this corectl knows {known}; install a newer {newer}"


def _origin(distribution: Distribution | None) -> tuple[str, str]:
    """Name and version of a distribution, which a damaged installation may lack."""
    if distribution is None:
        return "?", "?"
    try:
        metadata = distribution.metadata
        return metadata["Name"] or "?", metadata["Version"] or "?"
    except Exception:
        return "?", "?"

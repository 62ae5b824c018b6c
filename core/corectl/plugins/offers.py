"""What a plugin provides, as its provider hooks say."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, Final

import msgspec

from corectl import deadline
from corectl.deadline import Deadline, Overdue
from corectl.model.bounded import BoundedFormat
from corectl.output.bounded import BoundedDialect
from corectl.plugins.info import Unfit
from corectl.registry.bounded import BoundedRegistry
from corectl.remote.bounded import BoundedRemoteBackend

INDEXES: Final = {
    "corectl_model_formats": "formats",
    "corectl_converters": "converters",
    "corectl_registries": "registries",
    "corectl_remote_registries": "remote_registries",
    "corectl_hardware_probes": "probes",
    "corectl_backends": "backends",
    "corectl_remote_backends": "remote_backends",
    "corectl_dialects": "dialects",
    "corectl_frontends": "frontends",
    "corectl_scheduler_policies": "policies",
    "corectl_search_providers": "search_providers",
    "corectl_cli_commands": "cli_commands",
}
"""For each provider hook the attribute of `PluginHost` that keeps what it returns, by name."""

BOUNDED: Final[dict[str, Callable[[Any], Any]]] = {
    "corectl_model_formats": BoundedFormat,
    "corectl_registries": BoundedRegistry,
    "corectl_remote_backends": BoundedRemoteBackend,
    "corectl_dialects": BoundedDialect,
}
"""What the core asks of each of a kind, whatever the model. One that fails must not stop the others."""

MOST: Final = 1000
"""Things that one plugin may offer. A generator that does not end is not asked for ever."""

Hooks = list[tuple[str, Callable[[], list[Any]]]]


class Offer(msgspec.Struct, frozen=True):
    """One thing that a plugin provides through a hook."""

    hook: str
    name: str
    item: Any


def collect(plugin: str, hooks: Hooks) -> list[Offer]:
    """Asks the provider hooks of one plugin. Raises whatever they raise, and `Unfit`; bounded in time."""
    asked = ""

    def ask() -> list[Offer]:
        nonlocal asked
        offers = []
        for asked, call in hooks:
            for item in call():
                # A name may be a property, so reading it is the plugin's code too.
                offers.append(Offer(asked, _name(item, asked), BOUNDED.get(asked, _itself)(item)))
                if len(offers) > MOST:
                    raise Unfit(f"offers more than {MOST} things")
        return offers

    try:
        offers = Deadline(f"plugin {plugin}").call(ask)
    except Overdue:
        raise Unfit(f"{asked} did not return within {deadline.SECONDS:g} seconds") from None
    names = [(offer.hook, offer.name) for offer in offers]
    if len(set(names)) < len(names):
        raise Unfit(f"offers one name twice: {max(names, key=names.count)[1]!r}")
    return offers


def _itself(item: Any) -> Any:
    return item


def _name(item: Any, hook: str) -> str:
    name = item.name
    if not isinstance(name, str) or not name:
        raise Unfit(f"{hook} returned something without a name: {name!r:.80}")
    return name

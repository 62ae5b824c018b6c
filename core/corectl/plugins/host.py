"""The plugins and what they provide. One `PluginHost` per server object (and one in each runner); never global."""

from __future__ import annotations

import logging
import sys
import time
import warnings
from collections.abc import Callable, Collection, Iterable
from functools import partial
from importlib.metadata import EntryPoint
from importlib.metadata import entry_points as installed
from typing import Any, Final

import pluggy

from corectl import hookspecs
from corectl.cli.offered import CliCommand, reserved
from corectl.config import Settings
from corectl.deadline import Deadline, Overdue, described
from corectl.hardware.device import HardwareProbe
from corectl.model.conversion import Converter
from corectl.model.formats import ModelFormat
from corectl.output.dialect import Dialect
from corectl.plugins.entry import GROUP, import_plugin, in_order
from corectl.plugins.info import PluginInfo, Unfit
from corectl.plugins.mailbox import Mailbox
from corectl.plugins.offers import INDEXES, Offer, collect
from corectl.registry.base import LocalRegistry
from corectl.registry.remote import RemoteRegistry
from corectl.remote.backend import RemoteBackend
from corectl.runner.engine import Backend
from corectl.scheduler.policy import SchedulerPolicy
from corectl.search.provider import SearchProvider
from corectl.server.frontend import Frontend

log = logging.getLogger(__name__)

CLOSE_SECONDS: Final = 5.0
"""How long all plugins together may take over their last events."""

SWITCH_INTERVAL: Final = 0.0005
"""Seconds for which a thread that computes may keep the interpreter from the others of its process.

With Python's own 5 ms, one plugin that computes makes the import of another, which lets go of the interpreter for each
file, 16 times as long: enough for it to be overdue. And for an engine's thread, which needs the interpreter right after
each step, 5 ms are a step.
"""


class PluginHost:
    """The loaded plugins and what they provide, by kind and name."""

    def __init__(self) -> None:
        self.plugins: list[PluginInfo] = []
        self.formats: dict[str, ModelFormat] = {}
        self.converters: dict[str, Converter] = {}
        self.registries: dict[str, LocalRegistry] = {}
        self.remote_registries: dict[str, RemoteRegistry] = {}
        self.probes: dict[str, HardwareProbe] = {}
        self.backends: dict[str, Backend] = {}
        self.remote_backends: dict[str, RemoteBackend] = {}
        self.dialects: dict[str, Dialect] = {}
        self.frontends: dict[str, Frontend] = {}
        self.policies: dict[str, SchedulerPolicy] = {}
        self.search_providers: dict[str, SearchProvider] = {}
        self.cli_commands: dict[str, CliCommand] = {}
        self._manager = pluggy.PluginManager("corectl")
        self._manager.add_hookspecs(hookspecs)
        self._owners: dict[tuple[str, str], PluginInfo] = {}
        self._mailboxes: dict[str, Mailbox] = {}

    @classmethod
    def load(
        cls,
        settings: Settings,
        *,
        only: Collection[str] | None = None,
        entry_points: Iterable[EntryPoint] | None = None,
    ) -> PluginHost:
        """Loads every entry point of the group that `settings` does not disable, or those named in `only`.

        Never raises because of a plugin, nor waits for ever: what fails is in `plugins`, with the reason. From now on
        the threads of the process take turns every `SWITCH_INTERVAL`.
        """
        sys.setswitchinterval(SWITCH_INTERVAL)
        host = cls()
        found = installed(group=GROUP) if entry_points is None else entry_points
        for entry, info in in_order(entry for entry in found if only is None or entry.name in only):
            host.plugins.append(info)
            if entry.name in settings.disabled_plugins:
                info.state, info.reason = "blocked", "disabled by the user"
            else:
                host._load(entry, info)
        host._reject_misspelt_hooks()
        for plugin in host.plugins:
            if plugin.state == "active":
                host._take_offers(plugin)
            if plugin.state == "broken":
                log.warning("plugin %s (%s) is left out: %s", plugin.name, plugin.distribution, plugin.reason)
            for warning in plugin.warnings:
                log.warning("plugin %s (%s): %s", plugin.name, plugin.distribution, warning)
        return host

    def availability(self) -> dict[str, str]:
        """For each backend and probe by name: why it cannot be used here, or an empty string."""
        reasons: dict[str, str] = {}
        for name, backend in self.backends.items():
            reasons[name] = _answer("availability()", partial(_why_not, backend))
        for name, probe in self.probes.items():
            reasons[name] = _answer("devices()", partial(_unusable, probe))
        return reasons

    def owner(self, provider: str, name: str) -> PluginInfo:
        """The plugin that provides `name` through the hook `provider`."""
        return self._owners[provider, name]

    def plugin_of(self, provider: str, name: str) -> str:
        """The name of the plugin that provides `name` through the hook `provider`."""
        return self._owners[provider, name].name

    def owners(self, name: str) -> dict[str, PluginInfo]:
        """The plugins that provide something of this name, by the hook that they do it through."""
        return {hook: info for (hook, offered), info in self._owners.items() if offered == name}

    def plugins_with(self, provider: str) -> set[str]:
        """The names of all plugins that provide something through the hook `provider`."""
        return {info.name for (hook, _), info in self._owners.items() if hook == provider}

    def listen(self, listener: object) -> None:
        """From now on, tells an object of events: its methods are event hooks, marked with `hookimpl`.

        For what belongs to one server, such as a frontend that counts; a plugin's module is there once for all. They
        are called where the event happens, in the server's event loop, and must return at once.
        """
        self._manager.register(listener)

    def emit(self, event: str, **arguments: Any) -> None:
        """Tells all plugins of an event, and waits for none of them. What raises or hangs is logged."""
        for implementation in getattr(self._manager.hook, event).get_hookimpls():
            given = {name: arguments[name] for name in implementation.argnames}
            call = partial(implementation.function, **given)
            mailbox = self._mailboxes.get(implementation.plugin_name)
            if mailbox is not None:
                mailbox.put(event, call)
                continue
            try:
                call()
            except (Exception, SystemExit):
                log.exception("a listener (%s) failed in %s", implementation.plugin, event)

    def close(self) -> None:
        """Waits, up to a limit, until the plugins have heard of all events. It blocks; call it once, at the end."""
        until = time.monotonic() + CLOSE_SECONDS
        for mailbox in self._mailboxes.values():
            mailbox.close(until)

    def _load(self, entry: EntryPoint, info: PluginInfo) -> None:
        try:
            self._register(import_plugin(entry, info), info)
        except Exception as exc:
            info.state, info.reason = "broken", _reason(exc)

    def _register(self, module: object, info: PluginInfo) -> None:
        """Adds a plugin and notes the hooks that it implements, or raises and leaves nothing of it behind."""
        if self._manager.has_plugin(info.name):
            raise Unfit("another plugin has this name")
        try:
            with warnings.catch_warnings(record=True) as heard:
                warnings.simplefilter("always")
                self._manager.register(module, name=info.name)
            callers = self._manager.get_hookcallers(module) or []
            if not callers:
                raise Unfit("implements none of corectl's hooks")
        except Exception:
            # pluggy keeps the hooks that it has seen before the one that it refuses.
            if self._manager.has_plugin(info.name):
                self._manager.unregister(name=info.name)
            raise
        info.hooks = tuple(sorted(caller.name for caller in callers))
        info.warnings += tuple(str(warning.message) for warning in heard)
        self._mailboxes[info.name] = Mailbox(info.name)

    def _reject_misspelt_hooks(self) -> None:
        """Leaves out plugins with a hook that does not exist; pluggy names one at a time."""
        while True:
            try:
                self._manager.check_pending()
            except pluggy.PluginValidationError as exc:
                name = self._manager.get_name(exc.plugin) or "?"
                info = next(info for info in self.plugins if info.name == name and info.state == "active")
                self._break(info, str(exc).splitlines()[0])
            else:
                return

    def _break(self, info: PluginInfo, reason: str) -> None:
        self._manager.unregister(name=info.name)
        info.state, info.reason = "broken", reason

    def _take_offers(self, info: PluginInfo) -> None:
        """Everything that a plugin provides, or nothing."""
        hooks = [
            (hook, implementation.function)
            for hook in INDEXES
            for implementation in getattr(self._manager.hook, hook).get_hookimpls()
            if implementation.plugin_name == info.name
        ]
        try:
            offers = collect(info.name, hooks)
            for offer in offers:
                self._reject_clash(offer)
        except Exception as exc:
            self._break(info, _reason(exc))
            return
        for offer in offers:
            getattr(self, INDEXES[offer.hook])[offer.name] = offer.item
            self._owners[offer.hook, offer.name] = info

    def _reject_clash(self, offer: Offer) -> None:
        owner = self._owners.get((offer.hook, offer.name))
        if owner is not None:
            raise Unfit(
                f"{offer.hook} {offer.name!r} is already offered by plugin {owner.name!r} ({owner.distribution})"
            )
        if offer.hook == "corectl_cli_commands" and offer.name in reserved():
            raise Unfit(f"{offer.hook} {offer.name!r} is a command of corectl itself")


def _reason(exc: Exception) -> str:
    return str(exc) if isinstance(exc, Unfit) else described(exc)


def _answer(what: str, ask: Callable[[], str]) -> str:
    """What a backend or probe says, or that it does not."""
    try:
        return Deadline(what).call(ask)
    except Overdue as exc:
        return str(exc)
    except Exception as exc:
        return f"{what} raised {described(exc)}"


def _why_not(backend: Backend) -> str:
    return backend.availability().reason


def _unusable(probe: HardwareProbe) -> str:
    return "; ".join(f"{device.name}: {device.unusable}" for device in probe.devices() if device.unusable)

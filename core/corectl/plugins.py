"""Finds, checks and keeps the plugins. One `PluginHost` per server object (and one in each runner); never global."""

from __future__ import annotations

import importlib.metadata
import logging
from collections.abc import Collection, Iterable
from typing import Any, Literal, Protocol, TypeVar

import msgspec
import pluggy

from corectl import API_VERSION, hookspecs
from corectl.config import Settings
from corectl.hardware.device import HardwareProbe
from corectl.model.formats import ModelFormat
from corectl.output.dialect import Dialect
from corectl.registry.base import LocalRegistry
from corectl.runner.engine import Backend
from corectl.scheduler.policy import SchedulerPolicy
from corectl.server.frontend import Frontend

log = logging.getLogger(__name__)

GROUP = "corectl"
PROVIDERS = (
    "corectl_model_formats",
    "corectl_registries",
    "corectl_hardware_probes",
    "corectl_backends",
    "corectl_dialects",
    "corectl_frontends",
    "corectl_scheduler_policies",
)

State = Literal["active", "blocked", "broken"]


class PluginInfo(msgspec.Struct, kw_only=True):
    """What became of one entry point. `reason` says why it is blocked or broken; `hooks` are those it implements."""

    name: str
    distribution: str
    version: str
    state: State = "active"
    hooks: tuple[str, ...] = ()
    reason: str = ""


class _Named(Protocol):
    @property
    def name(self) -> str: ...


T = TypeVar("T", bound=_Named)


class PluginHost:
    """The loaded plugins and what they provide, by kind and name."""

    def __init__(self) -> None:
        self.plugins: list[PluginInfo] = []
        self.formats: dict[str, ModelFormat] = {}
        self.registries: dict[str, LocalRegistry] = {}
        self.probes: dict[str, HardwareProbe] = {}
        self.backends: dict[str, Backend] = {}
        self.dialects: dict[str, Dialect] = {}
        self.frontends: dict[str, Frontend] = {}
        self.policies: dict[str, SchedulerPolicy] = {}
        self._manager = pluggy.PluginManager("corectl")
        self._manager.add_hookspecs(hookspecs)
        self._owners: dict[tuple[str, str], PluginInfo] = {}

    @classmethod
    def load(
        cls,
        settings: Settings,
        *,
        only: Collection[str] | None = None,
        entry_points: Iterable[importlib.metadata.EntryPoint] | None = None,
    ) -> PluginHost:
        """Loads every entry point of the group that `settings` does not disable, or those named in `only`.

        Never raises because of a plugin: what fails is in `plugins`, with the reason.
        """
        host = cls()
        found = importlib.metadata.entry_points(group=GROUP) if entry_points is None else entry_points
        for entry in sorted(found, key=lambda entry: (entry.name, entry.value)):
            if only is None or entry.name in only:
                host._load(entry, blocked=entry.name in settings.disabled_plugins)
        host._reject_misspelt_hooks()
        host._collect()
        for plugin in host.plugins:
            if plugin.state == "broken":
                log.warning("plugin %s (%s) is left out: %s", plugin.name, plugin.distribution, plugin.reason)
        return host

    def availability(self) -> dict[str, str]:
        """For each backend and probe by name: why it cannot be used here, or an empty string."""
        reasons: dict[str, str] = {}
        for name, backend in self.backends.items():
            try:
                reasons[name] = backend.availability().reason
            except Exception as exc:
                reasons[name] = f"availability() raised {_describe(exc)}"
        for name, probe in self.probes.items():
            try:
                devices = probe.devices()
                reasons[name] = "; ".join(f"{d.name}: {d.unusable}" for d in devices if d.unusable)
            except Exception as exc:
                reasons[name] = f"devices() raised {_describe(exc)}"
        return reasons

    def plugin_of(self, provider: str, name: str) -> str:
        """The name of the plugin that provides `name` through the hook `provider`."""
        return self._owners[provider, name].name

    def plugins_with(self, provider: str) -> set[str]:
        """The names of all plugins that provide something through the hook `provider`."""
        return {info.name for (hook, _), info in self._owners.items() if hook == provider}

    def listen(self, listener: object) -> None:
        """From now on, tells an object of events: its methods are event hooks, marked with `hookimpl`.

        For what belongs to one server, such as a frontend that counts; a plugin's module is there once for all.
        """
        self._manager.register(listener)

    def emit(self, event: str, **arguments: Any) -> None:
        """Calls one event hook of every plugin. A plugin that raises is logged; the others are still called."""
        for implementation in getattr(self._manager.hook, event).get_hookimpls():
            try:
                implementation.function(**{name: arguments[name] for name in implementation.argnames})
            except (Exception, SystemExit):
                log.exception("plugin %s failed in %s", implementation.plugin_name, event)

    def _load(self, entry: importlib.metadata.EntryPoint, *, blocked: bool) -> None:
        distribution, version = _origin(entry)
        info = PluginInfo(name=entry.name, distribution=distribution, version=version)
        self.plugins.append(info)
        if blocked:
            info.state, info.reason = "blocked", "disabled by the user"
            return
        try:
            module = entry.load()
            wants = getattr(module, "corectl_api", None)
            if wants != API_VERSION:
                raise RuntimeError(f"was built for plugin contract {wants}, this corectl has {API_VERSION}")
            info.hooks = self._register(module, entry.name)
        # BaseException, because a plugin that calls sys.exit() at import must not take the server along.
        except (Exception, SystemExit) as exc:
            info.state, info.reason = "broken", _describe(exc)

    def _register(self, module: object, name: str) -> tuple[str, ...]:
        """Adds a plugin, or raises and leaves nothing of it behind; returns the hooks that it implements."""
        if self._manager.has_plugin(name):
            raise RuntimeError("another plugin has this name")
        try:
            self._manager.register(module, name=name)
            callers = self._manager.get_hookcallers(module) or []
            if not callers:
                raise RuntimeError("implements none of corectl's hooks")
        except Exception:
            # pluggy keeps the hooks that it has seen before the one that it refuses.
            if self._manager.has_plugin(name):
                self._manager.unregister(name=name)
            raise
        return tuple(sorted(caller.name for caller in callers))

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

    def _collect(self) -> None:
        indexes: tuple[dict[str, Any], ...] = (
            self.formats,
            self.registries,
            self.probes,
            self.backends,
            self.dialects,
            self.frontends,
            self.policies,
        )
        for info in self.plugins:
            if info.state != "active":
                continue
            found: list[tuple[str, Any]] = []
            try:
                for provider in PROVIDERS:
                    found += [(provider, item) for item in self._call(provider, info.name)]
                for provider, item in found:
                    self._reject_clash(provider, item.name, info)
                names = [(provider, item.name) for provider, item in found]
                if len(set(names)) < len(names):
                    raise RuntimeError(f"offers one name twice: {max(names, key=names.count)[1]!r}")
            except (Exception, SystemExit) as exc:
                self._break(info, _describe(exc))
                continue
            for provider, item in found:
                indexes[PROVIDERS.index(provider)][item.name] = item
                self._owners[provider, item.name] = info

    def _call(self, provider: str, plugin: str) -> list[Any]:
        implementations = getattr(self._manager.hook, provider).get_hookimpls()
        return [item for impl in implementations if impl.plugin_name == plugin for item in impl.function()]

    def _reject_clash(self, provider: str, name: str, info: PluginInfo) -> None:
        owner = self._owners.get((provider, name))
        if owner is not None:
            raise RuntimeError(
                f"{provider} {name!r} is already offered by plugin {owner.name!r} ({owner.distribution})"
            )


def _origin(entry: importlib.metadata.EntryPoint) -> tuple[str, str]:
    """The distribution of an entry point and its version, which a damaged installation may lack."""
    try:
        return (entry.dist.name or "?", entry.dist.version or "?") if entry.dist else ("?", "?")
    except Exception:
        return "?", "?"


def _describe(exc: BaseException) -> str:
    return f"{type(exc).__name__}: {exc}" if str(exc) else type(exc).__name__

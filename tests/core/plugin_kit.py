"""Installed distributions for tests of how plugins are loaded."""

from __future__ import annotations

import importlib
import importlib.metadata
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path

import pytest

from corectl.config import Settings
from corectl.plugins import PluginHost, PluginInfo
from tests.core.fake import write_distribution

HEAD = "from corectl import hookimpl\ncorectl_api = 1\n"
NAMED = """
class Named:
    def __init__(self, name):
        self.name = name
"""


def provider(hook: str, *names: str) -> str:
    offered = ", ".join(f"Named({name!r})" for name in names)
    return f"{HEAD}{NAMED}\n@hookimpl\ndef {hook}():\n    return [{offered}]\n"


GOOD = provider("corectl_backends", "good")


@contextmanager
def installed(folder: Path) -> Iterator[Site]:
    """What is installed in a folder can be found and imported meanwhile."""
    before = set(sys.modules)
    with pytest.MonkeyPatch.context() as patch:
        patch.syspath_prepend(str(folder))
        yield Site(folder)
    for name in set(sys.modules) - before:
        if name.startswith("site_"):
            del sys.modules[name]


class Site:
    """A folder of installed distributions, which are importable while the test runs."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder

    def install(self, plugin: str, source: str, *, module: str = "", dist: str = "") -> None:
        """A distribution with one plugin in one module."""
        module = module or f"site_{plugin}"
        files = {f"{module}.py": source}
        write_distribution(self.folder, dist or f"dist-{plugin}", {"corectl": {plugin: module}}, files)

    def entry_points(self) -> list[importlib.metadata.EntryPoint]:
        importlib.invalidate_caches()
        return [
            entry
            for dist in importlib.metadata.distributions(path=[str(self.folder)])
            for entry in dist.entry_points
            if entry.group == "corectl"
        ]

    def load(self, *disabled: str, only: str | None = None) -> PluginHost:
        settings = Settings(disabled_plugins=disabled)
        return PluginHost.load(settings, only=only, entry_points=self.entry_points())


def info_of(host: PluginHost, name: str) -> PluginInfo:
    (info,) = (info for info in host.plugins if info.name == name)
    return info


def reason(host: PluginHost, name: str) -> str:
    info = info_of(host, name)
    assert info.state == "broken"
    return info.reason

"""Loading plugins: real distributions with real entry points, most of them broken in some way."""

from __future__ import annotations

import importlib
import importlib.metadata
import logging
import sys

import pytest

from corectl.config import Settings
from corectl.plugins import PluginHost, PluginInfo
from tests.core.plugin_kit import GOOD, HEAD, Site, info_of, provider, reason


def test_a_good_plugin(site: Site) -> None:
    site.install("good", GOOD)
    host = site.load()
    assert host.plugins == [
        PluginInfo(name="good", distribution="dist-good", version="1.0", hooks=("corectl_backends",))
    ]
    assert list(host.backends) == ["good"]
    assert host.plugin_of("corectl_backends", "good") == "good"


def test_every_kind_of_provider_has_its_index(site: Site) -> None:
    hooks = {
        "corectl_model_formats": "formats",
        "corectl_registries": "registries",
        "corectl_hardware_probes": "probes",
        "corectl_backends": "backends",
        "corectl_frontends": "frontends",
        "corectl_scheduler_policies": "policies",
        "corectl_dialects": "dialects",
        "corectl_search_providers": "search_providers",
        "corectl_cli_commands": "cli_commands",
    }
    for number, hook in enumerate(hooks):
        site.install(f"p{number}", provider(hook, f"one{number}", f"two{number}"))
    host = site.load()
    for number, (hook, index) in enumerate(hooks.items()):
        assert list(getattr(host, index)) == [f"one{number}", f"two{number}"]
        assert host.plugin_of(hook, f"two{number}") == f"p{number}"


def test_it_finds_what_is_installed(site: Site) -> None:
    site.install("zz_found", GOOD)
    host = PluginHost.load(Settings(), only="zz_found")
    assert [info.name for info in host.plugins] == ["zz_found"] and list(host.backends) == ["good"]


def test_the_built_in_plugins_take_the_same_road() -> None:
    host = PluginHost.load(Settings())
    built_in = [info for info in host.plugins if info.distribution == "corectl"]
    assert {"gguf", "hostprobe", "packaged", "policies", "ollama"} <= {info.name for info in built_in}
    assert {info.state for info in built_in} == {"active"}


BROKEN = {
    "no_module": (
        "import no_such_module_at_all",
        "ModuleNotFoundError: No module named 'no_such_module_at_all'",
    ),
    "syntax": ("def", "SyntaxError"),
    "exits": ("import sys; sys.exit(3)", "SystemExit: 3"),
    "raises": ("raise RuntimeError", "RuntimeError"),
    "no_version": ("from corectl import hookimpl", "does not say which plugin contract it is written for"),
    "old": (
        GOOD.replace("corectl_api = 1", "corectl_api = 99"),
        "is written for plugin contract 99, and this",
    ),
    "empty": (HEAD, "implements none of corectl's hooks"),
    "misspelt": (f"{GOOD}\n@hookimpl\ndef corectl_backend(): return []\n", "unknown hook 'corectl_backend'"),
    "arguments": (
        f"{GOOD}\n@hookimpl\ndef corectl_server_stopping(reason): pass\n",
        "Argument(s) {'reason'}",
    ),
    "hook_raises": (f"{HEAD}\n@hookimpl\ndef corectl_backends(): return 1 // 0\n", "ZeroDivisionError"),
    "hook_exits": (f"{HEAD}\n@hookimpl\ndef corectl_backends(): raise SystemExit\n", "SystemExit"),
    "hook_none": (f"{HEAD}\n@hookimpl\ndef corectl_backends(): pass\n", "TypeError"),
    "hook_nameless": (f"{HEAD}\n@hookimpl\ndef corectl_backends(): return [1]\n", "AttributeError"),
    "hook_none_for_name": (provider("corectl_backends", "x").replace("'x'", "None"), "without a name: None"),
    "hook_endless": (
        f"{GOOD}\n@hookimpl\ndef corectl_registries():\n    while True: yield Named('x')\n",
        "offers more than 1000 things",
    ),
    "one_name_twice": (provider("corectl_backends", "x", "x"), "offers one name twice: 'x'"),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_broken_plugin_is_left_out_with_its_reason(
    site: Site, name: str, caplog: pytest.LogCaptureFixture
) -> None:
    source, expected = BROKEN[name]
    site.install(name, source)
    site.install("good", GOOD)
    with caplog.at_level(logging.WARNING):
        host = site.load()
    assert expected in reason(host, name)
    assert f"plugin {name} (dist-{name}) is left out" in caplog.text
    assert info_of(host, "good").state == "active"
    assert list(host.backends) == ["good"]


@pytest.mark.parametrize("name", ["misspelt", "arguments", "hook_raises", "one_name_twice"])
def test_nothing_of_a_broken_plugin_is_called(site: Site, name: str) -> None:
    # Hooks are registered in the order of their names: this one before the one with the wrong arguments.
    event = "CALLED = []\n@hookimpl\ndef corectl_model_loaded(): CALLED.append(1)\n"
    site.install(name, f"{BROKEN[name][0]}\n{event}")
    host = site.load()
    assert info_of(host, name).state == "broken"
    host.emit("corectl_model_loaded", model=None)
    host.close()
    assert importlib.import_module(f"site_{name}").CALLED == []


def test_a_hook_with_a_marker_of_its_own_is_no_hook(site: Site) -> None:
    """Functions without the decorator are not hooks, whatever their name."""
    site.install("plain", f"{HEAD}def corectl_backends(): return []\n")
    assert "implements none" in reason(site.load(), "plain")


def test_a_disabled_plugin_is_not_even_imported(site: Site) -> None:
    site.install("exits", BROKEN["exits"][0])
    site.install("good", GOOD)
    host = site.load("exits", "unknown")
    info = info_of(host, "exits")
    assert (info.state, info.reason, info.hooks) == ("blocked", "disabled by the user", ())
    assert "site_exits" not in sys.modules
    assert list(host.backends) == ["good"]


def test_only_one(site: Site) -> None:
    site.install("good", GOOD)
    site.install("other", provider("corectl_backends", "other"))
    host = site.load(only="other")
    assert [info.name for info in host.plugins] == ["other"] and list(host.backends) == ["other"]
    assert site.load(only="none").plugins == []


def test_the_later_one_by_name_loses_a_clash(site: Site) -> None:
    site.install("b_second", provider("corectl_backends", "mine", "same"))
    site.install("a_first", provider("corectl_backends", "same"))
    host = site.load()
    assert reason(host, "b_second") == (
        "corectl_backends 'same' is already offered by plugin 'a_first' (dist-a_first)"
    )
    assert list(host.backends) == ["same"]
    assert host.plugin_of("corectl_backends", "same") == "a_first"


def test_one_name_for_different_kinds_is_no_clash(site: Site) -> None:
    site.install("a", provider("corectl_backends", "same"))
    site.install("b", provider("corectl_registries", "same"))
    host = site.load()
    assert list(host.backends) == list(host.registries) == ["same"]


@pytest.mark.parametrize("first", ["good", "broken"])
def test_two_plugins_of_one_name(site: Site, first: str) -> None:
    """The first that can be loaded stays, whatever becomes of the other."""
    sources = {"good": GOOD, "broken": "raise RuntimeError('no')"}
    second = "broken" if first == "good" else "good"
    site.install("twin", sources[first], module="site_twin_a", dist="dist-a")
    site.install("twin", sources[second], module="site_twin_b", dist="dist-b")
    host = site.load()
    states = {info.distribution: info.state for info in host.plugins}
    assert sorted(states.values()) == ["active", "broken"]
    assert list(host.backends) == ["good"]


def test_two_good_plugins_of_one_name(site: Site) -> None:
    site.install("twin", GOOD, module="site_twin_a", dist="dist-a")
    site.install("twin", provider("corectl_backends", "late"), module="site_twin_b", dist="dist-b")
    host = site.load()
    assert [(info.distribution, info.state, info.reason) for info in host.plugins] == [
        ("dist-a", "active", ""),
        ("dist-b", "broken", "another plugin has this name"),
    ]
    assert list(host.backends) == ["good"]


def test_the_misspelt_one_of_two_with_one_name_is_the_broken_one(site: Site) -> None:
    site.install("twin", "raise RuntimeError('first')", module="site_twin_a", dist="dist-a")
    site.install("twin", BROKEN["misspelt"][0], module="site_twin_b", dist="dist-b")
    host = site.load()
    assert [info.state for info in host.plugins] == ["broken", "broken"]
    assert "first" in host.plugins[0].reason and "unknown hook" in host.plugins[1].reason


def test_one_module_under_two_names(site: Site) -> None:
    site.install("a", GOOD, module="site_one", dist="dist-a")
    site.install("b", GOOD, module="site_one", dist="dist-b")
    host = site.load()
    assert [info.state for info in host.plugins] == ["active", "broken"]
    assert list(host.backends) == ["good"]


def test_a_damaged_installation(site: Site) -> None:
    """An interrupted uninstall may leave entry points without metadata."""
    site.install("good", GOOD)
    (site.folder / "dist_good-1.0.dist-info" / "METADATA").unlink()
    host = site.load()
    assert info_of(host, "good").state == "active"
    assert info_of(host, "good").distribution


def test_an_entry_point_without_distribution() -> None:
    entry = importlib.metadata.EntryPoint(name="loose", value="no_such_module_at_all", group="corectl")
    (info,) = PluginHost.load(Settings(), entry_points=[entry]).plugins
    assert (info.distribution, info.version, info.state) == ("?", "?", "broken")


def test_availability_says_why_not(site: Site) -> None:
    offered = f"""{HEAD}
class Backend:
    def __init__(self, name, reason): self.name, self.reason = name, reason
    def availability(self):
        if self.reason == "raise": raise OSError("no driver")
        return self
class Probe:
    name = "probe"
    unusable = "too old"
    def devices(self): return [self]
class Bad:
    name = "bad_probe"
    def devices(self): raise ValueError
@hookimpl
def corectl_backends(): return [Backend("fine", ""), Backend("sad", "no GPU"), Backend("odd", "raise")]
@hookimpl
def corectl_hardware_probes(): return [Probe(), Bad()]
"""
    site.install("all", offered)
    assert site.load().availability() == {
        "fine": "",
        "sad": "no GPU",
        "odd": "availability() raised OSError: no driver",
        "probe": "probe: too old",
        "bad_probe": "devices() raised ValueError",
    }

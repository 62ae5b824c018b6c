"""Commands that plugins add."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING

import click
import pytest

from corectl.cli.offered import CliCommand, reserved
from corectl.config import Settings
from corectl.plugins import PluginHost
from tests.core.plugin_kit import HEAD, Site, installed

if TYPE_CHECKING:
    from tests.cli.conftest import Result

Corectl = Callable[..., "Result"]


def offering(*names: str, make: str = "make") -> str:
    """A plugin with commands that say their name and what they were given; or that are not as they should be."""
    commands = ", ".join(f"CliCommand(name={name!r}, help='Says {name}', make={make})" for name in names)
    return f"""{HEAD}
from corectl.cli.offered import CliCommand
def make():
    import click
    @click.command(help="The long help.")
    @click.argument("what")
    @click.pass_context
    def say(ctx, what): click.echo(f"{{ctx.info_name}} {{what}}")
    return say
def broken(): import no_such_module_at_all
def no_command(): return print
@hookimpl
def corectl_cli_commands(): return [{commands}]
"""


@pytest.fixture
def site(tmp_path: Path) -> Iterator[Site]:
    with installed(tmp_path / "site") as folder:
        yield folder


def test_a_command_of_a_plugin_is_listed_helps_and_runs(site: Site, corectl: Corectl) -> None:
    site.install("talk", offering("say", "say-it"))
    shown = corectl("--help").out
    assert (
        "  help         Help about any command\n  say          Says say\n  say-it       Says say-it\n"
        in shown
    )
    assert corectl("say", "hello").out == "say hello\n"
    assert corectl("say-it", "again").out == "say-it again\n"
    for words in (("say", "--help"), ("help", "say")):
        assert "Usage: corectl say" in corectl(*words).out and "The long help." in corectl(*words).out
    failed = corectl("say")
    assert (failed.code, failed.err) == (1, "Error: Missing argument 'WHAT'.\n")


def test_no_plugin_is_loaded_for_a_command_of_the_program(
    site: Site, corectl: Corectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("talk", offering("say"))
    monkeypatch.setattr(PluginHost, "load", lambda *_, **__: pytest.fail("not needed"))
    assert corectl("serve", "--help").code == corectl("help", "ls").code == 0


def test_an_unknown_command_is_still_one(site: Site, corectl: Corectl) -> None:
    site.install("talk", offering("say"))
    assert corectl("nosuch").err == 'Error: unknown command "nosuch" for "corectl"\n'


@pytest.mark.parametrize("name", ["serve", "start", "ls", "help"])
def test_a_name_of_the_program_is_refused(site: Site, corectl: Corectl, name: str) -> None:
    site.install("talk", offering(name))
    plugins = json.loads(corectl("plugins", "--json").out)["plugins"]
    (info,) = [plugin for plugin in plugins if plugin["name"] == "talk"]
    assert info["state"] == "broken"
    assert info["reason"] == f"corectl_cli_commands {name!r} is a command of corectl itself"
    assert f"Says {name}" not in corectl("--help").out


def test_own_names_and_their_aliases_are_reserved() -> None:
    assert {"serve", "start", "list", "ls", "plugins", "help"} <= reserved()


@pytest.mark.parametrize("name", ["", "Say", "two words", "-x", "9", "x" * 31])
def test_a_command_has_a_name_that_can_be_typed(name: str) -> None:
    with pytest.raises(ValueError, match="is no name for a command"):
        CliCommand(name=name, help="", make=lambda: click.Command("x"))


@pytest.mark.parametrize(
    ("make", "why"),
    [
        ("broken", "ModuleNotFoundError: No module named 'no_such_module_at_all'"),
        ("no_command", "TypeError: builtin_function_or_method is no click command"),
    ],
)
def test_one_that_cannot_be_made_names_its_plugin(site: Site, corectl: Corectl, make: str, why: str) -> None:
    site.install("talk", offering("say", make=make))
    assert "Says say" in corectl("--help").out
    failed = corectl("say", "hello")
    assert (failed.code, failed.err) == (
        1,
        f"Error: the command 'say' of plugin talk cannot be used: {why}\n",
    )


def test_one_that_is_switched_off_is_gone(
    site: Site, corectl: Corectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    site.install("talk", offering("say"))
    monkeypatch.setenv("CORECTL_DISABLED_PLUGINS", "talk")
    assert "Says say" not in corectl("--help").out
    assert 'unknown command "say"' in corectl("say", "hello").err


def test_a_broken_configuration_does_not_take_the_help_away(
    site: Site, corectl: Corectl, monkeypatch: pytest.MonkeyPatch, tmp_path: Path
) -> None:
    site.install("talk", offering("say"))
    (tmp_path / "bad.toml").write_text("nonsense = 1\n")
    monkeypatch.setenv("CORECTL_CONFIG", str(tmp_path / "bad.toml"))
    shown = corectl("--help")
    assert shown.code == 0 and "Start corectl" in shown.out
    assert "Warning: commands of plugins are left out" in shown.err and "'nonsense'" in shown.err


def test_built_in_plugins_offer_none() -> None:
    """They are not loaded for it: the program has its own commands."""
    host = PluginHost.load(Settings())
    owners = {host.owner("corectl_cli_commands", name).distribution for name in host.cli_commands}
    assert "corectl" not in owners


def test_a_plugin_that_forks_does_not_run_the_command_twice(site: Site) -> None:
    site.install("forks", f"import os\nos.fork()\n{offering('say')}")
    command = [sys.executable, "-c", "from corectl.cli import main; main()", "plugins"]
    environment = {**os.environ, "PYTHONPATH": str(site.folder)}
    done = subprocess.run(command, capture_output=True, text=True, timeout=60, check=True, env=environment)
    assert done.stdout.count("NAME") == 1 and "os.fork is refused" in done.stdout
    assert "asked for by plugin forks" in done.stderr

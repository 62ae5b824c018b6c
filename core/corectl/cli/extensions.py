"""Commands that plugins add to the program: found only when they are asked for."""

from __future__ import annotations

from importlib.metadata import entry_points
from typing import TYPE_CHECKING, Final

import click

from corectl.cli.cobra import Group
from corectl.cli.failure import CliError

if TYPE_CHECKING:
    from corectl.plugins import PluginHost

_HOST: Final = "corectl.plugins"
_CORE: Final = "corectl"
"""The name of corectl's own distribution, and of the entry points of plugins."""


class ExtensibleGroup(Group):
    """The program with its own commands, which come first, and those of plugins.

    Loading plugins takes time, so it happens only for a name that is not one of its own, and for the list of all. Those
    of corectl's own distribution are not loaded: the commands that it has are its own.
    """

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name or alias, or the plugin's of this name."""
        own = super().get_command(ctx, cmd_name)
        if own is not None or cmd_name.startswith("-"):
            return own
        host = _plugins(ctx)
        return _make(host, cmd_name) if host is not None and cmd_name in host.cli_commands else None

    def listed(self, ctx: click.Context) -> list[tuple[str, str]]:
        """Own commands, then those of plugins, with their lines of help."""
        host = _plugins(ctx)
        offered = host.cli_commands.values() if host is not None else ()
        return [*super().listed(ctx), *((command.name, command.help) for command in offered)]


def _plugins(ctx: click.Context) -> PluginHost | None:
    """The plugins of other distributions, loaded once for a command line; None if there are none."""
    if _HOST not in ctx.meta:
        entries = entry_points(group=_CORE)
        names = [entry.name for entry in entries if entry.dist is None or entry.dist.name != _CORE]
        ctx.meta[_HOST] = _load(names) if names else None
    host: PluginHost | None = ctx.meta[_HOST]
    return host


def _load(names: list[str]) -> PluginHost | None:
    from corectl.config import load
    from corectl.errors import BadRequest
    from corectl.plugins import PluginHost
    from corectl.plugins.forks import forks_refused

    try:
        with forks_refused():
            return PluginHost.load(load(), only=names)
    except BadRequest as exc:
        click.echo(f"Warning: commands of plugins are left out: {exc.message}", err=True)
        return None


def _make(host: PluginHost, name: str) -> click.Command:
    """The click command. Raises `CliError` that names the plugin if there is none."""
    from corectl.deadline import described

    try:
        command = host.cli_commands[name].make()
        if not isinstance(command, click.Command):
            raise TypeError(f"{type(command).__name__} is no click command")
    except Exception as exc:
        plugin = host.plugin_of("corectl_cli_commands", name)
        raise CliError(f"the command {name!r} of plugin {plugin} cannot be used: {described(exc)}") from exc
    command.name = name
    return command

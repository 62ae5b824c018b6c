"""`corectl plugins`: which plugins there are, and why one does not work here."""

from __future__ import annotations

import json
from typing import TYPE_CHECKING, Final

import click

from corectl.cli.cobra import Command
from corectl.cli.tables import table

if TYPE_CHECKING:
    from corectl.plugins import PluginHost, PluginInfo

_VARIABLES: Final = (("CORECTL_DISABLED_PLUGINS", "A comma separated list of plugins to leave out"),)
_HOOK_PREFIX: Final = "corectl_"


@click.command("plugins", cls=Command, variables=_VARIABLES, help="List plugins and what they can do here")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
@click.option(
    "--no-plugin", "disabled", multiple=True, metavar="name", help="Leave out a plugin (repeatable)"
)
@click.argument("args", nargs=-1)
def plugins(args: tuple[str, ...], as_json: bool, disabled: tuple[str, ...]) -> None:
    """Loads the plugins in this process, as a server with the same settings would, and prints them."""
    from corectl.config import load
    from corectl.plugins import PluginHost
    from corectl.plugins.forks import forks_refused

    with forks_refused():
        host = PluginHost.load(load({"disabled_plugins": disabled} if disabled else {}))
        text = _json(host) if as_json else _text(host)
    click.echo(text, nl=False)


def _json(host: PluginHost) -> str:
    fields = ("name", "distribution", "version", "state", "hooks", "reason", "warnings")
    rows = [{field: getattr(plugin, field) for field in fields} for plugin in host.plugins]
    return json.dumps({"plugins": rows, "availability": host.availability()}, indent=2) + "\n"


def _text(host: PluginHost) -> str:
    rows = [(p.name, p.distribution, p.version, p.state, str(len(p.hooks))) for p in host.plugins]
    head, *lines = table(("NAME", "DISTRIBUTION", "VERSION", "STATE", "HOOKS"), rows).splitlines(
        keepends=True
    )
    text = head
    for line, plugin in zip(lines, host.plugins, strict=True):
        text += line + "".join(f"    {detail}\n" for detail in _details(plugin))
    unusable = {name: reason for name, reason in host.availability().items() if reason}
    if unusable:
        text += "\nNot usable here:\n" + "".join(
            f"    {name}: {reason}\n" for name, reason in unusable.items()
        )
    return text


def _details(plugin: PluginInfo) -> list[str]:
    """The lines under a plugin: its hooks without their common prefix, and what is or will be wrong with it."""
    hooks = ", ".join(hook.removeprefix(_HOOK_PREFIX) for hook in plugin.hooks)
    warnings = (f"warning: {warning}" for warning in plugin.warnings)
    return [line for line in (hooks, plugin.reason, *warnings) if line]

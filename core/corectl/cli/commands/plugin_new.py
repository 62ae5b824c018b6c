"""`corectl plugin new`: writes a plugin project that works, to be changed from there."""

from __future__ import annotations

from pathlib import Path
from typing import Final

import click

from corectl.cli.cobra import Command, Group
from corectl.cli.failure import CliError

KINDS: Final = ("backend", "frontend", "registry", "hardware", "policy", "parser", "search")


@click.group(
    "plugin",
    cls=Group,
    invoke_without_command=True,
    help="Write plugins",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.pass_context
def plugin(ctx: click.Context) -> None:
    """Without a command: prints the help."""
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@plugin.command(
    "new", cls=Command, takes=(1, 1), synopsis="NAME", variables=(), help="Write the project of a new plugin"
)
@click.option(
    "--kind", type=click.Choice(KINDS), required=True, metavar="kind", help=f"One of {', '.join(KINDS)}"
)
@click.argument("args", nargs=-1)
def new(args: tuple[str, ...], kind: str) -> None:
    """Writes `corectl-NAME` into the current folder. What is there already is left as it is."""
    from corectl.scaffold.project import folder_name, project

    try:
        files = project(args[0], kind)
    except ValueError as exc:
        raise CliError(str(exc)) from exc
    _refuse_taken(args[0])
    folder = Path(folder_name(args[0]))
    try:
        folder.mkdir()
        for name, text in files.items():
            target = folder / name
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(text, "utf-8")
    except FileExistsError as exc:
        raise CliError(f"{folder} is there already; remove it, or take another name") from exc
    except OSError as exc:
        raise CliError(f"{folder} cannot be written: {exc.strerror}") from exc
    click.echo(f"{folder} is a {kind} that works. Next:")
    click.echo(f"  pip install -e './{folder}[test]'\n  corectl plugins\n  pytest {folder}")


def _refuse_taken(name: str) -> None:
    """Two plugins, two packages, or two things that plugins offer, cannot be used together if they have one name."""
    import importlib.util
    from importlib.metadata import entry_points

    from corectl.config import Settings
    from corectl.plugins import PluginHost
    from corectl.plugins.forks import forks_refused
    from corectl.scaffold.project import package_name

    if name in entry_points(group="corectl").names:
        raise CliError(f"a plugin {name!r} is installed already; take another name")
    if importlib.util.find_spec(package_name(name)) is not None:
        raise CliError(f"a package {package_name(name)} is installed already; take another name")
    with forks_refused():
        owners = PluginHost.load(Settings()).owners(name)
    if owners:
        hook, owner = next(iter(owners.items()))
        kind = hook.removeprefix("corectl_").replace("_", " ")
        raise CliError(f"plugin {owner.name!r} has {name!r} among its {kind}; take another name")

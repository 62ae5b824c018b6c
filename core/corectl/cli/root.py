"""The command `corectl` itself: its flags, its commands, and how every error is shown."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final

import click

from corectl.cli.cobra import Command, Group, usage_text
from corectl.cli.commands import COMMANDS
from corectl.cli.commands.version import show_version
from corectl.cli.extensions import ExtensibleGroup
from corectl.cli.failure import CliError
from corectl.errors import CorectlError

PROGRAM: Final = "corectl"


@click.group(
    PROGRAM,
    cls=ExtensibleGroup,
    invoke_without_command=True,
    help="Large language model runner",
    context_settings={"help_option_names": ["-h", "--help"]},
)
@click.option("-v", "--version", is_flag=True, help="Show version information")
@click.pass_context
def root(ctx: click.Context, version: bool) -> None:
    """Without a command: prints the version or the help."""
    if version:
        show_version()
        ctx.exit(0)
    if ctx.invoked_subcommand is None:
        click.echo(ctx.get_help())


@click.command(
    "help",
    cls=Command,
    takes=(0, None),
    synopsis="[command]",
    variables=(),
    help=(
        "Help provides help for any command in the application.\n"
        f"Simply type {PROGRAM} help [path to command] for full details."
    ),
    short_help="Help about any command",
)
@click.argument("args", nargs=-1)
@click.pass_context
def help_command(ctx: click.Context, args: tuple[str, ...]) -> None:
    """Prints the help of the program or of one command."""
    shown = ctx.find_root()
    for word in args:
        if not isinstance(shown.command, Group):
            break
        _, command, _ = shown.command.resolve_command(shown, [word])
        if command is not None:
            shown = click.Context(command, parent=shown, info_name=command.name)
    click.echo(shown.get_help())


for _command in (*COMMANDS, help_command):
    root.add_command(_command)


def run(args: Sequence[str]) -> int:
    """Runs one command line and returns the exit code."""
    try:
        result = root.main(args=list(args), prog_name=PROGRAM, standalone_mode=False)
    except click.exceptions.Exit as exit_:
        return exit_.exit_code
    except click.UsageError as exc:
        return _fail(usage_text(exc))
    except click.ClickException as exc:
        return _fail(exc.format_message())
    except (CliError, CorectlError) as exc:
        return _fail(str(exc))
    except (click.Abort, KeyboardInterrupt):
        click.echo(err=True)
        return 1
    return result if isinstance(result, int) else 0


def _fail(message: str) -> int:
    click.echo(f"Error: {message}", err=True)
    return 1

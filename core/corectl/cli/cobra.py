"""Commands whose help and errors read as users of the Ollama command line know them."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any, Final

import click

from corectl.cli.failure import CliError

HOST_HELP: Final = ("OLLAMA_HOST", "IP Address for the corectl server (default 127.0.0.1:11434)")
_HELP_NAMES: Final = {"help_option_names": ["-h", "--help"]}
_VARIABLE_WIDTH: Final = 30

Count = tuple[int, int | None]
"""Least and most number of arguments; None for no limit."""


class Command(click.Command):
    """A command that counts its arguments itself and prints help in sections.

    `takes` limits the number of arguments, `synopsis` names them in the usage line, `variables` are the
    environment variables that matter to it. `bare` gives options that may stand without a value the one they
    then have; such an option takes another value only after `=`, so that it never eats the next argument.
    """

    def __init__(
        self,
        *args: Any,
        takes: Count = (0, 0),
        synopsis: str = "",
        aliases: Sequence[str] = (),
        variables: Sequence[tuple[str, str]] = (HOST_HELP,),
        bare: Mapping[str, str] | None = None,
        **kwargs: Any,
    ) -> None:
        kwargs.setdefault("context_settings", _HELP_NAMES)
        super().__init__(*args, **kwargs)
        self.takes = takes
        self.synopsis = synopsis
        self.aliases = tuple(aliases)
        self.variables = tuple(variables)
        self.bare = dict(bare or {})

    def parse_args(self, ctx: click.Context, args: list[str]) -> list[str]:
        """Parses flags, then checks the number of arguments."""
        rest = super().parse_args(ctx, list(self._with_values(args)))
        for parameter in self.params:
            if isinstance(parameter, click.Argument) and parameter.name:
                check_count(self.takes, len(ctx.params[parameter.name]))
        return rest

    def _with_values(self, args: Sequence[str]) -> Iterator[str]:
        flags = True
        for arg in args:
            flags = flags and arg != "--"
            yield f"{arg}={self.bare[arg]}" if flags and arg in self.bare else arg

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes description, usage, aliases, flags and variables."""
        usage = " ".join(part for part in (ctx.command_path, self.synopsis, "[flags]") if part)
        parts = [self.help or "", f"Usage:\n  {usage}"]
        if self.aliases:
            parts.append("Aliases:\n  " + ", ".join([self.name or "", *self.aliases]))
        parts.append(f"Flags:\n{flag_lines(self, ctx)}")
        if self.variables:
            lines = [f"      {name:<{_VARIABLE_WIDTH}}{text}" for name, text in self.variables]
            parts.append("Environment Variables:\n" + "\n".join(lines))
        formatter.write("\n\n".join(parts) + "\n")


class Group(click.Group):
    """The program: finds commands by name or alias, and lists them in the order in which they were added."""

    def get_command(self, ctx: click.Context, cmd_name: str) -> click.Command | None:
        """The command of this name or alias."""
        for command in self.commands.values():
            if cmd_name == command.name or cmd_name in getattr(command, "aliases", ()):
                return command
        return None

    def resolve_command(
        self, ctx: click.Context, args: list[str]
    ) -> tuple[str | None, click.Command | None, list[str]]:
        """The command that the first argument names."""
        command = self.get_command(ctx, args[0])
        if command is None:
            raise CliError(f'unknown command "{args[0]}" for "{ctx.command_path}"')
        return command.name, command, args[1:]

    def listed(self, ctx: click.Context) -> list[tuple[str, str]]:
        """The commands that the help shows, with a line of help for each."""
        shown = [command for command in self.commands.values() if not command.hidden]
        return [(command.name or "", command.short_help or command.help or "") for command in shown]

    def format_help(self, ctx: click.Context, formatter: click.HelpFormatter) -> None:
        """Writes description, usage, commands and flags."""
        name = ctx.command_path
        parts = [
            self.help or "",
            f"Usage:\n  {name} [flags]\n  {name} [command]",
            "Available Commands:\n" + "\n".join(f"  {cmd:<12} {text}" for cmd, text in self.listed(ctx)),
            f"Flags:\n{flag_lines(self, ctx)}",
            f'Use "{name} [command] --help" for more information about a command.',
        ]
        formatter.write("\n\n".join(parts) + "\n")


def flag_lines(command: click.Command, ctx: click.Context) -> str:
    """One line per flag, sorted by name, help texts in one column."""
    rows: list[tuple[str, str, str]] = []
    for option in command.get_params(ctx):
        if not isinstance(option, click.Option) or option.hidden:
            continue
        long = max(option.opts, key=len)
        short = next((name for name in option.opts if len(name) == 2), "")
        kind = "" if option.is_flag or long == "--help" else f" {option.metavar or 'string'}"
        text = f"help for {ctx.info_name}" if long == "--help" else option.help or ""
        rows.append((long, (f"  {short}, " if short else "      ") + long + kind, text))
    width = max(len(flag) for _, flag, _ in rows) + 3
    return "\n".join(f"{flag:<{width}}{text}" for _, flag, text in sorted(rows))


def check_count(takes: Count, count: int) -> None:
    """Raises `CliError` unless `count` arguments are allowed."""
    least, most = takes
    if least == most and count != least:
        raise CliError(f"accepts {least} arg(s), received {count}")
    if count < least:
        raise CliError(f"requires at least {least} arg(s), only received {count}")
    if most is not None and count > most:
        raise CliError(f"accepts at most {most} arg(s), received {count}")


def usage_text(error: click.UsageError) -> str:
    """What is wrong with the command line, in one line."""
    if isinstance(error, click.NoSuchOption):
        name = error.option_name
        return (
            f"unknown flag: {name}"
            if name.startswith("--")
            else f"unknown shorthand flag: {name[1:]!r} in {name}"
        )
    if isinstance(error, click.BadOptionUsage) and "requires an argument" in error.message:
        return f"flag needs an argument: {error.option_name}"
    if isinstance(error, click.BadParameter) and error.message and error.param is not None:
        return f"invalid value for {'/'.join(error.param.opts)}: {error.message}"
    return " ".join(error.format_message().split())

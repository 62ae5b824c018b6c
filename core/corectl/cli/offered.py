"""What a plugin says about a command that it adds to the command line."""

from __future__ import annotations

import re
from collections.abc import Callable
from typing import TYPE_CHECKING, Final

import msgspec

if TYPE_CHECKING:
    import click

_NAME: Final = re.compile(r"[a-z][a-z0-9-]{0,29}")


class CliCommand(msgspec.Struct, frozen=True, kw_only=True):
    """A command: its name, a line of help, and what makes the click command.

    `make` is called when the command is used, so what it needs is imported there.
    """

    name: str
    help: str
    make: Callable[[], click.Command]

    def __post_init__(self) -> None:
        if not _NAME.fullmatch(self.name):
            raise ValueError(f"{self.name!r} is no name for a command; use a-z, 0-9 and '-'")


def reserved() -> set[str]:
    """Names and aliases of the program's own commands."""
    from corectl.cli.root import root

    return {
        name
        for command in root.commands.values()
        for name in (command.name or "", *getattr(command, "aliases", ()))
    }

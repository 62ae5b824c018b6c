"""The conformance suite for commands of the program."""

from __future__ import annotations

from corectl.cli.offered import CliCommand
from corectl.testing.suite import Suite


class CommandSuite(Suite):
    """Everything that a command on the command line promises. A subclass gives `command`."""

    kind = "command"

    def command(self) -> CliCommand:
        raise NotImplementedError

    def subject(self) -> str:
        return self.command().name

    def test_help(self) -> None:
        """It has a line of help, makes a click command, and explains itself."""
        import click
        from click.testing import CliRunner

        command = self.command()
        assert command.help.strip() and "\n" not in command.help.strip()
        made = command.make()
        assert isinstance(made, click.Command)
        answer = CliRunner().invoke(made, ["--help"])
        assert answer.exit_code == 0 and answer.output.strip(), answer.output

    def test_unknown_options(self) -> None:
        """An option that there is not is refused, with exit status 2."""
        from click.testing import CliRunner

        answer = CliRunner().invoke(self.command().make(), ["--no-such-option"])
        assert answer.exit_code == 2, answer.output

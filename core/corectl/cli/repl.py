"""The conversation in a terminal: line editing, history, and the loop around a session."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING, Final

import click
from prompt_toolkit import PromptSession
from prompt_toolkit.formatted_text import FormattedText
from prompt_toolkit.history import InMemoryHistory
from prompt_toolkit.key_binding import KeyBindings, KeyPressEvent

from corectl.cli.failure import CliError
from corectl.cli.history import history_path, load_history, save_history
from corectl.cli.images import starts_with_image
from corectl.cli.slash import QUOTES, SlashCommands, is_open, unquote
from corectl.cli.text import as_text

if TYPE_CHECKING:
    from corectl.cli.session import Session

PROMPT: Final = ">>> "
CONTINUATION: Final = "... "
_TAB: Final = " " * 8
_OFF: Final = ("", "0", "f", "false")


class _History(InMemoryHistory):
    """What was typed while it is kept."""

    keep = True

    def append_string(self, string: str) -> None:
        if self.keep:
            super().append_string(string)


class LineInput:
    """Reads what the user types. The history is loaded when it is first kept, and saved after each input."""

    def __init__(self, *, keep: bool) -> None:
        self._path = history_path()
        self._loaded = False
        self._history = _History()
        self._prompt: PromptSession[str] = PromptSession(
            key_bindings=_bindings(),
            multiline=True,
            prompt_continuation=CONTINUATION,
            enable_suspend=True,
            enable_history_search=False,
            history=self._history,
        )
        self.keep(keep)

    def keep(self, keep: bool) -> None:
        """Whether what is typed from now on is kept."""
        self._history.keep = keep
        if keep and not self._loaded:
            self._loaded = True
            for entry in load_history(self._path):
                self._history.append_string(entry)

    def read(self) -> str:
        """The next input; may have many lines. Raises EOFError for Ctrl-D, KeyboardInterrupt for Ctrl-C."""
        text = self._prompt.prompt(PROMPT, placeholder=_hint("Send a message (/? for help)"))
        while is_open(text):
            text += "\n" + self._prompt.prompt(CONTINUATION, placeholder=_hint("Press Enter to send"))
        if self._history.keep and text.strip():
            save_history(self._path, self._history.get_strings())
        return text

    @property
    def empty(self) -> bool:
        """Whether nothing had been typed when the last input ended."""
        return not self._prompt.default_buffer.text


def _hint(text: str) -> FormattedText:
    return FormattedText([("ansibrightblack", text)])


def _bindings() -> KeyBindings:
    """Keys that differ from the editor's own: Enter sends although an input may have many lines."""
    keys = KeyBindings()

    @keys.add("enter")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.validate_and_handle()

    @keys.add("c-j")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text("\n")

    @keys.add("tab")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.insert_text(_TAB)

    @keys.add("c-g")
    def _(event: KeyPressEvent) -> None:
        event.current_buffer.open_in_editor()

    return keys


def _keeps_history() -> bool:
    return os.environ.get("OLLAMA_NOHISTORY", "").strip().strip("\"'").lower() in _OFF


def converse(session: Session) -> None:
    """Prints the model's own messages, then talks until the user leaves."""
    _transcript(session)
    commands = SlashCommands(session, history=_keeps_history())
    lines = LineInput(keep=commands.history)
    while True:
        lines.keep(commands.history)
        try:
            text = lines.read()
        except EOFError:
            click.echo()
            return
        except KeyboardInterrupt:
            if lines.empty:
                click.echo("\nUse Ctrl + d or /bye to exit.")
            continue
        if text.strip() and not _handle(session, commands, text):
            return


def _handle(session: Session, commands: SlashCommands, text: str) -> bool:
    """Runs a command or sends a message. False ends the conversation; errors do not."""
    try:
        if text.startswith("/") and not (session.sees and starts_with_image(text)):
            return commands.run(as_text(text))
        session.say(unquote(text) if text.startswith(QUOTES) else text)
    except KeyboardInterrupt:
        click.echo()
    except CliError as exc:
        click.echo(f"Error: {exc}", err=True)
    return True


def _transcript(session: Session) -> None:
    for message in session.info.get("messages") or []:
        if message.get("role") == "user":
            click.echo(f"{PROMPT}{message.get('content', '')}")
        elif message.get("role") == "assistant":
            click.echo(f"{message.get('content', '')}\n")

"""The commands inside a conversation: `/set`, `/show`, `/load` and the others."""

from __future__ import annotations

import json
from collections.abc import Callable
from typing import TYPE_CHECKING, Any, Final

import click

from corectl.cli import slash_help
from corectl.cli.commands.create import is_model_name
from corectl.cli.commands.models import models_table
from corectl.cli.commands.show import summary
from corectl.cli.failure import ServerError
from corectl.cli.progress import Progress
from corectl.cli.steps import follow
from corectl.errors import CorectlError

if TYPE_CHECKING:
    from corectl.cli.session import Session

QUOTES: Final = '"""'
_LEVELS: Final = ("low", "medium", "high", "max")
_NOTHING: Final = {
    "license": "No license was specified for this model.",
    "modelfile": "No Modelfile was specified for this model.",
    "system": "No system message was specified for this model.",
    "template": "No prompt template was specified for this model.",
}


def is_open(text: str) -> bool:
    '''Whether the input, or its text after `/set system`, began with """ and goes on in the next line.'''
    body = _quotable(text)
    return body.startswith(QUOTES) and not (len(body) >= 2 * len(QUOTES) and body.rstrip().endswith(QUOTES))


def unquote(text: str) -> str:
    '''The text without the """ around it.'''
    if not text.startswith(QUOTES):
        return text
    return text.removeprefix(QUOTES).rstrip().removesuffix(QUOTES)


def _quotable(text: str) -> str:
    """The part of an input that may be in quotes."""
    command, _, rest = text.partition("/set system ")
    return text if command or not rest else rest.lstrip(" ")


class SlashCommands:
    """Runs the commands on a session. `history` is whether typed lines are kept; the input loop reads it."""

    def __init__(self, session: Session, *, history: bool = True) -> None:
        self.session = session
        self.history = history
        self._commands: dict[str, Callable[[str], None]] = {
            "/set": self._set,
            "/show": self._show,
            "/load": self._load,
            "/save": self._save,
            "/clear": self._clear,
            "/list": self._list,
            "/ls": self._list,
            "/help": self._help,
            "/?": self._help,
        }
        self._settings: dict[str, Callable[[str], None]] = {
            "parameter": self._set_parameter,
            "system": self._set_system,
            "history": lambda _: self._set_history(True),
            "nohistory": lambda _: self._set_history(False),
            "wordwrap": lambda _: self._set_wrap(True),
            "nowordwrap": lambda _: self._set_wrap(False),
            "format": self._set_format,
            "noformat": self._set_no_format,
            "verbose": lambda _: self._set_verbose(True),
            "quiet": lambda _: self._set_verbose(False),
            "think": self._set_think,
            "nothink": self._set_no_think,
        }

    def run(self, line: str) -> bool:
        """Runs one line that begins with `/`. False means: end the conversation."""
        name, _, rest = line.strip().partition(" ")
        if name in ("/bye", "/exit"):
            return False
        command = self._commands.get(name)
        if command is None:
            click.echo(f"Unknown command '{name}'. Type /? for help")
        else:
            command(rest.strip())
        return True

    def _help(self, topic: str) -> None:
        topics = {"set": slash_help.SET, "show": slash_help.SHOW, "shortcuts": slash_help.SHORTCUTS}
        commands = slash_help.COMMANDS + (slash_help.IMAGES if self.session.sees else "")
        click.echo(topics.get(topic.lstrip("/"), commands), err=True)

    def _set(self, text: str) -> None:
        name, _, rest = text.partition(" ")
        if not name:
            click.echo(slash_help.SET, err=True)
        elif name in self._settings:
            self._settings[name](rest.strip())
        else:
            click.echo(f"Unknown command '/set {name}'. Type /? for help")

    def _set_parameter(self, text: str) -> None:
        from corectl.model.modelfile import format_parameters

        name, _, value = text.partition(" ")
        if not value.strip():
            click.echo(slash_help.PARAMETERS, err=True)
            return
        values = value.split() if name == "stop" else [value.strip()]
        try:
            given = format_parameters((name, item) for item in values)
        except CorectlError as exc:
            click.echo(f"Couldn't set parameter: {json.dumps(exc.message, ensure_ascii=False)}")
            return
        self.session.options.update(given)
        click.echo(f"Set parameter '{name}' to '{', '.join(values)}'")

    def _set_system(self, text: str) -> None:
        if not text:
            click.echo(slash_help.SET, err=True)
            return
        self.session.set_system(unquote(text))
        click.echo("Set system message.")

    def _set_history(self, on: bool) -> None:
        self.history = on

    def _set_wrap(self, on: bool) -> None:
        self.session.wrap = on
        click.echo(f"Set '{'' if on else 'no'}wordwrap' mode.")

    def _set_format(self, text: str) -> None:
        if text != "json":
            click.echo("Invalid or missing format. For 'json' mode use '/set format json'")
            return
        self.session.format = text
        click.echo("Set format to 'json' mode.")

    def _set_no_format(self, _: str) -> None:
        self.session.format = None
        click.echo("Disabled format.")

    def _set_verbose(self, on: bool) -> None:
        self.session.verbose = on
        click.echo(f"Set '{'verbose' if on else 'quiet'}' mode.")

    def _set_think(self, level: str) -> None:
        if level and level not in _LEVELS:
            click.echo(f"Invalid level '{level}'. Use one of {', '.join(_LEVELS)}")
            return
        self._warn_thinking()
        self.session.think = level or True
        click.echo(f"Set 'think' mode to '{level}'." if level else "Set 'think' mode.")

    def _set_no_think(self, _: str) -> None:
        self._warn_thinking()
        self.session.think = False
        click.echo("Set 'nothink' mode.")

    def _warn_thinking(self) -> None:
        if not self.session.thinks:
            click.echo(f'warning: model "{self.session.model}" does not support thinking output', err=True)

    def _show(self, part: str) -> None:
        info = self.session.info
        if part == "info":
            click.echo("".join(summary(info)), nl=False)
        elif part == "parameters":
            click.echo(self._parameters())
        elif part in _NOTHING:
            own = self.session.system if part == "system" else ""
            click.echo(own or info.get(part) or _NOTHING[part])
        elif part:
            click.echo(f"Unknown command '/show {part}'. Type /? for help")
        else:
            click.echo(slash_help.SHOW, err=True)

    def _parameters(self) -> str:
        defined = self.session.info.get("parameters", "")
        lines = ["Model defined parameters:"]
        lines += [f"  {line}" for line in defined.splitlines()] or [
            "  No additional parameters were specified for this model."
        ]
        if self.session.options:
            rows = (f"  {name:<30} {_shown(value)}" for name, value in self.session.options.items())
            lines += ["", "User defined parameters:", *rows]
        return "\n".join(lines) + "\n"

    def _load(self, name: str) -> None:
        if not name or " " in name:
            click.echo(slash_help.LOAD, nl=False)
            return
        session = self.session
        try:
            info = session.client.post("/api/show", {"model": name})
        except ServerError as exc:
            if exc.status not in (400, 404):
                raise
            click.echo(f"Couldn't find model '{name}'")
            return
        click.echo(f"Loading model '{name}'")
        session.model, session.info, session.messages = name, info, []
        if session.think and not session.thinks:
            self._warn_thinking()
            session.think = None
        session.load()

    def _save(self, name: str) -> None:
        if not name or " " in name:
            click.echo(slash_help.SAVE, nl=False)
            return
        if not is_model_name(name):
            click.echo(f"error: The model name '{name}' is invalid")
            return
        session = self.session
        body: dict[str, Any] = {"model": name, "from": session.model, "parameters": session.options}
        if session.system:
            body["system"] = session.system
        messages = [message for message in session.messages if message["role"] != "system"]
        if messages:
            body["messages"] = messages
        with Progress(transient=True) as progress:
            follow(session.client, "/api/create", body, progress)
        click.echo(f"Created new model '{name}'")

    def _clear(self, _: str) -> None:
        self.session.clear()
        click.echo("Cleared session context")

    def _list(self, prefix: str) -> None:
        click.echo(models_table(self.session.client.get("/api/tags")["models"], prefix), nl=False)


def _shown(value: Any) -> str:
    return " ".join(map(str, value)) if isinstance(value, list) else str(value)

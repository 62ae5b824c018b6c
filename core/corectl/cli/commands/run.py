"""`corectl run`: one answer, an embedding, or a conversation."""

from __future__ import annotations

import json
import sys
from typing import TYPE_CHECKING, Any, Final

import click

from corectl.cli.cobra import HOST_HELP, Command
from corectl.cli.failure import CliError, ServerError
from corectl.cli.text import as_text

if TYPE_CHECKING:
    from corectl.cli.client import Client

_THINK: Final[dict[str, bool | str]] = {
    "true": True,
    "false": False,
    "high": "high",
    "medium": "medium",
    "low": "low",
    "max": "max",
}
_SWITCH: Final = {"true": True, "false": False}
_NO_HISTORY: Final = ("OLLAMA_NOHISTORY", "Do not preserve readline history")


@click.command(
    "run",
    cls=Command,
    takes=(1, None),
    synopsis="MODEL [PROMPT]",
    variables=(HOST_HELP, _NO_HISTORY),
    bare={"--think": "true", "--truncate": "true"},
    help="Run a model",
)
@click.option("--keepalive", metavar="duration", help="Duration to keep a model loaded (e.g. 5m)")
@click.option("--verbose", is_flag=True, help="Show timings for response")
@click.option("--insecure", is_flag=True, help="Use an insecure registry")
@click.option("--nowordwrap", is_flag=True, help="Don't wrap words to the next line automatically")
@click.option("--format", "format_", help="Response format (e.g. json)")
@click.option("--think", help="Enable thinking mode: true/false or high/medium/low/max")
@click.option("--hidethinking", is_flag=True, help="Hide thinking output (if provided)")
@click.option("--truncate", metavar="bool", help="For embedding models: cut inputs that are too long")
@click.option("--dimensions", type=int, metavar="int", help="For embedding models: length of the vector")
@click.argument("args", nargs=-1)
def run(args: tuple[str, ...], **flags: Any) -> None:
    """Answers one prompt, or starts a conversation if there is none and input and output are a terminal."""
    think = _choice("--think", flags["think"], _THINK)
    truncate = _choice("--truncate", flags["truncate"], _SWITCH)
    keep_alive = _keep_alive(flags["keepalive"])
    model, *words = args
    interactive = not words and sys.stdin.isatty() and sys.stdout.isatty()

    from corectl.cli.client import connect

    client = connect()
    info = _show_or_start(client, model, insecure=flags["insecure"])
    if info.get("remote_host"):
        click.echo(_connecting(info), err=True)
    if "embedding" in (info.get("capabilities") or []):
        _embed(
            client, model, as_text(_prompt(words)), {"truncate": truncate, "dimensions": flags["dimensions"]}
        )
        return
    settings = {"format": _format(flags["format_"]), "think": think, "keep_alive": keep_alive}
    if interactive:
        _converse(client, model, info, settings, flags)
        return
    prompt = _prompt(words)
    if "vision" in (info.get("capabilities") or []):
        prompt, settings["images"] = _with_images(model, prompt)
    _answer(client, model, as_text(prompt), settings, flags)


def _format(text: str | None) -> Any:
    """What to send for --format: a JSON Schema as what it is, and `json` (or whatever the server may know) as text."""
    try:
        schema = json.loads(text or "")
    except (ValueError, RecursionError):
        return text
    return schema if isinstance(schema, dict) else text


def _choice(flag: str, value: str | None, choices: dict[str, Any]) -> Any:
    """The meaning of a flag's value; None where the flag was not given."""
    if value is None:
        return None
    if value not in choices:
        names = list(choices)
        listed = f"{', '.join(names[:-1])}{',' if len(names) > 2 else ''} or {names[-1]}"
        raise CliError(f'invalid value for {flag}: "{value}" (must be {listed})')
    return choices[value]


def _keep_alive(text: str | None) -> int | str | None:
    """A duration as the server takes it: text with a unit, or whole seconds."""
    if text is None:
        return None
    from corectl.duration import parse_duration

    try:
        parse_duration(text, bare_seconds=True)
    except ValueError as exc:
        raise CliError(str(exc)) from exc
    return int(text) if text.lstrip("+-").isdigit() else text


def _prompt(words: list[str]) -> str:
    """The words of the command line; what is piped in comes before them."""
    piped = "" if sys.stdin.isatty() else sys.stdin.buffer.read().decode("utf-8", "replace")
    return " ".join([piped, *words] if piped else words)


def _with_images(model: str, text: str) -> tuple[str, list[str] | None]:
    from corectl.cli.images import take_images

    prompt, images = take_images(text)
    if images and not prompt:
        raise CliError(f'say what to do with the image. Usage: corectl run {model} "describe ./image.png"')
    return prompt, images or None


def _show_or_start(client: Client, model: str, *, insecure: bool) -> dict[str, Any]:
    """What the server says about the model. Starts a server if none answers on this machine."""
    from corectl.cli.background import can_start, start_server

    try:
        return _show_or_pull(client, model, insecure=insecure)
    except ServerError as exc:
        if not exc.unreachable or not can_start(client.host):
            raise
    start_server(client)
    return _show_or_pull(client, model, insecure=insecure)


def _show_or_pull(client: Client, model: str, *, insecure: bool) -> dict[str, Any]:
    """The same, of a server that runs. A model that is not there is pulled."""
    from corectl.cli.steps import pull_model

    try:
        return client.post("/api/show", {"model": model})
    except ServerError as exc:
        if exc.status != 404:
            raise
    pull_model(client, model, insecure=insecure)
    return client.post("/api/show", {"model": model})


def _connecting(info: dict[str, Any]) -> str:
    host = str(info["remote_host"]).removeprefix("https://").removesuffix(":443")
    text = f"Connecting to '{info.get('remote_model', '')}' on '{host}'"
    return f"{text} ⚡" if host == "ollama.com" else text


def _embed(client: Client, model: str, text: str, settings: dict[str, Any]) -> None:
    """Prints the vector of a text as one line of JSON."""
    if not text:
        raise CliError(f'embedding models require input text. Usage: corectl run {model} "your text here"')
    body = {
        "model": model,
        "input": text,
        **{name: value for name, value in settings.items() if value is not None},
    }
    vectors = client.post("/api/embed", body).get("embeddings") or [[]]
    click.echo(json.dumps(vectors[0], separators=(",", ":")))


def _answer(client: Client, model: str, prompt: str, settings: dict[str, Any], flags: dict[str, Any]) -> None:
    from corectl.cli.answers import Answer, follow_answer, report
    from corectl.cli.writer import AnswerWriter

    given = {name: value for name, value in settings.items() if value is not None}
    answer = Answer()
    writer = AnswerWriter(wrap=not flags["nowordwrap"], hide_thinking=flags["hidethinking"])
    follow_answer(client.stream("/api/generate", {"model": model, "prompt": prompt, **given}), writer, answer)
    report(answer.final, verbose=flags["verbose"])


def _converse(
    client: Client, model: str, info: dict[str, Any], settings: dict[str, Any], flags: dict[str, Any]
) -> None:
    from corectl.cli.repl import converse
    from corectl.cli.session import Session

    session = Session(client, model, info, **settings)
    session.wrap = not flags["nowordwrap"]
    session.verbose = flags["verbose"]
    session.hide_thinking = flags["hidethinking"]
    if session.think and not session.thinks:
        click.echo(f'warning: model "{model}" does not support thinking output', err=True)
        session.think = None
    session.load()
    converse(session)

"""`corectl ps` and `stop`: the models that are loaded."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import click

from corectl.cli.cobra import Command
from corectl.cli.commands.models import unload
from corectl.cli.failure import CliError, ServerError
from corectl.cli.human import human_bytes, human_time, parse_time
from corectl.cli.tables import table


def processor(size: int, vram: int) -> str:
    """Which part of a model's memory lies where."""
    if size == 0 or vram > size:
        return "Unknown"
    if vram == 0:
        return "100% CPU"
    if vram == size:
        return "100% GPU"
    cpu = round((size - vram) / size * 100)
    return f"{cpu}%/{100 - cpu}% CPU/GPU"


def until(expires_at: str) -> str:
    """When a model will be unloaded."""
    time = parse_time(expires_at)
    return "Stopping..." if time and time < datetime.now(UTC) else human_time(time, "Never")


def running_table(models: list[dict[str, Any]], prefix: str = "", *, verbose: bool = False) -> str:
    """The loaded models whose name starts with `prefix`; if `verbose`, with what runs them and why."""
    rows = [
        (
            model["name"],
            model["digest"][:12],
            human_bytes(model["size"]),
            processor(model["size"], model.get("size_vram", 0)),
            str(model.get("context_length", 0)),
            until(model["expires_at"]),
            *(_backend(model.get("runner") or {}) if verbose else ()),
        )
        for model in models
        if model["name"].lower().startswith(prefix.lower())
    ]
    more = ("BACKEND", "WHY") if verbose else ()
    return table(("NAME", "ID", "SIZE", "PROCESSOR", "CONTEXT", "UNTIL", *more), rows)


def _backend(runner: dict[str, Any]) -> tuple[str, str]:
    """Other servers do not say."""
    if not runner.get("backend"):
        return "", ""
    return f"{runner['backend']} ({runner.get('variant', '')})", str(runner.get("backend_reason", ""))


@click.command("ps", cls=Command, takes=(0, None), help="List running models")
@click.option("-v", "--verbose", is_flag=True, help="Show the backend of each, and why it was chosen")
@click.argument("args", nargs=-1)
def ps(args: tuple[str, ...], verbose: bool) -> None:
    """Prints the table of loaded models."""
    from corectl.cli.client import connect

    models = connect().get("/api/ps")["models"]
    click.echo(running_table(models, args[0] if args else "", verbose=verbose), nl=False)


@click.command("stop", cls=Command, takes=(1, 1), synopsis="MODEL", help="Stop a running model")
@click.argument("args", nargs=-1)
def stop(args: tuple[str, ...]) -> None:
    """Unloads a model; says nothing when it worked."""
    from corectl.cli.client import connect

    try:
        unload(connect(), args[0])
    except ServerError as exc:
        if exc.status == 404:
            raise CliError(f'couldn\'t find model "{args[0]}" to stop') from exc
        raise

"""`corectl plan`: whether a model fits into memory, and what would lie where."""

from __future__ import annotations

import json
from collections.abc import Iterator
from typing import Any

import click

from corectl.cli.cobra import Command
from corectl.cli.human import human_bytes
from corectl.cli.tables import section, table

_COLUMNS = ("DEVICE", "LAYERS", "WEIGHTS", "CACHE", "COMPUTE", "TOTAL", "FREE")


@click.command(
    "plan",
    cls=Command,
    takes=(1, 1),
    synopsis="MODEL",
    help="Show whether a model fits into memory, and where it would go",
)
@click.option("--ctx", type=int, metavar="int", help="Context length to plan with")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
@click.argument("args", nargs=-1)
def plan(args: tuple[str, ...], ctx: int | None, as_json: bool) -> None:
    """Prints how the server would load a model now, without loading it."""
    from corectl.cli.client import connect

    options = {} if ctx is None else {"num_ctx": ctx}
    found = connect().post("/api/plan", {"model": args[0], "options": options})
    click.echo(json.dumps(found, indent=2) + "\n" if as_json else "".join(_text(found, ctx)), nl=False)


def _text(found: dict[str, Any], ctx: int | None) -> Iterator[str]:
    """A section about the model, warnings, and a line for each device."""
    yield section("Plan", list(_summary(found, ctx)))
    for warning in found.get("warnings", ()):
        yield f"  Warning: {warning['message']}\n\n"
    if found["devices"]:
        yield table(_COLUMNS, [_row(device) for device in found["devices"]])


def _summary(found: dict[str, Any], ctx: int | None) -> Iterator[tuple[str, str]]:
    yield "fits", _fits(found)
    other = f" instead of {ctx}" if ctx not in (None, found["num_ctx"]) else ""
    yield "context length", f"{found['num_ctx']}{other}"
    yield "largest context", str(found["largest_num_ctx"] or "none fits")
    if found["devices"]:
        yield "tokens in memory", str(found["cells"])
        yield "parallel", str(found["parallel"])
        yield "saved prompts", f"up to {human_bytes(found['cache_memory'])} of memory besides"


def _fits(found: dict[str, Any]) -> str:
    if found.get("reason"):
        return f"no: {found['reason']}"
    if not found["fits"]:
        return "no: it is larger than the memory that is free"
    return "yes, when other models have been unloaded" if found["evicts"] else "yes"


def _row(device: dict[str, Any]) -> tuple[str, ...]:
    sizes = (device[part] for part in ("weights", "cache", "compute", "estimated", "free"))
    return (device["id"], str(device["layers"]), *map(human_bytes, sizes))

"""`corectl verify`: whether the files of the model store are what they were."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import closing
from typing import Any

import click

from corectl.cli.cobra import Command
from corectl.cli.failure import CliError
from corectl.cli.human import human_bytes


@click.command(
    "verify",
    cls=Command,
    takes=(0, None),
    synopsis="[MODEL...]",
    help="Check the files of models, or of the whole store",
)
@click.argument("args", nargs=-1)
def verify(args: tuple[str, ...]) -> None:
    """Has the server read everything again; prints what is wrong, and fails if anything is."""
    from corectl.cli.client import connect
    from corectl.cli.progress import Progress

    found: dict[str, Any] = {}
    with Progress() as progress, closing(connect().stream("/api/verify", {"models": args})) as steps:
        for step in steps:
            if "problems" in step:
                found = step
            else:
                share = step.get("completed", 0) * 100 // max(step.get("total", 0), 1)
                progress.status(f"{step['status'][:31]} {share}%", key="verify")
    if not found:
        raise CliError("the server ended its reply before everything was verified")
    click.echo("".join(_text(found["problems"])), nl=False)
    if found["problems"]:
        count = len(found["problems"])
        raise CliError(f"{count} {'problem' if count == 1 else 'problems'} in the model store")
    click.echo(f"verified {found['blobs']} files, {human_bytes(found['bytes'])}: no problems")


def _text(problems: Iterable[dict[str, Any]]) -> Iterator[str]:
    for problem in problems:
        yield f"{problem['kind']}: {problem['digest'] or 'the manifest of ' + problem['models'][0]}\n"
        if problem["digest"] and problem["models"]:
            yield f"    needed by {', '.join(problem['models'])}\n"
        yield f"    {problem['detail']}\n"
        yield f"    {problem['remedy']}\n"

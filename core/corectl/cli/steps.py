"""Requests that report their steps (create, pull, push), and how those are shown."""

from __future__ import annotations

from contextlib import closing
from typing import Any

from corectl.cli.client import Client
from corectl.cli.failure import CliError
from corectl.cli.progress import Progress


def follow(client: Client, path: str, body: dict[str, Any], progress: Progress) -> None:
    """Sends the request and shows what the server says it does.

    Raises `ServerError` for an error in the stream, and `CliError` if it ends before `success`.
    """
    last = ""
    # Closing the stream is what tells the server to stop.
    with closing(client.stream(path, {**body, "stream": True})) as steps:
        for step in steps:
            last = str(step.get("status", ""))
            completed, total = int(step.get("completed") or 0), int(step.get("total") or 0)
            if total and completed:
                progress.transfer(last, total, completed)
            elif last and not total:
                progress.status(last)
    if last != "success":
        raise CliError("the server ended its reply before the model was complete")


def pull_model(client: Client, model: str, *, insecure: bool = False) -> None:
    """Has the server download a model, and shows how far it is."""
    with Progress() as progress:
        follow(client, "/api/pull", {"model": model, "insecure": insecure}, progress)

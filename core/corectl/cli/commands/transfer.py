"""`corectl pull` and `corectl push`: models from and to registries."""

from __future__ import annotations

from typing import TYPE_CHECKING, Final

import click

from corectl.cli.cobra import Command
from corectl.cli.failure import CliError, ServerError

if TYPE_CHECKING:
    from corectl.cli.client import Client

_HUB: Final = "https://ollama.com/"
"""Where the models of the default registry can be looked at."""


@click.command("pull", cls=Command, takes=(1, 1), synopsis="MODEL", help="Pull a model from a registry")
@click.option("--insecure", is_flag=True, help="Use an insecure registry")
@click.argument("args", nargs=-1)
def pull(args: tuple[str, ...], insecure: bool) -> None:
    """Downloads a model, or what has changed of it."""
    from corectl.cli.client import connect
    from corectl.cli.steps import pull_model

    pull_model(connect(), args[0], insecure=insecure)


@click.command("push", cls=Command, takes=(1, 1), synopsis="MODEL", help="Push a model to a registry")
@click.option("--insecure", is_flag=True, help="Use an insecure registry")
@click.argument("args", nargs=-1)
def push(args: tuple[str, ...], insecure: bool) -> None:
    """Uploads a model, and says where it is then."""
    from corectl.cli.client import connect
    from corectl.cli.progress import Progress
    from corectl.cli.steps import follow

    model, client = args[0], connect()
    try:
        with Progress() as progress:
            follow(client, "/api/push", {"model": model, "insecure": insecure}, progress)
    except ServerError as exc:
        raise _refused(client, model, exc) from exc
    if page := _page(model):
        click.echo(f"\nYou can find your model at:\n\n\t{page}")


def _refused(client: Client, model: str, error: ServerError) -> CliError:
    """What to do about a registry that does not let this user in; other errors as they are."""
    text = error.message.lower()
    if not ("access denied" in text or "unauthorized" in text) or not _page(model):
        return error
    advice = "you are not authorized to push to this namespace, create the model under a namespace you own"
    try:
        client.post("/api/me", {})
    except ServerError as exc:
        if exc.signin_url:
            advice += f"\n\nIf your account does not know this server's key yet, open:\n    {exc.signin_url}"
    return CliError(advice)


def _page(model: str) -> str:
    """The page of a model of the default registry; empty for one that goes elsewhere."""
    from corectl.model.name import DEFAULT_HOST, DEFAULT_TAG, ModelName

    name = ModelName.parse(model)
    if name.host != DEFAULT_HOST:
        return ""
    return _HUB + name.short.removesuffix(f":{DEFAULT_TAG}")

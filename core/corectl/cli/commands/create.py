"""`corectl create`: a model from a Modelfile."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any, Final

import click

from corectl.cli.cobra import Command
from corectl.cli.failure import CliError

if TYPE_CHECKING:
    from collections.abc import Sequence

    from corectl.cli.sources import Sender
    from corectl.model.modelfile import Command as Line

_SOURCES: Final = {"model": "files", "adapter": "adapters", "draft": "draft_files"}
"""Lines that may name files, and the key of the request in which those go."""

_TEXTS: Final = frozenset({"template", "system", "renderer", "parser", "requires"})


@click.command("create", cls=Command, takes=(1, 1), synopsis="MODEL", help="Create a model")
@click.option("-f", "--file", default="Modelfile", help='Name of the Modelfile (default "Modelfile")')
@click.option("-q", "--quantize", default="", help="Quantize model to this level (e.g. q4_K_M)")
@click.option("--draft-quantize", default="", help="Quantize draft model to this level")
@click.option("--in-place", is_flag=True, help="Use files where they lie, instead of copies or links")
@click.argument("args", nargs=-1)
def create(args: tuple[str, ...], file: str, quantize: str, draft_quantize: str, in_place: bool) -> None:
    """Sends the files that the Modelfile names, or links them; then has the server make the model."""
    from corectl.cli.client import connect
    from corectl.cli.progress import Progress
    from corectl.cli.sources import Sender
    from corectl.cli.steps import follow

    name = args[0]
    if not is_model_name(name):
        raise CliError(f"invalid model name: {name}")
    path = Path(file).expanduser()
    lines = _read(path)
    client = connect()
    with Progress() as progress:
        progress.status("gathering model components")
        if not lines:
            raise CliError("no Modelfile or safetensors files found")
        body = request(lines, path.parent, Sender(client, progress, in_place=in_place))
        body["model"] = name
        if in_place:
            body["in_place"] = True
        if quantize:
            body["quantize"] = quantize
        if draft_quantize:
            body["draft_quantize"] = draft_quantize
        follow(client, "/api/create", body, progress)


def is_model_name(text: str) -> bool:
    """Whether `text` can be the name of a model."""
    from corectl.errors import BadRequest
    from corectl.model.name import ModelName

    try:
        ModelName.parse(text)
    except BadRequest:
        return False
    return True


def _read(path: Path) -> list[Line]:
    """The lines of the Modelfile; none where there is no such file."""
    from corectl.model.modelfile import parse

    try:
        return list(parse(path.read_bytes()))
    except FileNotFoundError:
        return []
    except OSError as exc:
        raise CliError(f"cannot read {path}: {exc.strerror}") from exc


def request(lines: Sequence[Line], base: Path, sender: Sender) -> dict[str, Any]:
    """The body of the create request, without the model's name. Files are sent on the way."""
    from corectl.model.modelfile import format_parameters

    body: dict[str, Any] = {}
    parameters: list[tuple[str, str]] = []
    for line in lines:
        if line.name in _SOURCES:
            _add_source(body, line, base, sender)
        elif line.name in _TEXTS:
            body[line.name] = line.args
        elif line.name == "license":
            body.setdefault("license", []).append(line.args)
        elif line.name == "message":
            role, _, content = line.args.partition(": ")
            body.setdefault("messages", []).append({"role": role, "content": content})
        else:
            parameters.append((line.name, line.args))
    if parameters:
        body["parameters"] = format_parameters(parameters)
    return body


def _add_source(body: dict[str, Any], line: Line, base: Path, sender: Sender) -> None:
    from corectl.cli.sources import files_of, find_source

    source = find_source(line.args, base)
    if source is not None:
        known = body.setdefault(_SOURCES[line.name], {})
        for name, digest in sender.send(files_of(source)).items():
            # Two files of one name in two folders are two files.
            known[f"{len(known)}/{name}" if name in known else name] = digest
    elif line.name == "model" and "from" in body:
        raise CliError(f"only one FROM can name a model, not both {body['from']} and {line.args}")
    elif line.name == "model":
        body["from"] = line.args
    else:
        raise CliError(f"{line.name} {line.args}: no such file or directory")

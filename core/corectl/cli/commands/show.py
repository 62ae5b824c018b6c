"""`corectl show`: what a model is made of."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any, Final

import click

from corectl.cli.cobra import Command
from corectl.cli.failure import CliError
from corectl.cli.human import go_value, human_number
from corectl.cli.tables import section, text_width

_ONE_FLAG: Final = (
    "only one of '--license', '--modelfile', '--parameters', '--system', or '--template' can be specified"
)
_TEXT_LINES: Final = 2
"""Lines of a system message or a licence that the table shows."""

_ARRAY_COLUMNS: Final = 10
"""Columns after which the items of an array are only counted; the first item is always shown."""


@click.command("show", cls=Command, takes=(1, 1), synopsis="MODEL", help="Show information for a model")
@click.option("--license", "license_", is_flag=True, help="Show license of a model")
@click.option("--modelfile", is_flag=True, help="Show Modelfile of a model")
@click.option("--parameters", is_flag=True, help="Show parameters of a model")
@click.option("--system", is_flag=True, help="Show system message of a model")
@click.option("--template", is_flag=True, help="Show template of a model")
@click.option("-v", "--verbose", is_flag=True, help="Show detailed model information")
@click.argument("args", nargs=-1)
def show(args: tuple[str, ...], verbose: bool, license_: bool, **flags: bool) -> None:
    """Prints one part of a model, or a summary of all."""
    from corectl.cli.client import connect

    parts = [name for name, wanted in {"license": license_, **flags}.items() if wanted]
    if len(parts) > 1:
        raise CliError(_ONE_FLAG)
    client = connect()
    info = client.post("/api/show", {"model": args[0], "verbose": verbose})
    if parts:
        # System and template go out byte for byte, so that they can be piped into a file and back.
        click.echo(info.get(parts[0], ""), nl=parts[0] not in ("system", "template"))
    else:
        click.echo("".join(summary(info, verbose=verbose)), nl=False)


def summary(info: dict[str, Any], *, verbose: bool = False) -> Iterator[str]:
    """The sections of the summary, in order; those without content are left out."""
    yield section("Model", model_rows(info))
    if info.get("capabilities"):
        yield section("Capabilities", [(name,) for name in info["capabilities"]])
    if info.get("projector_info"):
        yield section("Projector", _projector_rows(info["projector_info"]))
    if info.get("parameters"):
        yield section("Parameters", _parameter_rows(info["parameters"]))
    if verbose and info.get("model_info"):
        rows = [(key, _metadata(value)) for key, value in sorted(info["model_info"].items())]
        yield section("Metadata", rows)
    if verbose and info.get("tensors"):
        yield section("Tensors", [(t["name"], t["type"], go_value(t["shape"])) for t in info["tensors"]])
    if info.get("system"):
        yield section("System", _first_lines(info["system"]))
    if info.get("license"):
        yield section("License", _first_lines(info["license"]))


def model_rows(info: dict[str, Any]) -> list[tuple[str, str]]:
    """The rows about the model itself. A model without metadata (a remote one) has only its details."""
    details: dict[str, Any] = info.get("details") or {}
    metadata: dict[str, Any] = info.get("model_info") or {}
    rows: list[tuple[str, str]] = []
    if info.get("remote_host"):
        rows += [("Remote model", info.get("remote_model", "")), ("Remote URL", info["remote_host"])]
    if not metadata:
        rows.append(("architecture", details.get("family", "")))
        rows.append(("parameters", details.get("parameter_size", "")))
    else:
        architecture = str(metadata.get("general.architecture", ""))
        rows.append(("architecture", architecture))
        count = metadata.get("general.parameter_count")
        size = details.get("parameter_size") or (human_number(int(count)) if count is not None else "")
        if size:
            rows.append(("parameters", size))
        for title in ("context length", "embedding length"):
            value = metadata.get(f"{architecture}.{title.replace(' ', '_')}")
            if isinstance(value, int | float):
                rows.append((title, str(int(value))))
    rows.append(("quantization", details.get("quantization_level", "")))
    if backend := info.get("backend"):
        variant = f" ({backend['variant']})" if backend.get("variant") else ""
        name = f"{backend['name']}{variant}" if backend.get("name") else "none"
        rows.append(("backend", f"{name}: {backend['reason']}"))
    if info.get("requires"):
        rows.append(("requires", info["requires"]))
    return rows


def _projector_rows(metadata: dict[str, Any]) -> list[tuple[str, str]]:
    architecture = str(metadata.get("general.architecture", ""))
    rows = [("architecture", architecture)]
    if (count := metadata.get("general.parameter_count")) is not None:
        rows.append(("parameters", human_number(int(count))))
    for title, key in (("embedding length", "embedding_length"), ("dimensions", "projection_dim")):
        for side in ("vision", "audio"):
            value = metadata.get(f"{architecture}.{side}.{key}")
            if isinstance(value, int | float):
                rows.append((title, str(int(value))))
                break
    return rows


def _parameter_rows(text: str) -> list[tuple[str, str]]:
    pairs = [line.split(None, 1) for line in text.splitlines() if line.strip()]
    return [(pair[0], pair[1] if len(pair) > 1 else "") for pair in pairs]


def _first_lines(text: str) -> list[tuple[str]]:
    lines = [line.strip() for line in text.splitlines() if line.strip()]
    more = [("...",)] if len(lines) > _TEXT_LINES else []
    return [(line,) for line in lines[:_TEXT_LINES]] + more


def _metadata(value: Any) -> str:
    """A metadata value; of a long array as many items as fit, and how many more there are."""
    if not isinstance(value, list) or not value:
        return go_value(value)
    shown, width = 0, 1
    for item in value:
        width += text_width(go_value(item)) + (2 if shown else 0)
        if width > _ARRAY_COLUMNS and shown:
            break
        shown += 1
    if shown == len(value):
        return go_value(value)
    return f"{go_value(value[:shown])[:-1]} ...+{len(value) - shown} more]"

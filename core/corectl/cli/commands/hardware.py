"""`corectl hardware`: what computes on this machine, and what keeps a device from being used."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Mapping, Sequence
from typing import TYPE_CHECKING, Final

import click

from corectl.cli.cobra import Command
from corectl.cli.human import human_bytes
from corectl.cli.tables import section, table

if TYPE_CHECKING:
    from corectl.hardware.device import Device
    from corectl.hardware.survey import BackendSurvey, Survey

_VARIABLES: Final = (
    ("CUDA_VISIBLE_DEVICES", "NVIDIA GPUs to use, by index or UUID"),
    ("ROCR_VISIBLE_DEVICES", "AMD GPUs to use, by index or UUID"),
    ("HIP_VISIBLE_DEVICES", "AMD GPUs to use, of those that are left, by index"),
    ("GPU_DEVICE_ORDINAL", "AMD GPUs to use, of those that are left, by index"),
    ("HSA_OVERRIDE_GFX_VERSION", "Target that ROCm takes AMD GPUs for (e.g. 10.3.0)"),
    ("OLLAMA_LLM_LIBRARY", "Kind of device to compute on, instead of the best"),
    ("CORECTL_DISABLED_PLUGINS", "A comma separated list of plugins to leave out"),
)
_DEVICES: Final = ("DEVICE", "KIND", "NAME", "ARCHITECTURE", "MEMORY", "FREE", "DRIVER", "PROBE")
_BACKENDS: Final = ("BACKEND", "VERSION", "COMPUTES ON", "DEVICES")


@click.command("hardware", cls=Command, variables=_VARIABLES, help="Show what computes on this machine")
@click.option("--json", "as_json", is_flag=True, help="Print JSON")
@click.argument("args", nargs=-1)
def hardware(args: tuple[str, ...], as_json: bool) -> None:
    """Asks the probes and the backends in this process, as a server with the same settings would."""
    import msgspec

    from corectl.config import load
    from corectl.hardware.survey import survey
    from corectl.plugins import PluginHost
    from corectl.plugins.forks import forks_refused

    settings = load()
    with forks_refused():
        host = PluginHost.load(settings)
        found = survey(host.probes, host.backends, settings.llm_library)
    if as_json:
        click.echo(msgspec.json.format(msgspec.json.encode(found), indent=2))
    else:
        click.echo("".join(_text(found, sorted(host.probes))), nl=False)


def _text(found: Survey, probes: Sequence[str]) -> Iterator[str]:
    """A table of devices with what is wrong with each, facts, and a table of backends."""
    yield from _table(_DEVICES, map(_device_row, found.devices), map(_device_notes, found.devices))
    if all(device.kind == "cpu" for device in found.devices):
        answered = ", ".join(name for name in probes if name not in found.failures) or "none"
        yield f"\nNo GPU was found. These probes were asked{' and answered' if found.failures else ''}: {answered}\n"
    for name, failure in found.failures.items():
        yield f"\nThe probe {name} failed, so what it knows of may be there and is not used: {failure}\n"
    for name, facts in found.facts.items():
        if facts:
            yield "\n" + section(name.capitalize(), list(facts.items())).removesuffix("\n")
    if found.backends:
        yield "\n"
        said = {device.id: device.unusable for device in found.devices}
        rows = ((b.name, b.version, b.variant, ", ".join(b.devices)) for b in found.backends)
        yield from _table(_BACKENDS, rows, (_backend_notes(backend, said) for backend in found.backends))
    for backend in found.backends:
        if backend.facts:
            yield "\n" + section(backend.name.capitalize(), list(backend.facts.items())).removesuffix("\n")


def _table(
    header: Sequence[str], rows: Iterable[Sequence[str]], notes: Iterable[Iterable[str]]
) -> Iterator[str]:
    """A table whose rows have lines of their own below them."""
    head, *lines = table(header, list(rows)).splitlines(keepends=True)
    yield head
    for line, below in zip(lines, notes, strict=True):
        yield line
        yield from (f"    {note}\n" for note in below)


def _device_row(device: Device) -> tuple[str, ...]:
    sizes = human_bytes(device.memory_total), human_bytes(device.memory_free)
    return (
        *(device.id, device.kind, device.name, device.architecture),
        *(*sizes, device.driver, device.found_by),
    )


def _device_notes(device: Device) -> Iterator[str]:
    if device.unusable:
        yield f"not used: {device.unusable}"
        yield f"remedy: {device.remedy or 'none is known'}"
    if device.also:
        yield f"can {'still' if device.unusable else 'also'} be used by: {', '.join(device.also)}"
    if device.integrated:
        yield "shares the machine's memory"
    if device.alone:
        yield "does not compute together with others"


def _backend_notes(backend: BackendSurvey, said: Mapping[str, str]) -> Iterator[str]:
    """Why it uses nothing at all, or not all devices. What is said of a device itself is not said again."""
    if backend.reason:
        yield f"not usable here: {backend.reason}"
    for unused in backend.unused:
        if unused.reason != said[unused.id]:
            yield f"not {unused.id}: {unused.reason}"
            yield f"remedy: {unused.remedy or 'none is known'}"

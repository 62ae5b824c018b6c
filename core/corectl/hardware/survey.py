"""All that can be said of a machine for people: its devices, and which backend can use which of them."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from functools import partial
from typing import TYPE_CHECKING

import msgspec

from corectl.deadline import Deadline, Overdue, described
from corectl.hardware.device import DetailedProbe, Device, HardwareProbe
from corectl.hardware.eligible import judge
from corectl.hardware.inventory import Inventory

if TYPE_CHECKING:
    from corectl.runner.engine import Backend


class Unused(msgspec.Struct, frozen=True):
    """A device that a backend does not use: why, and what to type or change."""

    id: str
    reason: str
    remedy: str


class BackendSurvey(msgspec.Struct, frozen=True, kw_only=True):
    """What one backend can use here, by ids. `reason` says why it cannot be used at all, `facts` what else it knows."""

    name: str
    version: str = ""
    variant: str = ""
    reason: str = ""
    devices: tuple[str, ...] = ()
    unused: tuple[Unused, ...] = ()
    facts: Mapping[str, str] = {}


class Survey(msgspec.Struct, frozen=True, kw_only=True):
    """`failures` are those of probes, and `facts` what probes know besides their devices, by their names."""

    devices: tuple[Device, ...]
    failures: Mapping[str, str]
    facts: Mapping[str, Mapping[str, str]]
    backends: tuple[BackendSurvey, ...]


def survey(probes: Mapping[str, HardwareProbe], backends: Mapping[str, Backend], library: str) -> Survey:
    """Asks all of them, each with a limit of time. What fails is in the result. `library` is the operator's choice."""
    inventory = Inventory(probes, library)
    devices = inventory.probe()
    failures = dict(inventory.failures)
    facts: dict[str, Mapping[str, str]] = {}
    for name, probe in sorted(probes.items()):
        if not isinstance(probe, DetailedProbe) or name in failures:
            continue
        try:
            facts[name] = Deadline(f"hardware probe {name}").call(probe.details)
        except Overdue as exc:
            failures[name] = str(exc)
        except Exception as exc:
            failures[name] = described(exc)
    return Survey(
        devices=devices,
        failures=failures,
        facts=facts,
        backends=tuple(_backend(backend, devices, library) for _, backend in sorted(backends.items())),
    )


def _backend(backend: Backend, devices: Sequence[Device], library: str) -> BackendSurvey:
    found = partial(BackendSurvey, name=backend.name)
    try:
        said = Deadline(f"backend {backend.name}").call(backend.availability)
    except Overdue as exc:
        return found(reason=str(exc))
    except Exception as exc:
        return found(reason=f"availability() raised {described(exc)}")
    if not said.usable:
        return found(version=said.version, variant=said.variant, reason=said.reason)
    verdicts = judge(devices, variant=said.variant, library=library)
    return found(
        version=said.version,
        variant=said.variant,
        devices=tuple(verdict.device.id for verdict in verdicts if not verdict.reason),
        unused=tuple(Unused(v.device.id, v.reason, v.remedy) for v in verdicts if v.reason),
        facts=_facts(backend),
    )


def _facts(backend: Backend) -> Mapping[str, str]:
    from corectl.runner.engine import DetailedBackend

    if not isinstance(backend, DetailedBackend):
        return {}
    try:
        return Deadline(f"backend {backend.name}").call(backend.details)
    except Overdue as exc:
        return {"failed": str(exc)}
    except Exception as exc:
        return {"failed": described(exc)}

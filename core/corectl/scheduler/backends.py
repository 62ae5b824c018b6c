"""Which backend loads a model: an explicit rule, the same whatever the order of installation."""

from __future__ import annotations

from collections.abc import Mapping, Sequence, Set
from fnmatch import fnmatchcase
from functools import cached_property

import msgspec

from corectl.config import Settings
from corectl.deadline import Deadline, Overdue, described
from corectl.errors import NotSupported
from corectl.hardware.device import Device
from corectl.hardware.eligible import KINDS
from corectl.messages import LoadOptions, Notice
from corectl.model.name import ModelName
from corectl.runner.engine import Availability, Backend


class Wanted(msgspec.Struct, frozen=True):
    """The backend that somebody has named, and where; empty if nobody has."""

    name: str = ""
    by: str = ""


NOBODY = Wanted()


class Candidate(msgspec.Struct, frozen=True):
    """A backend that can be used here, and whether it computes on an accelerator that is there."""

    backend: Backend
    accelerated: bool


class Choice(msgspec.Struct, frozen=True, kw_only=True):
    """A backend, and why it was chosen, for people. `variant` and `ignores` are what it says of itself.

    `named`: somebody has asked for it, be it in a request, a model or a setting, so that no other one will do.
    """

    backend: Backend
    variant: str
    reason: str
    named: bool = False
    ignores: tuple[str, ...] = ()

    def ignored(self, options: LoadOptions, settings: Settings) -> tuple[Notice, ...]:
        """A notice for each option that was given, and each setting that was changed, and has no effect here."""
        given = [name for name in LoadOptions.__struct_fields__ if getattr(options, name) is not None]
        changed = ("flash_attention", "kv_cache_type", "numa")
        given += [name for name in changed if settings.source(name) != "default"]
        message = f"the backend {self.backend.name} cannot do anything with it"
        return tuple(
            Notice(code="option_ignored", message=f"{name} has no effect: {message}")
            for name in given
            if name in self.ignores
        )


def wanted_backend(settings: Settings, name: ModelName, option: str | None) -> Wanted:
    """What the user has said, the most special first: `option` of request or model, the model's name, the server."""
    if option:
        return Wanted(option, 'option "backend"')
    names = {name.short.lower(), name.short.lower().rpartition(":")[0], name.model.lower()}
    for pattern, backend in settings.backends.items():
        if any(fnmatchcase(text, pattern.lower()) for text in names):
            return Wanted(backend, f"setting for models like {pattern!r} ({settings.source('backends')})")
    if settings.backend:
        return Wanted(settings.backend, f'setting "backend" ({settings.source("backend")})')
    return NOBODY


class Backends:
    """The backends of one server. What they say of themselves is asked for once."""

    def __init__(self, backends: Mapping[str, Backend]) -> None:
        self._backends = dict(backends)

    def ask(self) -> None:
        """Asks all backends what they can, unless they were asked. For worker threads: a plugin may take its time."""
        _ = self._availability

    @property
    def asked(self) -> bool:
        """Whether what they can is known, so that a choice takes no time."""
        return "_availability" in self.__dict__

    @cached_property
    def _availability(self) -> dict[str, Availability]:
        return {name: _availability(backend) for name, backend in self._backends.items()}

    def choose(
        self,
        *,
        format: str,
        wanted: Wanted = NOBODY,
        devices: Sequence[Device] = (),
        adapters: bool = False,
    ) -> Choice:
        """The backend that is wanted, if it can; else the best that loads the format and is usable here.

        With `adapters` it must apply those of the model. Best is one that computes on an accelerator that is there,
        then the one that names the format earliest among its own, then the first by name. Raises `NotSupported` that
        says what to type.
        """
        if wanted.name:
            return self._named(format, wanted, adapters)
        usable = self.candidates(format=format, devices=devices, adapters=adapters)
        if not usable:
            raise NotSupported(self.none_for(format, adapters=adapters))
        best = usable[0]
        if len(usable) == 1:
            reason = f"the only backend here that loads {format}"
        elif best.accelerated and not usable[1].accelerated:
            reason = (
                f"of those that load {format}, it computes on {self._availability[best.backend.name].variant}"
            )
        else:
            reason = f"the first of {', '.join(item.backend.name for item in usable)}, which load {format}"
        return self._choice(best.backend, reason)

    def candidates(
        self, *, format: str, devices: Sequence[Device] = (), adapters: bool = False
    ) -> list[Candidate]:
        """The backends that load the format and are usable here, best first."""
        kinds: set[str] = {way for device in devices if device.kind != "cpu" for way in device.ways}
        found = [
            Candidate(backend, self._accelerated(backend, kinds))
            for backend in self._backends.values()
            if format in backend.formats and not self._why_not(backend, adapters)
        ]

        def rank(item: Candidate) -> tuple[bool, int, str]:
            return not item.accelerated, item.backend.formats.index(format), item.backend.name

        return sorted(found, key=rank)

    def loads(self, name: str, format: str) -> bool:
        """Whether there is a backend of this name that loads the format, usable or not."""
        backend = self._backends.get(name)
        return backend is not None and format in backend.formats

    def _accelerated(self, backend: Backend, kinds: Set[str]) -> bool:
        variant = self._availability[backend.name].variant
        return KINDS.get(variant, variant) in kinds

    def _why_not(self, backend: Backend, adapters: bool) -> str:
        """Why it cannot load a model, with adapters or without; empty if it can."""
        says = self._availability[backend.name]
        if says.reason or says.adapters or not adapters:
            return says.reason
        return "it cannot apply the adapter that the model has"

    def _named(self, format: str, wanted: Wanted, adapters: bool) -> Choice:
        backend = self._backends.get(wanted.name)
        if backend is None:
            known = ", ".join(sorted(self._backends)) or "none"
            raise NotSupported(f"there is no backend {wanted.name!r}; installed: {known}")
        reason = self._why_not(backend, adapters)
        if reason:
            raise NotSupported(f"backend {wanted.name!r} cannot be used here: {reason}")
        if format not in backend.formats:
            raise NotSupported(
                f"backend {wanted.name!r} loads {', '.join(backend.formats)} models, this one is {format!r}; "
                f"leave out the {wanted.by} to let corectl choose"
            )
        return self._choice(backend, f"named by the {wanted.by}", named=True)

    def none_for(self, format: str, *, adapters: bool = False) -> str:
        """Why no backend loads a format here, for people."""
        loading = [backend for backend in self._backends.values() if format in backend.formats]
        reasons = [f"{item.name}: {self._why_not(item, adapters)}" for item in loading]
        if reasons:
            return f"no backend for {format} models can be used here ({'; '.join(sorted(reasons))})"
        return f"no installed backend loads {format!r} models; see 'corectl plugins'"

    def _choice(self, backend: Backend, reason: str, *, named: bool = False) -> Choice:
        says = self._availability[backend.name]
        return Choice(backend=backend, variant=says.variant, reason=reason, named=named, ignores=says.ignores)


def _availability(backend: Backend) -> Availability:
    """What a backend says. One that cannot even say so does not spoil the choice of another."""
    try:
        return Deadline("availability()").call(backend.availability)
    except Overdue as exc:
        return Availability(reason=str(exc))
    except Exception as exc:
        return Availability(reason=f"availability() raised {described(exc)}")

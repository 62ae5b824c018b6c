"""Reads every blob of a store again, and says what is wrong, with which models, and what to do about it."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import msgspec

from corectl.errors import BadModelFile, BadRequest, Busy, NotFound
from corectl.model.name import ModelName
from corectl.progress import Progress, Report
from corectl.store.catalog import Catalog
from corectl.store.local_file import LocalFile
from corectl.store.references import Reference

_STEP = 64 << 20
"""Bytes after which it is said how far a blob is."""


class Problem(msgspec.Struct, frozen=True, kw_only=True):
    """One thing that is wrong. `kind` is `damaged`, `missing`, `unreadable`, `changed` or `manifest`.

    `digest` is that of the blob, and empty for a manifest; `models` are the names of those that need it.
    """

    kind: str
    digest: str = ""
    detail: str
    models: tuple[str, ...] = ()
    remedy: str


class Verified(msgspec.Struct, frozen=True, kw_only=True):
    """What was looked at, in blobs and in bytes, and what was found."""

    blobs: int
    bytes: int
    problems: tuple[Problem, ...]


def verify(catalog: Catalog, names: Sequence[ModelName], report: Report) -> Verified:
    """Checks the blobs of some models, or every blob if no names are given. Takes about as long as reading them.

    The store may be used and changed meanwhile. A file elsewhere that has another time, but the bytes that it had, is
    taken for sound from then on. What `report` raises ends it. Raises `NotFound` for a name that is not in the store,
    `Busy` if the store is being verified already, and `OSError`.
    """
    if not catalog.verifying.acquire(blocking=False):
        raise Busy("the model store is being verified already; try again when that has ended")
    try:
        return _verify(catalog, names, report)
    finally:
        catalog.verifying.release()


def _verify(catalog: Catalog, names: Sequence[ModelName], report: Report) -> Verified:
    for name in names:
        if catalog.manifests.locate(name) is None:
            raise NotFound(f"model '{name.short}' not found")
    users, problems = _users(catalog, names)
    every = [] if names else catalog.blobs.digests()
    wanted = dict.fromkeys([*users, *every])
    found, size = [], 0
    for digest in wanted:
        try:
            size += _read(catalog, digest, report)
        except _Wrong as exc:
            found.append((digest, exc))
    # What was removed while others were read is missing to nobody.
    users = _users(catalog, names)[0] if found else {}
    problems += [_problem(digest, wrong, users.get(digest, [])) for digest, wrong in found]
    kept = tuple(problem for problem in problems if problem.models or problem.kind == "damaged")
    return Verified(blobs=len(wanted), bytes=size, problems=kept)


def _users(catalog: Catalog, names: Sequence[ModelName]) -> tuple[dict[str, list[str]], list[Problem]]:
    """The models that need each blob, and the manifests that cannot be read."""
    users: dict[str, list[str]] = {}
    problems = []
    for name in names or catalog.manifests.names():
        try:
            stored = catalog.manifests.read(name)
        except NotFound:  # deleted meanwhile
            continue
        except BadModelFile as exc:
            problems.append(_broken(name, exc.message))
        except OSError as exc:
            problems.append(_broken(name, f"the manifest cannot be read: {exc.strerror}"))
        else:
            for digest in dict.fromkeys(stored.digests):
                users.setdefault(digest, []).append(stored.name.short)
    return users, problems


class _Wrong(Exception):
    """What is wrong with a blob."""

    def __init__(self, kind: str, detail: str) -> None:
        super().__init__(detail)
        self.kind = kind
        self.detail = detail


def _read(catalog: Catalog, digest: str, report: Report) -> int:
    """The size of a sound blob, in bytes. Raises `_Wrong`."""
    path = catalog.blobs.path_of(digest)
    reference = catalog.blobs.references.find(path)
    try:
        with LocalFile.open(path) as file:
            found = file.digest(_steps(digest, file.size, report))
            if found == digest:
                if reference is not None:
                    _renew(catalog, digest, file, reference)
                return file.size
    except FileNotFoundError:
        detail = "its file is not there" if reference is None else reference.problem
        raise _Wrong("missing", detail) from None
    except OSError as exc:
        raise _Wrong("unreadable", f"its file cannot be read: {exc.strerror}") from None
    except BadRequest as exc:
        raise _Wrong("unreadable", exc.message) from None
    if reference is not None:
        raise _Wrong(
            "changed", f"the file {reference.path}, which is used where it lies, has other bytes now"
        )
    raise _Wrong("damaged", f"the digest of its bytes is {found}")


def _renew(catalog: Catalog, digest: str, file: LocalFile, reference: Reference) -> None:
    """The reference to a file as it is now; nothing is done if it is as it was, or was removed while it was read."""
    with catalog.lock:
        if catalog.blobs.references.find(catalog.blobs.path_of(digest)) == reference:
            catalog.blobs.refer(file, digest)


def _steps(digest: str, size: int, report: Report) -> Callable[[int], None]:
    """Reports how far a blob is, not too often."""
    said = 0

    def read(count: int) -> None:
        nonlocal said
        if count >= said + _STEP or count == size:
            said = count
            report(Progress(f"verifying {digest}", digest, size, count))

    return read


def _problem(digest: str, wrong: _Wrong, models: Sequence[str]) -> Problem:
    if wrong.kind == "changed":
        remedy = f"create {_listed(models)} again from the file, or from a copy of what it was"
    elif models:
        remedy = _again(models)
    else:
        remedy = "no model needs it: the server removes it when it starts and it is a week old"
    return Problem(kind=wrong.kind, digest=digest, detail=wrong.detail, models=tuple(models), remedy=remedy)


def _broken(name: ModelName, detail: str) -> Problem:
    return Problem(kind="manifest", detail=detail, models=(name.short,), remedy=_again([name.short]))


def _again(models: Sequence[str]) -> str:
    """A blob that is there is not downloaded again: it has to go first, with all models that need it."""
    return f"type 'corectl rm {' '.join(models)}', then pull or create {_listed(models)} again"


def _listed(models: Sequence[str]) -> str:
    return " and ".join([", ".join(models[:-1]), models[-1]] if len(models) > 1 else models)

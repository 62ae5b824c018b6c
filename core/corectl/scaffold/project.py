"""Writes new plugin projects: from a name and a kind to the texts of files."""

from __future__ import annotations

import re
from collections.abc import Iterator
from importlib.resources import files
from importlib.resources.abc import Traversable
from string import Template
from typing import Final

import msgspec

from corectl import __version__

_NAME: Final = re.compile(r"[a-z][a-z0-9]*(-[a-z0-9]+)*")
_LONGEST: Final = 40
_SUFFIX: Final = ".txt"
"""Templates are no Python files, so that nobody takes them for some."""


class Kind(msgspec.Struct, frozen=True, kw_only=True):
    """One kind of project: what it is called, what it does at first, and how to try that."""

    noun: str
    about: str
    try_it: str


KINDS: Final = {
    "backend": Kind(
        noun="backend",
        about="A backend for corectl. Its models know which byte follows which in a text, and go on in that way.",
        try_it=(
            "Make a model of some text, and talk to it (while `corectl serve` runs in another terminal):\n\n"
            "```bash\n"
            "python -m $package.learn < README.md > README.$name\n"
            "printf 'FROM ./README.$name' > Modelfile\n"
            "corectl create $name\n"
            "corectl run $name 'Inst'\n"
            "```\n\n"
            "Replace `model.py` by your engine, and the format in `__init__.py` by the one of its models.\n"
        ),
    ),
    "frontend": Kind(
        noun="frontend",
        about="A frontend for corectl: a prompt as text in, the answer as text out, at `POST /$name/MODEL`.",
        try_it="Replace the routes in `routes.py` by those of your protocol.\n",
    ),
    "registry": Kind(
        noun="registry",
        about=(
            "A registry for corectl. It offers the GGUF files of the folder in `$variable`, as the file `SHA256SUMS`\n"
            "there names them (`sha256sum *.gguf > SHA256SUMS`)."
        ),
        try_it="Replace `folder.py` by the place that your models lie in.\n",
    ),
    "hardware": Kind(
        noun="hardware probe",
        about="A hardware probe for corectl. It reports the accelerators that a driver shows below `/sys/class/$name`.",
        try_it="Replace what it reads by what the driver of your hardware says.\n",
    ),
    "policy": Kind(
        noun="scheduler policy",
        about=(
            "A scheduler policy for corectl: the model that most requests wait for is next, the largest idle one\n"
            "goes, and a model is on one device as a whole. A server uses it with the setting `scheduler_policy`."
        ),
        try_it="Replace the three decisions in `policy.py` by your own.\n",
    ),
    "parser": Kind(
        noun="dialect",
        about="A dialect for corectl: how a family of models writes thoughts and tool calls.",
        try_it="Replace the texts by those of your family, exactly as its chat template writes them.\n",
    ),
    "search": Kind(
        noun="search provider",
        about="A search provider for corectl. It asks the SearXNG server whose address is in `$variable`.",
        try_it="Replace `provider.py` by the service that you want to ask.\n",
    ),
}


def check_name(name: str) -> None:
    """Raises ValueError for a name that a plugin cannot have."""
    if len(name) > _LONGEST or not _NAME.fullmatch(name):
        raise ValueError(
            f"{name!r} is no name for a plugin; it has up to {_LONGEST} characters of a-z, 0-9 and '-', begins with a "
            "letter, and does not end with '-'"
        )


def folder_name(name: str) -> str:
    """The distribution's name, and its folder's."""
    return f"corectl-{name}"


def package_name(name: str) -> str:
    return f"corectl_{name.replace('-', '_')}"


def project(name: str, kind: str) -> dict[str, str]:
    """The files of a new project, by their paths in its folder. Raises ValueError for a name that is none."""
    check_name(name)
    words = {
        "name": name,
        "module": name.replace("-", "_"),
        "package": package_name(name),
        "distribution": folder_name(name),
        "title": "".join(part.capitalize() for part in name.split("-")),
        "variable": f"{name.replace('-', '_').upper()}_{'URL' if kind == 'search' else 'FOLDER'}",
        "pin": _pin(),
        "noun": KINDS[kind].noun,
        "summary": f"A {KINDS[kind].noun} for corectl",
    }
    for part in ("about", "try_it"):
        words[part] = Template(getattr(KINDS[kind], part)).substitute(words)
    templates = files("corectl.scaffold") / "templates"
    found = {}
    for folder in (templates / "common", templates / kind):
        for path, text in _templates(folder):
            path = path.replace("package/", f"{words['package']}/").replace("_module_", words["module"])
            found[path.removesuffix(_SUFFIX)] = Template(text).substitute(words)
    return found


def _templates(folder: Traversable, inside: str = "") -> Iterator[tuple[str, str]]:
    for item in sorted(folder.iterdir(), key=lambda item: item.name):
        path = f"{inside}{item.name}"
        if item.is_dir():
            yield from _templates(item, f"{path}/")
        elif path.endswith(_SUFFIX):
            yield path, item.read_text("utf-8")


def _pin() -> str:
    """The versions of corectl that a plugin made by this one works with: while the first number is 0, of its minor."""
    major, minor, *_ = __version__.split(".")
    if major == "0":
        return f">=0.{minor},<0.{int(minor) + 1}"
    return f">={major}.{minor},<{int(major) + 1}"

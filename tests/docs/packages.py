"""The packages of the plugin author's guide, put together from its blocks as an installer would lay them down."""

from __future__ import annotations

import shutil
import tomllib
from pathlib import Path
from typing import Any

from tests.docs.blocks import read_page


def build_site(page: Path, site: Path) -> Path:
    """A folder for PYTHONPATH with all packages of a page and their metadata."""
    for block in read_page(page):
        if block.directive != "file":
            continue
        _, _, inside = block.value.partition("/")
        if inside == "pyproject.toml":
            _write_metadata(tomllib.loads(block.text), site)
        else:
            target = site / inside
            target.parent.mkdir(parents=True, exist_ok=True)
            target.write_text(block.text, "utf-8")
    return site


def lay_down(project: Path, site: Path) -> Path:
    """A folder for PYTHONPATH with the package of a project and its metadata."""
    content = tomllib.loads((project / "pyproject.toml").read_text("utf-8"))
    _write_metadata(content, site)
    for package in content["tool"]["hatch"]["build"]["targets"]["wheel"]["packages"]:
        shutil.copytree(project / package, site / package)
    return site


def _write_metadata(content: dict[str, Any], site: Path) -> None:
    project = content["project"]
    name, version = str(project["name"]), str(project["version"])
    groups = project["entry-points"]
    assert isinstance(groups, dict)
    folder = site / f"{name.replace('-', '_')}-{version}.dist-info"
    folder.mkdir(parents=True)
    (folder / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {name}\nVersion: {version}\n")
    lines = []
    for group, entries in groups.items():
        lines += [f"[{group}]", *(f"{entry} = {value}" for entry, value in entries.items())]
    (folder / "entry_points.txt").write_text("\n".join(lines) + "\n")

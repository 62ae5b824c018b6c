"""Projects that `corectl plugin new` writes: of each kind, as they are, they pass their own tests and our checks."""

from __future__ import annotations

import os
import re
import subprocess
import sys
from pathlib import Path

import pytest

from corectl.scaffold.project import KINDS, package_name
from tests.docs.packages import lay_down

SECONDS = 300


@pytest.fixture(scope="module")
def projects(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A folder with one of each kind, written by the command."""
    folder = tmp_path_factory.mktemp("projects")
    for kind in KINDS:
        run(folder, "corectl", "plugin", "new", f"new-{kind}", "--kind", kind)
    return folder


def run(folder: Path, module: str, *words: str, site: Path | None = None) -> str:
    paths = [str(site), os.environ.get("PYTHONPATH", "")] if site else []
    environment = {**os.environ, **({"PYTHONPATH": os.pathsep.join(filter(None, paths))} if paths else {})}
    done = subprocess.run(
        [sys.executable, "-m", module, *words],
        cwd=folder,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.STDOUT,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout
    return done.stdout


@pytest.mark.parametrize("kind", KINDS)
def test_it_is_a_plugin_that_passes_its_own_tests(projects: Path, tmp_path: Path, kind: str) -> None:
    project = projects / f"corectl-new-{kind}"
    site = lay_down(project, tmp_path / "site")
    listed = run(tmp_path, "corectl", "plugins", site=site)
    assert re.search(rf"^new-{kind} +corectl-new-{kind} +0\.1\.0 +active", listed, re.MULTILINE), listed
    said = run(project, "pytest", "-q", "-p", "no:cacheprovider", "-W", "error", site=site)
    passed = re.search(r"(\d+) passed", said)
    assert passed and int(passed[1]) > 4 and "skipped" not in said, said


@pytest.mark.parametrize(
    "tool", [("ruff", "check", "--select", "E,F,W,I,B,UP"), ("ruff", "format", "--check")]
)
def test_they_are_in_good_style(projects: Path, tool: tuple[str, ...]) -> None:
    run(projects, *tool, ".")


def test_their_types_are_right(projects: Path) -> None:
    names = [f"new-{kind}" for kind in KINDS]
    packages = [str(projects / f"corectl-{name}" / package_name(name)) for name in names]
    tests = [str(path) for path in sorted(projects.glob("*/tests/test_*.py"))]
    sources = os.pathsep.join(str(projects / f"corectl-{name}") for name in names)
    command = ["--strict", "--cache-dir", str(projects / "cache"), *packages, *tests]
    environment = {**os.environ, "MYPYPATH": sources}
    done = subprocess.run(
        [sys.executable, "-m", "mypy", *command],
        cwd=projects,
        env=environment,
        capture_output=True,
        text=True,
        timeout=SECONDS,
        check=False,
    )
    assert done.returncode == 0, done.stdout

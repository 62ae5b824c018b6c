"""`corectl plugin new`; what it writes is tried in tests/plugins/test_scaffold.py."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pytest

from corectl.cli.commands.plugin_new import KINDS
from corectl.scaffold import project as scaffold

if TYPE_CHECKING:
    from tests.cli.conftest import Result

Corectl = Callable[..., "Result"]


@pytest.fixture
def folder(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_it_writes_a_project_and_says_what_is_next(folder: Path, corectl: Corectl) -> None:
    done = corectl("plugin", "new", "my-probe", "--kind", "hardware")
    assert done.code == 0 and "pip install -e './corectl-my-probe[test]'" in done.out
    written = {path.relative_to(folder / "corectl-my-probe") for path in folder.rglob("*") if path.is_file()}
    assert {str(path) for path in written} == {
        "README.md",
        "pyproject.toml",
        "corectl_my_probe/__init__.py",
        "tests/conftest.py",
        "tests/test_my_probe.py",
    }


def test_nothing_is_overwritten(folder: Path, corectl: Corectl) -> None:
    (folder / "corectl-mine").mkdir()
    (folder / "corectl-mine" / "README.md").write_text("precious")
    done = corectl("plugin", "new", "mine", "--kind", "search")
    assert (done.code, done.err) == (
        1,
        "Error: corectl-mine is there already; remove it, or take another name\n",
    )
    assert [path.read_text() for path in folder.rglob("*") if path.is_file()] == ["precious"]


@pytest.mark.parametrize(
    "name", ["Mine", "my_plugin", "-x", "x-", "9x", "a--b", "../x", "a b", "ü", "x" * 41]
)
def test_a_name_that_is_none_is_refused(folder: Path, corectl: Corectl, name: str) -> None:
    done = corectl("plugin", "new", "--kind", "backend", "--", name)
    assert done.code == 1 and "is no name for a plugin" in done.err
    assert list(folder.iterdir()) == []


@pytest.mark.parametrize(
    ("name", "why"),
    [
        ("ollama", "a plugin 'ollama' is installed already"),
        ("dialects", "a plugin 'dialects' is installed already"),
        ("mistral", "plugin 'dialects' has 'mistral' among its dialects; take another name"),
    ],
)
def test_a_name_that_is_taken_is_refused(folder: Path, corectl: Corectl, name: str, why: str) -> None:
    assert why in corectl("plugin", "new", name, "--kind", "backend").err
    assert list(folder.iterdir()) == []


def test_a_package_that_is_taken_is_refused(
    folder: Path, corectl: Corectl, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(scaffold, "package_name", lambda name: "pytest")
    assert "a package pytest is installed already" in corectl("plugin", "new", "mine", "--kind", "search").err


@pytest.mark.parametrize(
    ("words", "why"),
    [
        (("mine",), "Missing option '--kind'"),
        (("mine", "--kind", "engine"), "invalid value for --kind: 'engine' is not one of 'backend', "),
        (("--kind", "backend"), "accepts 1 arg(s), received 0"),
        (("a", "b", "--kind", "backend"), "accepts 1 arg(s), received 2"),
    ],
)
def test_what_is_missing_or_wrong_is_said(
    folder: Path, corectl: Corectl, words: tuple[str, ...], why: str
) -> None:
    done = corectl("plugin", "new", *words)
    assert done.code == 1 and why in done.err and done.err.count("\n") == 1


def test_it_explains_itself(corectl: Corectl) -> None:
    assert "  new          Write the project of a new plugin\n" in corectl("plugin").out
    assert corectl("plugin").out == corectl("plugin", "--help").out == corectl("help", "plugin").out
    shown = corectl("help", "plugin", "new").out
    assert shown == corectl("plugin", "new", "--help").out
    assert "corectl plugin new NAME [flags]" in shown and ", ".join(KINDS) in shown
    assert 'unknown command "old" for "corectl plugin"' in corectl("plugin", "old").err


def test_all_kinds_have_templates() -> None:
    assert tuple(scaffold.KINDS) == KINDS
    for kind in KINDS:
        files = scaffold.project("mine", kind)
        assert "corectl_mine/__init__.py" in files and "tests/test_mine.py" in files
        assert not [name for name, text in files.items() if "$name" in text or "${" in text]


@pytest.mark.parametrize(("version", "pin"), [("0.1.0", ">=0.1,<0.2"), ("1.4.2", ">=1.4,<2")])
def test_a_project_names_the_versions_that_it_works_with(
    monkeypatch: pytest.MonkeyPatch, version: str, pin: str
) -> None:
    monkeypatch.setattr(scaffold, "__version__", version)
    assert f'dependencies = ["corectl{pin}"]' in scaffold.project("mine", "parser")["pyproject.toml"]

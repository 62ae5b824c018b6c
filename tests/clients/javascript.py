"""Clients in JavaScript: installed with npm, once for this user, and run with a script of ours."""

from __future__ import annotations

import json
import os
import shutil
import subprocess
from pathlib import Path
from typing import Any

import platformdirs
import pytest


def installed(package: str) -> Path:
    """The folder in which a package, such as `ollama@0.6`, is installed; skips the test where that cannot be."""
    if not (shutil.which("node") and shutil.which("npm")):
        pytest.skip("needs node and npm")
    name = package.partition("@")[0]
    folder = platformdirs.user_cache_path("corectl-tests") / f"{name}-javascript"
    if not (folder / "node_modules" / name / "package.json").exists():
        folder.mkdir(parents=True, exist_ok=True)
        command = ["npm", "install", "--prefix", str(folder), "--no-audit", "--no-fund", package]
        try:
            subprocess.run(command, check=True, capture_output=True, timeout=120)
        except (subprocess.SubprocessError, OSError) as exc:
            pytest.skip(f"npm cannot install {package}: {exc}")
    return folder


def run(package: Path, script: str, folder: Path, *arguments: str) -> Any:
    """The JSON that a script of this folder prints. `folder` is where it runs."""
    # Node looks for packages beside the script.
    (folder / "node_modules").symlink_to(package / "node_modules")
    copy = shutil.copy(Path(__file__).with_name(script), folder)
    clean = {name: value for name, value in os.environ.items() if "proxy" not in name.lower()}
    command = ["node", copy, *arguments]
    done = subprocess.run(command, env=clean, capture_output=True, text=True, timeout=120)
    assert done.returncode == 0, done.stderr
    return json.loads(done.stdout)

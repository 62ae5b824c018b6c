"""The registry server of the distribution project, from Debian: a process on loopback with a store of its own."""

from __future__ import annotations

import functools
import os
import re
import shutil
import subprocess
import tempfile
import time
from pathlib import Path

import platformdirs
import pytest

PACKAGE = "docker-registry"

CACHED = platformdirs.user_cache_path("corectl-tests") / PACKAGE
"""Asked for here, as tests have a home of their own, which is gone after each of them."""

CONFIG = """\
version: 0.1
log:
  level: info
storage:
  filesystem:
    rootdirectory: {store}
  delete:
    enabled: true
http:
  addr: 127.0.0.1:0
  relativeurls: true
"""


@functools.cache
def registry_binary() -> str:
    """The program. Where it is not installed it is taken out of Debian's package, once for this user.

    Skips the test that asks for it where neither is possible.
    """
    installed = shutil.which(PACKAGE)
    if installed:
        return installed
    if not CACHED.exists():
        _unpack(CACHED)
    return str(CACHED)


def _unpack(target: Path) -> None:
    if not (shutil.which("apt-get") and shutil.which("dpkg-deb")):
        pytest.skip(f"needs {PACKAGE}, and this machine has no apt to get it with")
    with tempfile.TemporaryDirectory() as folder:
        try:
            _apt("apt-get", "download", PACKAGE, cwd=folder)
        except (subprocess.SubprocessError, OSError):
            # A fresh container knows no packages at all, and only root may change that.
            try:
                _apt("apt-get", "update", cwd=folder)
                _apt("apt-get", "download", PACKAGE, cwd=folder)
            except (subprocess.SubprocessError, OSError) as exc:
                pytest.skip(f"needs {PACKAGE}, and apt cannot download it: {exc}")
        package = next(Path(folder).glob("*.deb"))
        _apt("dpkg-deb", "-x", str(package), "tree", cwd=folder)
        target.parent.mkdir(parents=True, exist_ok=True)
        # Renamed into place: another test run may do the same now.
        copy = target.with_suffix(f".{os.getpid()}")
        shutil.copy2(Path(folder) / "tree/usr/bin" / PACKAGE, copy)
        copy.rename(target)


def _apt(*command: str, cwd: str) -> None:
    subprocess.run(command, cwd=cwd, check=True, capture_output=True, timeout=300)


class DockerRegistry:
    """A running registry. `store` holds its files; `url` is where it listens, without encryption."""

    def __init__(self, folder: Path) -> None:
        folder.mkdir(parents=True, exist_ok=True)
        self.store = folder / "store"
        self._log_path = folder / "registry.log"
        config = folder / "config.yml"
        config.write_text(CONFIG.format(store=self.store))
        with self._log_path.open("wb") as log:
            self._process = subprocess.Popen(
                [registry_binary(), "serve", str(config)], stdin=subprocess.DEVNULL, stdout=log, stderr=log
            )
        self.netloc = f"127.0.0.1:{self._wait_for_port()}"
        self.url = f"http://{self.netloc}"

    @property
    def log(self) -> str:
        return self._log_path.read_text("utf-8", "replace")

    def _wait_for_port(self) -> int:
        deadline = time.monotonic() + 60
        while time.monotonic() < deadline and self._process.poll() is None:
            found = re.search(r"listening on 127\.0\.0\.1:(\d+)", self.log)
            if found:
                return int(found[1])
            time.sleep(0.02)
        self.close()
        raise RuntimeError(f"the registry did not start: {self.log}")

    def blob_file(self, digest: str) -> Path:
        """Where the registry keeps the bytes of a blob."""
        algorithm, _, name = digest.partition(":")
        return self.store / "docker/registry/v2/blobs" / algorithm / name[:2] / name / "data"

    def close(self) -> None:
        self._process.kill()
        self._process.wait()

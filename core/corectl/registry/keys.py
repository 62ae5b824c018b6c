"""The key that this user is known by to registries: made when it is first needed, and never sent anywhere."""

from __future__ import annotations

import base64
import os
import tempfile
from pathlib import Path

from cryptography.exceptions import UnsupportedAlgorithm
from cryptography.hazmat.primitives.asymmetric.ed25519 import Ed25519PrivateKey
from cryptography.hazmat.primitives.serialization import (
    Encoding,
    NoEncryption,
    PrivateFormat,
    PublicFormat,
    load_ssh_private_key,
)

from corectl.errors import CorectlError, Unauthorized
from corectl.model.files import read_small

MAX_KEY = 65536


def key_path() -> Path:
    """Where Ollama has it: models that belong to its owner can be pulled by either program."""
    return Path.home() / ".ollama" / "id_ed25519"


class SigningKey:
    """One ed25519 key. `public` is the middle field of the file `id_ed25519.pub`."""

    def __init__(self, private: Ed25519PrivateKey) -> None:
        self._private = private
        line = private.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
        self.public = line.split()[1].decode()

    @classmethod
    def load(cls, path: Path) -> SigningKey:
        """The key in a file, which is made if it is not there. It blocks. Raises `Unauthorized`, `OSError`."""
        if not path.exists():
            _make(path)
        try:
            data = read_small(path, MAX_KEY)
            private = load_ssh_private_key(data, password=None)
        except (ValueError, TypeError, UnsupportedAlgorithm, CorectlError) as exc:
            raise Unauthorized(f"the key {path.name} in {path.parent.name} cannot be used: {exc}") from None
        if not isinstance(private, Ed25519PrivateKey):
            raise Unauthorized(f"the key {path.name} in {path.parent.name} is not an ed25519 key")
        return cls(private)

    def authorization(self, method: str, url: str) -> str:
        """The header that proves who asks: it holds for this one address, which has the time in it."""
        empty = base64.b64encode(EMPTY_SHA256.encode()).decode()
        signature = self._private.sign(f"{method},{url},{empty}".encode())
        return f"{self.public}:{base64.b64encode(signature).decode()}"


EMPTY_SHA256 = "e3b0c44298fc1c149afbf4c8996fb92427ae41e4649b934ca495991b7852b855"


def _make(path: Path) -> None:
    """Two programs that do this at once end up with the same key."""
    path.parent.mkdir(parents=True, exist_ok=True)
    private = Ed25519PrivateKey.generate()
    _put(path, private.private_bytes(Encoding.PEM, PrivateFormat.OpenSSH, NoEncryption()), 0o600)
    # It may be the other program's by now.
    made = load_ssh_private_key(read_small(path, MAX_KEY), password=None)
    line = made.public_key().public_bytes(Encoding.OpenSSH, PublicFormat.OpenSSH)
    _put(path.with_name(f"{path.name}.pub"), line + b"\n", 0o644)


def _put(path: Path, data: bytes, mode: int) -> None:
    """The whole file or none, and never over one that is there."""
    descriptor, name = tempfile.mkstemp(dir=path.parent, prefix=".key-")
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
            file.flush()
            os.fchmod(descriptor, mode)
            os.fsync(descriptor)
        try:
            path.hardlink_to(name)
        except FileExistsError:
            return
    finally:
        Path(name).unlink(missing_ok=True)

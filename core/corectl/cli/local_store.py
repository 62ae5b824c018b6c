"""The model store of a server on this machine, which files can become part of without being sent."""

from __future__ import annotations

import os
from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from corectl.cli.client import Client
    from corectl.store.catalog import Catalog
    from corectl.store.local_file import LocalFile


def local_store(client: Client) -> Catalog | None:
    """The store that a server on this machine has with the settings that are in force here, if it is this user's own.

    Whether it is really that server's is not known before something was put into it; see `place`.
    """
    from corectl import config
    from corectl.errors import CorectlError
    from corectl.store.catalog import Catalog

    if not client.host.loopback:
        return None
    try:
        root = config.load().models
        mine = root.is_dir() and root.stat().st_uid == os.geteuid()
    except (CorectlError, OSError):
        return None
    return Catalog(root) if mine else None


def place(client: Client, store: Catalog, file: LocalFile, digest: str, *, in_place: bool) -> bool:
    """Makes an open file a blob of the store, and asks the server whether it has that blob now.

    With `in_place` the blob refers to the file where it lies; otherwise it is a link that takes no room. If the server
    does not have it, the store is another one's: what was put there is removed, unless somebody else has come to need
    it, and False returned. So it is where no link can be made.
    """
    try:
        stored = store.refer(file, digest) if in_place else store.blobs.link(file, digest)
    except OSError:
        return False
    known = False
    try:
        known = stored is not None and client.has_blob(digest)
    finally:
        if stored is not None and stored.created and not known:
            store.discard([digest])
    return known

"""The files of a repository that are fetched before a download begins: they are small, or say what belongs to it."""

from __future__ import annotations

import asyncio
from pathlib import Path

from corectl.errors import BadModelFile, NotSupported, RemoteError
from corectl.model.manifest import Layer, MediaType
from corectl_huggingface.api import MAX_FILE, Hub
from corectl_huggingface.cached import CachedFiles, is_file
from corectl_huggingface.documents import json_object, sha256
from corectl_huggingface.listing import Listing, RepoFile
from corectl_huggingface.parts import Part

MAX_TEXT = 4 << 20
"""Bytes of a template, a system prompt, parameters or a licence."""

MAX_HERE = 128 << 20
"""Bytes of all files together that are not fetched in parts."""

MAX_READ = 200
"""Files that are not fetched in parts."""


class Reading:
    """Makes layers of the files of a revision, and fetches the small ones.

    `here` has the bytes of those by their digests, and large files that may be in the cache. `elsewhere` has all large
    ones.
    """

    def __init__(self, hub: Hub, listing: Listing, cached: CachedFiles) -> None:
        self._hub, self._listing, self._cached = hub, listing, cached
        self._read: dict[str, bytes] = {}
        self._left = MAX_HERE
        self.here: dict[str, bytes | Path] = {}
        self.elsewhere: dict[str, RepoFile] = {}

    async def layer(self, part: Part) -> Layer:
        """Raises what `read` raises."""
        file = self._listing.files[part.path]
        if part.is_text:
            return self._small(part, _checked_text(part, await self.read(file, MAX_TEXT)))
        if not file.sha256 or file.path in self._read:
            return self._small(part, await self.read(file, MAX_FILE))
        digest = f"sha256:{file.sha256}"
        self.elsewhere[digest] = file
        cached = await asyncio.to_thread(self._cached.large, file)
        if cached is not None:
            self.here[digest] = cached
        return Layer(media_type=part.media_type, digest=digest, size=file.size, name=part.name)

    def _small(self, part: Part, data: bytes) -> Layer:
        digest = sha256(data)
        self.here[digest] = data
        return Layer(media_type=part.media_type, digest=digest, size=len(data), name=part.name)

    async def read(self, file: RepoFile, limit: int) -> bytes:
        """A whole file of at most `limit` bytes, which is what the listing says it is.

        Raises `BadModelFile` for a larger one, `RemoteError` for another one.
        """
        if file.path in self._read:
            return self._read[file.path]
        if len(self._read) == MAX_READ:
            raise NotSupported(f"the model has more than {MAX_READ} small files")
        if file.size > min(limit, self._left):
            raise BadModelFile(f"{file.path} of the repository is too large ({file.size} bytes)")
        data = await asyncio.to_thread(self._cached.small, file)
        if data is None:
            data = await self._hub.read(self._listing.commit, file)
            if not is_file(file, data):
                raise RemoteError(f"{file.path} of the repository is not what Hugging Face says it is")
        self._left -= file.size
        self._read[file.path] = data
        return data


def _checked_text(part: Part, data: bytes) -> bytes:
    """What can be read again from the store. Raises `BadModelFile`."""
    if part.media_type == MediaType.PARAMS:
        json_object(data, part.path)
    try:
        data.decode()
    except UnicodeDecodeError:
        if part.media_type != MediaType.LICENSE:
            raise BadModelFile(f"{part.path} of the repository is not UTF-8") from None
        # Its words count, and none of them is anything but ASCII.
        return data.decode("utf-8", "replace").encode()
    return data

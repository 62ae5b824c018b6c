"""Uploads as Ollama's own registry takes them: each part goes to another host, which must not see credentials."""

from __future__ import annotations

import re

from tests.registry.host import Answer, Asked, Handler, Host, plain


class RedirectedUploads:
    """A layer for a registry's host, and `host`, which takes the parts.

    A PATCH that says `X-Redirect-Uploads` is sent there with a 307, and told in `Docker-Upload-Location` where the
    next one goes. Parts may come in any order; they are put together when the upload is finished.
    """

    def __init__(self) -> None:
        self.host = Host(self._take, name="localhost")
        self._parts: dict[str, dict[int, bytes]] = {}

    def __call__(self, asked: Asked, further: Handler) -> Answer:
        found = re.search(r"/blobs/uploads/([0-9a-f-]+)", asked.route)
        if found is None:
            return further(asked)
        upload = found[1]
        if asked.method == "PATCH" and asked.headers.get("x-redirect-uploads"):
            for _ in asked.body:
                pass
            start = (asked.headers.get("content-range") or "0").partition("-")[0]
            where = f"{self.host.url}/parts/{upload}/{start}"
            return plain(307, location=where, docker_upload_location=asked.host.url + asked.path)
        if asked.method == "PUT" and upload in self._parts:
            parts = self._parts.pop(upload)
            whole = b"".join(parts[start] for start in sorted(parts))
            del asked.headers["content-length"]
            asked.headers["content-length"] = str(len(whole))
            asked.body = iter([whole])
        return further(asked)

    def _take(self, asked: Asked) -> Answer:
        _, _, upload, start = asked.route.split("/")
        self._parts.setdefault(upload, {})[int(start)] = b"".join(asked.body)
        return plain(201)

    def close(self) -> None:
        self.host.close()

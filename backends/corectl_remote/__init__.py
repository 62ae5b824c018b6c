"""Models on other servers: corectl, Ollama, and all that speak OpenAI's protocol, such as vLLM and llama-server."""

from __future__ import annotations

from corectl import hookimpl
from corectl.remote.backend import RemoteBackend, RemoteHost, RemoteServer

corectl_api = 1


class HttpBackend:
    """See `corectl.remote.backend.RemoteBackend`."""

    name = "remote"
    schemes = ("http", "https")

    def connect(self, server: RemoteServer) -> RemoteHost:
        from corectl_remote.host import Host

        return Host(server)


@hookimpl
def corectl_remote_backends() -> list[RemoteBackend]:
    return [HttpBackend()]

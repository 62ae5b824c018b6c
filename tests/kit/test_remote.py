"""The remote backend keeps what it promises, towards another server of this project."""

from __future__ import annotations

import pytest

from corectl.remote.backend import RemoteBackend, RemoteServer
from corectl.testing import RemoteSuite
from corectl_remote import HttpBackend
from tests.conftest import MODEL, Server


class TestRemote(RemoteSuite):
    model = f"{MODEL}:latest"

    @pytest.fixture(autouse=True)
    def reach(self, server: Server) -> None:
        self.url = server.url

    def backend(self) -> RemoteBackend:
        return HttpBackend()

    def server(self) -> RemoteServer:
        return RemoteServer(name="lab", url=self.url)

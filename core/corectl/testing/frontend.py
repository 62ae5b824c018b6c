"""The conformance suite for frontends."""

from __future__ import annotations

import json
import re
from collections.abc import Iterator
from pathlib import Path
from typing import ClassVar

from corectl.server.frontend import Frontend
from corectl.testing.asgi import Answer, Mounted
from corectl.testing.child import in_child
from corectl.testing.plugins import modules_of, plugin_of
from corectl.testing.suite import Suite

MAX_BODY = 100_000

MALFORMED = {
    "nothing": b"",
    "half an object": b'{"model": "a"',
    "no JSON": b"once upon a time",
    "no UTF-8": b'{"model": "\xff\xfe"}',
    "a list": b"[]",
    "null": b"null",
    "a number": b"17",
    "a number for a name": b'{"model": 5, "name": 5}',
    "a list for a name": b'{"model": ["a"], "name": ["a"]}',
    "an empty name": b'{"model": "", "name": ""}',
    "a strange name": b'{"model": "../../../etc/passwd", "name": "../../../etc/passwd"}',
    "a large number": b'{"model": 1e999, "options": {"num_ctx": 99999999999999999999999999}}',
    "deep": b'{"model": ' + b"[" * 20_000 + b"]" * 20_000 + b"}",
    "a key twice": b'{"model": 1, "model": 2}',
    "a lone surrogate": b'{"model": "\\ud800"}',
}
"""Bodies that no protocol takes."""

STRANGE = ("no-such-thing", "%2e%2e%2f%2e%2e%2f", "\u00fc\U0001f999", "a" * 1000, "0", "-1", "sha256:zz")
"""What stands in the place of a path's parameters."""


class FrontendSuite(Suite):
    """Everything that a frontend promises whatever its protocol is. A subclass gives `frontend`.

    The plugin must be installed, as for a backend. Its requests go to an application of their own, with an empty store.
    """

    kind = "frontend"

    ignores_bodies: ClassVar[tuple[str, ...]] = ()
    """Paths of routes with POST, PUT or DELETE that read no body, and may take one that is malformed."""

    def frontend(self) -> Frontend:
        raise NotImplementedError

    def subject(self) -> str:
        return self.frontend().name

    def _mounted(self, folder: Path) -> Mounted:
        return Mounted(self.frontend(), folder, MAX_BODY)

    def _paths(self, mounted: Mounted) -> Iterator[tuple[str, str, str]]:
        """Method, path and route of each, with the first strange value for parameters."""
        for method, route in mounted.routes():
            yield method, re.sub(r"\{[^}]*\}", STRANGE[0], route), route

    def _told(self, answer: Answer, where: str) -> None:
        """Fails unless an error is one that a client can read."""
        assert answer.status in (*range(200, 500), 501, 503), f"{where}: {answer}"
        if answer.status < 400:
            return
        assert answer.body.strip(), f"{where}: an error without a word"
        assert b"Traceback" not in answer.body, f"{where}: a traceback goes to the client"
        if "json" in answer.headers.get("content-type", ""):
            assert json.loads(answer.body), where

    def test_routes(self, tmp_path: Path) -> None:
        """It has routes, and fits into an application."""
        routes = self._mounted(tmp_path).routes()
        assert routes, "no route is mounted; the log says why"
        assert all(path.startswith("/") for _, path in routes)

    def test_document(self, tmp_path: Path) -> None:
        """A document can be made of what its routes say of themselves, if they do; see `corectl.server.operation`."""
        mounted = self._mounted(tmp_path)
        paths = mounted.document()["paths"]
        said = {(method.upper(), path) for path, methods in paths.items() for method in methods}
        assert said <= {*mounted.routes()}

    def test_import(self) -> None:
        """Its plugin is cheap to import: the web framework is imported only by the server."""
        plugin = plugin_of("corectl_frontends", self.subject())
        assert in_child(modules_of, plugin=plugin, names=["litestar", "uvicorn", "httpx"]) == []

    def test_malformed_bodies(self, tmp_path: Path) -> None:
        """A malformed body is the client's error, says what is wrong, and changes nothing."""
        mounted = self._mounted(tmp_path)
        before = _files(tmp_path)
        for method, path, route in self._paths(mounted):
            if method not in ("POST", "PUT", "PATCH", "DELETE") or route in self.ignores_bodies:
                continue
            for what, body in MALFORMED.items():
                answer = mounted.ask(method, path, body)
                self._told(answer, f"{method} {path} with {what}")
                assert answer.status >= 400, f"{method} {path} with {what} was taken: {answer}"
        assert _files(tmp_path) == before, "something on disk has changed"

    def test_large_bodies(self, tmp_path: Path) -> None:
        """A body that is larger than the server takes is refused."""
        mounted = self._mounted(tmp_path)
        body = json.dumps({"model": "a" * 2 * MAX_BODY}).encode()
        for method, path, route in self._paths(mounted):
            if method in ("POST", "PUT", "PATCH", "DELETE") and route not in self.ignores_bodies:
                answer = mounted.ask(method, path, body)
                assert 400 <= answer.status < 500, f"{method} {path}: {answer}"

    def test_strange_paths(self, tmp_path: Path) -> None:
        """Whatever stands in a path, there is an answer that is no failure of the server."""
        mounted = self._mounted(tmp_path)
        for method, route in mounted.routes():
            for value in STRANGE if "{" in route else STRANGE[:1]:
                # Without escapes, as a server hands a path on; a function, because a value is no pattern.
                path = re.sub(r"\{[^}]*\}", lambda _, value=value: value, route)  # type: ignore[misc]
                self._told(mounted.ask(method, path, b"{"), f"{method} {path}")

    def test_clients_that_leave(self, tmp_path: Path) -> None:
        """A client that leaves before it has sent its body does no harm."""
        mounted = self._mounted(tmp_path)
        for method, path, _ in self._paths(mounted):
            mounted.ask(method, path, leaves=True)
        for method, path, _ in self._paths(mounted):
            self._told(mounted.ask(method, path, b"{"), f"{method} {path}")


def _files(folder: Path) -> dict[str, int]:
    return {
        str(path.relative_to(folder)): path.stat().st_size for path in folder.rglob("*") if path.is_file()
    }

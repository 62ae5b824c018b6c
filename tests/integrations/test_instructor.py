"""Instructor, whose objects are filled by a call of a tool or by a schema."""

from __future__ import annotations

from tests.integrations import programs
from tests.integrations.installing import Installer
from tests.integrations.kit import Client


def test_objects_by_a_tool_and_by_a_schema(installer: Installer, client: Client) -> None:
    package = installer.pypi("instructor==1.17.0")
    called, written, *pieces = programs.run(client, package, "instructor", 0).splitlines()
    for line in (called, written, pieces[-1]):
        assert programs.WEATHER.match(line), line
    assert len(pieces) > 1 and '"degrees":null' in pieces[0]
    client.served(calls=3)
    client.keep("Instructor", package.version, page="instructor")

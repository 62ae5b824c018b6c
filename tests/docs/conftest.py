"""Fixtures: one place per page, which its blocks share in their order."""

from __future__ import annotations

from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT
from tests.docs.packages import build_site
from tests.docs.place import Place

GUIDE = ROOT / "docs" / "plugins" / "README.md"
FIRST_STEPS = ROOT / "README.md"
"""Its first command starts a server by itself, as it does for a newcomer."""


@pytest.fixture(scope="session")
def place_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Place]]:
    """The place of a page; made, with its server, when it is first asked for."""
    places: dict[Path, Place] = {}

    def find(page: Path) -> Place:
        if page not in places:
            folder = tmp_path_factory.mktemp(page.stem)
            site = build_site(page, folder / "site") if page == GUIDE else None
            places[page] = Place(folder, site=site)
            if page != FIRST_STEPS:
                places[page].start_server()
        return places[page]

    yield find
    for place in places.values():
        place.close()

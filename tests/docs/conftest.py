"""Fixtures: one place per page, which its blocks share in their order."""

from __future__ import annotations

import sys
from collections.abc import Callable, Iterator
from pathlib import Path

import pytest

from tests.docs.blocks import ROOT
from tests.docs.packages import build_site
from tests.docs.place import Place

GUIDE = ROOT / "docs" / "plugins" / "README.md"
TUTORIAL = ROOT / "docs" / "plugins" / "tutorial.md"
"""Its first commands write a project and install it; then there is a server."""
FIRST_STEPS = ROOT / "README.md"
"""Its first command starts a server by itself, as it does for a newcomer."""

PIP = """#!{python}
import sys
from pathlib import Path
sys.path.insert(0, {root!r})
from tests.docs.packages import lay_down
lay_down(Path(sys.argv[-1].partition("[")[0]), Path({site!r}))
"""
"""What `pip install -e PROJECT` comes to in the tutorial's place."""


@pytest.fixture(scope="session")
def place_of(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Callable[[Path], Place]]:
    """The place of a page; made, with its server, when it is first asked for."""
    places: dict[Path, Place] = {}

    def find(page: Path) -> Place:
        if page not in places:
            places[page] = _make(page, tmp_path_factory.mktemp(page.stem))
        place = places[page]
        waits = page == FIRST_STEPS or (page == TUTORIAL and not (place.folder / "site").exists())
        if not place.serves and not waits:
            place.start_server()
        return place

    yield find
    for place in places.values():
        place.close()


def _make(page: Path, folder: Path) -> Place:
    site = folder / "site"
    if page == GUIDE:
        build_site(page, site)
    place = Place(folder, site=site if page in (GUIDE, TUTORIAL) else None)
    if page == TUTORIAL:
        (folder / "bin" / "pip").write_text(PIP.format(python=sys.executable, root=str(ROOT), site=str(site)))
    return place

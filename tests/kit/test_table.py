"""What the documentation says of backends is what their suites find. This file's tests run after those."""

from __future__ import annotations

import pytest

from corectl.testing import BackendSuite
from corectl.testing.plugin import RESULTS
from tests.kit.table import FOUND, backends, backends_table

KNOWN = {subject.name: subject for subject in backends()}


@pytest.mark.parametrize("name", KNOWN)
def test_what_a_run_finds_is_what_is_known(name: str, request: pytest.FixtureRequest) -> None:
    found = request.config.stash[RESULTS].subject(BackendSuite.kind, name).outcomes
    ran = {capability: outcome for capability, outcome in found.items() if outcome.state != "not run"}
    if not ran:
        pytest.skip(f"the suite of {name} has not run before")
    known = KNOWN[name].outcomes
    assert ran == {capability: known.get(capability) for capability in ran}, f"write {FOUND.name} anew"


def test_every_backend_that_has_a_suite_is_known(request: pytest.FixtureRequest) -> None:
    found = {item.name for item in request.config.stash[RESULTS].subjects if item.kind == BackendSuite.kind}
    assert found <= set(KNOWN), f"write {FOUND.name} anew"


def test_nothing_in_the_table_fails_or_is_unknown() -> None:
    assert KNOWN
    for name, subject in KNOWN.items():
        states = {subject.outcomes[capability].state for capability in BackendSuite.capabilities()}
        assert states <= {"passes", "cannot"}, name
    assert "fails" not in backends_table()

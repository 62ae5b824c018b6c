"""What the documentation says of backends is what their suites find. This file's tests run after those."""

from __future__ import annotations

import pytest

from corectl.testing import Suite
from corectl.testing.plugin import RESULTS
from corectl.testing.results import Outcome
from tests.kit.table import FOUND, SUITES, known

SUBJECTS = [(suite, subject.name) for suite in SUITES for subject in known(suite)]


def _known(suite: type[Suite], name: str) -> dict[str, Outcome]:
    (found,) = [subject for subject in known(suite) if subject.name == name]
    return found.outcomes


@pytest.mark.parametrize(("suite", "name"), SUBJECTS, ids=lambda value: getattr(value, "kind", value))
def test_what_a_run_finds_is_what_is_known(
    suite: type[Suite], name: str, request: pytest.FixtureRequest
) -> None:
    found = request.config.stash[RESULTS].subject(suite.kind, name).outcomes
    ran = {capability: outcome for capability, outcome in found.items() if outcome.state != "not run"}
    if not ran:
        pytest.skip(f"the suite of {name} has not run before")
    expected = _known(suite, name)
    assert ran == {capability: expected.get(capability) for capability in ran}, f"write {FOUND.name} anew"


def test_everything_that_has_a_suite_is_known(request: pytest.FixtureRequest) -> None:
    for suite in SUITES:
        ran = {item.name for item in request.config.stash[RESULTS].subjects if item.kind == suite.kind}
        assert ran <= {name for kind, name in SUBJECTS if kind is suite}, f"write {FOUND.name} anew"


@pytest.mark.parametrize(("suite", "name"), SUBJECTS, ids=lambda value: getattr(value, "kind", value))
def test_nothing_that_is_known_fails(suite: type[Suite], name: str) -> None:
    outcomes = _known(suite, name)
    for capability in suite.capabilities():
        assert outcomes[capability].state in ("passes", "cannot"), capability

"""The pytest plugin: what suites are given, and what is noted of their outcomes."""

from __future__ import annotations

from collections.abc import Generator, Iterator
from pathlib import Path

import pytest

from corectl.runner.engine import Engine, ModelSpec
from corectl.testing.backend.base import BackendChecks
from corectl.testing.results import Outcome, Results, read_results, write_results
from corectl.testing.served import Served
from corectl.testing.suite import PREFIX, Suite, capability_of

OPTION = "--corectl-conformance"

RESULTS = pytest.StashKey[Results]()
"""In `config.stash`: what the suites have found so far."""


def pytest_addoption(parser: pytest.Parser) -> None:
    group = parser.getgroup("corectl", "conformance of corectl plugins")
    group.addoption(
        OPTION,
        metavar="FILE",
        type=Path,
        help="write what suites find into this JSON file, beside what it has",
    )


def pytest_configure(config: pytest.Config) -> None:
    config.stash[RESULTS] = Results()


@pytest.hookimpl(wrapper=True)
def pytest_runtest_makereport(
    item: pytest.Item, call: pytest.CallInfo[None]
) -> Generator[None, pytest.TestReport, pytest.TestReport]:
    report = yield
    if isinstance(item, pytest.Function) and isinstance(item.instance, Suite):
        suite, name = item.instance, item.originalname
        if name.startswith(PREFIX) and (outcome := _outcome(suite, capability_of(name), report)):
            subject = item.config.stash[RESULTS].subject(suite.kind, suite.subject())
            subject.details = suite.details()
            subject.add(capability_of(name), outcome)
    return report


def _outcome(suite: Suite, capability: str, report: pytest.TestReport) -> Outcome | None:
    """What one phase of a test says; None if it says nothing yet."""
    if report.failed:
        return Outcome("fails", f"{report.when} failed")
    if report.skipped:
        reason = report.longrepr[2] if isinstance(report.longrepr, tuple) else str(report.longrepr)
        return Outcome("not run", reason.removeprefix("Skipped: "))
    if report.when != "call":
        return None
    if capability in suite.cannot:
        return Outcome("cannot", suite.cannot[capability])
    return Outcome("passes")


def pytest_sessionfinish(session: pytest.Session) -> None:
    path: Path | None = session.config.getoption(OPTION)
    if path is not None:
        known = read_results(path)
        known.update(session.config.stash[RESULTS])
        write_results(path, known)


def _suite(request: pytest.FixtureRequest) -> BackendChecks:
    kind = request.cls
    assert isinstance(kind, type) and issubclass(kind, BackendChecks), "this is for suites of backends"
    return kind()


@pytest.fixture(scope="class")
def corectl_usable(request: pytest.FixtureRequest) -> None:
    """Skips what needs a backend's engine where that cannot be used."""
    suite = _suite(request)
    reason = suite.backend().availability().reason
    if reason:
        pytest.skip(f"{suite.subject()}: {reason}")


@pytest.fixture(scope="class")
def corectl_model(request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory) -> ModelSpec:
    """The model of a backend's suite."""
    return _suite(request).model(tmp_path_factory)


@pytest.fixture(scope="class")
def corectl_engine(
    request: pytest.FixtureRequest, corectl_usable: None, corectl_model: ModelSpec
) -> Iterator[Engine]:
    """The model, loaded in this process. Every check leaves it without sequences."""
    suite = _suite(request)
    engine = suite.backend().load(corectl_model, suite.placement, lambda fraction: None)
    yield engine
    engine.close()


@pytest.fixture(scope="class")
def corectl_runner(
    request: pytest.FixtureRequest, corectl_usable: None, corectl_model: ModelSpec
) -> Iterator[Served]:
    """The model, served by a runner process."""
    suite = _suite(request)
    served = Served(suite.subject(), corectl_model, suite.placement)
    yield served
    served.close()

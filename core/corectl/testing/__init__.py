"""The conformance kit for plugin authors: a pytest plugin, and a suite of checks for each kind of plugin.

Name it in the `conftest.py` at the root of your tests, and subclass the suite of your kind:

    pytest_plugins = ["corectl.testing"]

See `docs/plugins/testing.md`. Needs the extra `testing`.
"""

from __future__ import annotations

from corectl.testing.backend import BackendSuite
from corectl.testing.command import CommandSuite
from corectl.testing.dialect import DialectSuite
from corectl.testing.formats import FormatSuite
from corectl.testing.frontend import FrontendSuite
from corectl.testing.plugin import (
    corectl_engine,
    corectl_model,
    corectl_runner,
    corectl_usable,
    pytest_addoption,
    pytest_configure,
    pytest_runtest_makereport,
    pytest_sessionfinish,
)
from corectl.testing.policy import PolicySuite
from corectl.testing.probe import ProbeSuite
from corectl.testing.registry import RegistrySuite
from corectl.testing.remote import RemoteSuite
from corectl.testing.search import SearchSuite
from corectl.testing.suite import Suite, optional

__all__ = [
    "BackendSuite",
    "CommandSuite",
    "DialectSuite",
    "FormatSuite",
    "FrontendSuite",
    "PolicySuite",
    "ProbeSuite",
    "RegistrySuite",
    "RemoteSuite",
    "SearchSuite",
    "Suite",
    "corectl_engine",
    "corectl_model",
    "corectl_runner",
    "corectl_usable",
    "optional",
    "pytest_addoption",
    "pytest_configure",
    "pytest_runtest_makereport",
    "pytest_sessionfinish",
]

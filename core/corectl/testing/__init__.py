"""The conformance kit for plugin authors: a pytest plugin, and a suite of checks for each kind of plugin.

Name it in the `conftest.py` at the root of your tests, and subclass the suite of your kind:

    pytest_plugins = ["corectl.testing"]

See `docs/plugins/testing.md`. Needs the extra `testing`.
"""

from __future__ import annotations

from corectl.testing.backend import BackendSuite
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
from corectl.testing.suite import Suite, optional

__all__ = [
    "BackendSuite",
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

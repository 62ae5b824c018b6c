"""Every built-in plugin keeps what its kind promises. Those of a new plugin are found by themselves."""

from __future__ import annotations

from collections.abc import Iterator
from importlib.metadata import entry_points
from typing import Any

import pytest

from corectl.config import Settings
from corectl.model.files import ModelFiles
from corectl.plugins import GROUP, PluginHost
from corectl.testing import (
    BackendSuite,
    CommandSuite,
    DialectSuite,
    FormatSuite,
    FrontendSuite,
    PolicySuite,
    ProbeSuite,
    RegistrySuite,
    RemoteSuite,
    SearchSuite,
    Suite,
)
from tests.kit.samples import SAMPLES, hugging_face_cache

HOST = PluginHost.load(
    Settings(),
    entry_points=[
        entry
        for entry in entry_points(group=GROUP)
        if entry.dist is not None and entry.dist.name == "corectl"
    ],
)


def _add(suite: type[Suite], method: str, subjects: dict[str, Any], **attributes: Any) -> None:
    """A test class for each subject, which `method` returns."""
    for name, subject in subjects.items():
        title = "".join(part.capitalize() for part in name.replace(".", "-").split("-"))
        members = {"__module__": __name__, method: lambda self, subject=subject: subject, **attributes}
        cls = type(f"Test{title}{suite.__name__}", (suite,), members)
        globals()[cls.__name__] = cls


def _sample(self: FormatSuite, tmp_path_factory: pytest.TempPathFactory) -> ModelFiles:
    name = self.subject()
    assert name in SAMPLES, f"tests/kit/samples.py has no model of the format {name}"
    return SAMPLES[name](tmp_path_factory.mktemp(name))


@pytest.fixture(scope="module", autouse=True)
def cache(tmp_path_factory: pytest.TempPathFactory) -> Iterator[None]:
    """A model in the cache of huggingface_hub: the machines that test have none."""
    folder = tmp_path_factory.mktemp("hub")
    hugging_face_cache(folder)
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HF_HUB_CACHE", str(folder))
        yield


_add(DialectSuite, "dialect", HOST.dialects)
_add(ProbeSuite, "probe", HOST.probes)
_add(PolicySuite, "policy", HOST.policies)
_add(RegistrySuite, "registry", HOST.registries)
# All that is wrong with most of the bodies is a name, and /api/verify has no field for one.
_add(FrontendSuite, "frontend", HOST.frontends, ignores_bodies=("/api/verify",))
_add(FormatSuite, "format", HOST.formats, sample=_sample)
_add(SearchSuite, "provider", HOST.search_providers)
_add(CommandSuite, "command", HOST.cli_commands)


def test_no_built_in_plugin_is_broken() -> None:
    assert [info for info in HOST.plugins if info.state != "active"] == []


def test_every_backend_has_a_suite(request: pytest.FixtureRequest) -> None:
    """Of those that were collected together with this."""
    classes = {item.cls for item in request.session.items if isinstance(item, pytest.Function) and item.cls}
    for suite, there in ((BackendSuite, HOST.backends), (RemoteSuite, HOST.remote_backends)):
        subjects = {cls().subject() for cls in classes if issubclass(cls, suite)}
        if not subjects:
            pytest.skip("no suite of a backend was asked for")
        assert set(there) <= subjects

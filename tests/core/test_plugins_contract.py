"""The version of the plugin contract: which are accepted, and what becomes of what is on its way out."""

from __future__ import annotations

import logging

import pytest

from corectl import hookspec, hookspecs
from corectl.plugins import entry
from tests.core.plugin_kit import GOOD, HEAD, Site, info_of, reason


def of_contract(number: object) -> str:
    return GOOD.replace("corectl_api = 1", f"corectl_api = {number}")


@pytest.mark.parametrize(
    ("number", "known", "says"),
    [
        (
            "99",
            (1, 1),
            "is written for plugin contract 99, and this corectl knows contract 1; install a newer corectl",
        ),
        (
            "0",
            (1, 1),
            "is written for plugin contract 0, and this corectl knows contract 1; install a newer dist-it",
        ),
        ("1", (2, 3), "and this corectl knows contracts 2 to 3; install a newer dist-it"),
        ("None", (1, 1), "its author has to write 'corectl_api = 1' into the module"),
        ("'1'", (1, 1), "its author has to write 'corectl_api = 1' into the module"),
        ("True", (1, 1), "its author has to write 'corectl_api = 1' into the module"),
    ],
)
def test_an_unknown_contract_is_refused_and_says_what_to_do(
    site: Site, monkeypatch: pytest.MonkeyPatch, number: str, known: tuple[int, int], says: str
) -> None:
    monkeypatch.setattr(entry, "OLDEST_API_VERSION", known[0])
    monkeypatch.setattr(entry, "API_VERSION", known[1])
    site.install("it", of_contract(number))
    host = site.load()
    assert says in reason(host, "it") and not host.backends


def test_the_contract_before_is_accepted_with_a_warning(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    monkeypatch.setattr(entry, "API_VERSION", 2)
    site.install("old", of_contract(1))
    site.install("new", of_contract(2).replace("'good'", "'better'"))
    host = site.load()
    assert set(host.backends) == {"good", "better"} and info_of(host, "new").warnings == ()
    (warning,) = info_of(host, "old").warnings
    assert warning.startswith("is written for plugin contract 1; a later corectl will refuse it")
    assert f"plugin old (dist-old): {warning}" in caplog.text


def test_a_hook_on_its_way_out_works_and_warns(
    site: Site, monkeypatch: pytest.MonkeyPatch, caplog: pytest.LogCaptureFixture
) -> None:
    advice = "corectl_model_seen goes in corectl 0.4; use corectl_model_loaded"

    def corectl_model_seen(model: object) -> None:
        """An event that nobody needs any more."""

    marked = hookspec(warn_on_impl=DeprecationWarning(advice))(corectl_model_seen)
    monkeypatch.setattr(hookspecs, "corectl_model_seen", marked, raising=False)
    site.install("old", f"{HEAD}\nSEEN = []\n@hookimpl\ndef corectl_model_seen(model): SEEN.append(model)\n")
    site.install("good", GOOD)
    with caplog.at_level(logging.WARNING):
        host = site.load()
    info = info_of(host, "old")
    assert (info.state, info.warnings, info.hooks) == ("active", (advice,), ("corectl_model_seen",))
    assert [record.getMessage() for record in caplog.records] == [f"plugin old (dist-old): {advice}"]
    host.emit("corectl_model_seen", model="it")
    host.close()
    assert __import__("site_old").SEEN == ["it"]


def test_a_hook_may_leave_out_arguments_that_a_later_corectl_adds(site: Site) -> None:
    """That is why a new argument raises no number."""
    site.install("lean", f"{HEAD}\nSEEN = []\n@hookimpl\ndef corectl_model_unloaded(): SEEN.append(1)\n")
    host = site.load()
    host.emit("corectl_model_unloaded", model=None, reason="idle")
    host.close()
    assert __import__("site_lean").SEEN == [1]

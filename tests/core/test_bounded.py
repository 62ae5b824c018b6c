"""Formats, registries, dialects and probes that raise or hang count as offering nothing, and are not asked in vain."""

from __future__ import annotations

import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from corectl import deadline
from corectl.errors import BadModelFile, LoadFailed
from corectl.hardware.device import Device
from corectl.hardware.inventory import Inventory
from corectl.messages import Template
from corectl.model.bounded import BoundedFormat
from corectl.model.files import ModelFiles
from corectl.model.name import ModelName
from corectl.output.bounded import BoundedDialect
from corectl.output.choose import choose_dialect
from corectl.plugins.offers import BOUNDED
from corectl.registry.bounded import BoundedRegistry
from corectl.runner.engine import Availability
from corectl.scheduler.backends import Backends

NAME = ModelName.parse("it")
FILES = ModelFiles(weights=Path("it"))


class Trouble:
    """A plugin's object whose every method does the same: it hangs, raises, or answers."""

    name = "trouble"
    aliases = ("bad",)
    formats = ("fake",)

    def __init__(self, what: Any) -> None:
        self.what = what
        self.asked = 0
        self.go_on = threading.Event()

    def answer(self, *_: Any) -> Any:
        self.asked += 1
        if self.what == "hang":
            self.go_on.wait(60)
        if isinstance(self.what, BaseException):
            raise self.what
        return self.what

    claims = describe = list = find = devices = availability = shape = reader = answer


@pytest.fixture(autouse=True)
def impatient(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(deadline, "SECONDS", 0.1)


@pytest.fixture
def hangs() -> Iterator[Trouble]:
    trouble = Trouble("hang")
    yield trouble
    trouble.go_on.set()


def test_a_registry_that_hangs_offers_nothing_and_is_named_once(
    hangs: Trouble, caplog: pytest.LogCaptureFixture
) -> None:
    registry = BoundedRegistry(hangs)
    assert registry.list() == () and registry.find(NAME) is None and registry.list() == ()
    assert hangs.asked == 1
    (line,) = [record.getMessage() for record in caplog.records]
    assert line == "registry trouble did not return within 0.1 seconds; until it does, it offers no models"


@pytest.mark.parametrize("what", [ValueError("no"), SystemExit(1)])
def test_a_registry_that_raises_offers_nothing(what: BaseException, caplog: pytest.LogCaptureFixture) -> None:
    registry = BoundedRegistry(Trouble(what))
    assert registry.list() == () and registry.find(NAME) is None
    assert caplog.text.count("registry trouble failed") == 2


def test_a_registry_that_raises_while_its_list_is_read_offers_nothing() -> None:
    def half() -> Iterator[int]:
        yield 1
        raise ValueError

    assert BoundedRegistry(Trouble(half())).list() == ()


def test_what_a_registry_says_of_one_model_reaches_the_client(caplog: pytest.LogCaptureFixture) -> None:
    registry = BoundedRegistry(Trouble(BadModelFile("it is damaged")))
    with pytest.raises(BadModelFile, match="it is damaged"):
        registry.find(NAME)
    assert registry.list() == () and "it is damaged" in caplog.text


@pytest.mark.parametrize("what", [ValueError("no"), SystemExit(1), "hang"])
def test_a_format_that_cannot_say_does_not_claim_files(what: Any, caplog: pytest.LogCaptureFixture) -> None:
    trouble = Trouble(what)
    assert BoundedFormat(trouble).claims(FILES) is False
    assert "model format trouble does not say" in caplog.text
    trouble.go_on.set()


def test_a_format_that_hangs_fails_its_models_only(hangs: Trouble) -> None:
    kind = BoundedFormat(hangs)
    for said in ("did not return within", "still not returned"):
        with pytest.raises(LoadFailed, match=f"model format trouble .*{said}"):
            kind.describe(FILES)
    assert hangs.asked == 1
    with pytest.raises(BadModelFile, match="too short"):
        BoundedFormat(Trouble(BadModelFile("too short"))).describe(FILES)


@pytest.mark.parametrize("what", [ValueError("no"), SystemExit(1), "hang"])
def test_a_dialect_that_cannot_say_does_not_stand_in_the_way(
    what: Any, caplog: pytest.LogCaptureFixture
) -> None:
    trouble = Trouble(what)
    dialects = {"trouble": BoundedDialect(trouble)}
    for text in ("one", "two", "one"):
        chosen, notices = choose_dialect(dialects, "", Template(kind="go", text=text))
        assert chosen.name != "trouble" and notices == ()
    assert "dialect trouble does not say whether it claims a template" in caplog.text
    trouble.go_on.set()


def test_a_dialect_is_asked_once_for_a_template_and_can_be_named() -> None:
    trouble = Trouble(True)
    dialects = {"trouble": BoundedDialect(trouble)}
    template = Template(kind="go", text="it")
    for _ in range(3):
        assert choose_dialect(dialects, "", template)[0].name == "trouble"
    assert trouble.asked == 1
    for number in range(100):
        dialects["trouble"].claims(Template(kind="go", text=str(number)))
    assert len(dialects["trouble"]._claims) == 16
    assert choose_dialect(dialects, "bad", None)[0] is dialects["trouble"]


def test_a_probe_that_hangs_reports_nothing_and_the_others_are_asked(
    hangs: Trouble, caplog: pytest.LogCaptureFixture
) -> None:
    cpu = Device(id="cpu", kind="cpu", name="CPU", memory_total=2, memory_free=1)
    inventory = Inventory({"a": hangs, "b": Trouble([cpu]), "c": Trouble(SystemExit(1))})
    for _ in range(2):
        assert [device.id for device in inventory.probe()] == ["cpu"]
    assert hangs.asked == 1 and set(inventory.failures) == {"a", "c"}
    assert caplog.text.count("hardware probe a did not return within 0.1 seconds") == 1


@pytest.mark.parametrize(
    ("what", "reason"),
    [
        ("hang", "availability() did not return within 0.1 seconds"),
        (SystemExit(1), "availability() raised RuntimeError: SystemExit: 1"),
    ],
)
def test_a_backend_that_cannot_say_whether_it_can_is_not_chosen(what: Any, reason: str) -> None:
    trouble, fine = Trouble(what), Trouble(Availability(variant="cpu", version="1"))
    fine.name = "fine"
    backends: Any = {"trouble": trouble, "fine": fine}
    assert Backends(backends).choose(format="fake").backend.name == "fine"
    del backends["fine"]
    with pytest.raises(Exception, match="no backend for fake models can be used here") as refused:
        Backends(backends).choose(format="fake")
    assert reason in str(refused.value)
    trouble.go_on.set()


def test_the_host_hands_out_bounded_ones() -> None:
    kinds = {"corectl_model_formats", "corectl_registries", "corectl_dialects", "corectl_remote_backends"}
    assert set(BOUNDED) == kinds

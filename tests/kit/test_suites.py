"""The suites of small kinds: they pass what is right, and find what is wrong."""

from __future__ import annotations

import asyncio
import random
import sys
import time
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import click
import msgspec
import pytest

from corectl.cli.offered import CliCommand
from corectl.errors import BadModelFile, BadRequest
from corectl.hardware.device import Device
from corectl.messages import Notice, Template
from corectl.model.files import ModelFiles
from corectl.model.formats import ModelDescription
from corectl.output.dialect import OutputRequest, OutputShape, Part
from corectl.output.plain import PlainDialect, PlainReader
from corectl.search.provider import SearchResult, WebPage
from corectl.testing import (
    CommandSuite,
    DialectSuite,
    FormatSuite,
    PolicySuite,
    ProbeSuite,
    RegistrySuite,
    SearchSuite,
    Suite,
)
from corectl_policies import DefaultPolicy


def finds(suite: Suite, check: str, *arguments: Any) -> bool:
    """Whether a check fails."""
    try:
        getattr(suite, check)(*arguments)
    except (Exception, pytest.fail.Exception):
        return True
    return False


def suite_of(kind: type[Suite], method: str, subject: object, **attributes: Any) -> Any:
    """A suite whose method returns this."""
    return type(kind.__name__, (kind,), {method: lambda self: subject, **attributes})()


class Provider:
    """Finds pages that it makes up."""

    name = "fake"

    async def search(self, query: str, max_results: int) -> Sequence[SearchResult]:
        await asyncio.sleep(0)
        pages = (
            SearchResult(title=f"Page {number}", url=f"https://example.com/{number}", content=query)
            for number in range(20)
        )
        return list(pages)[:max_results]

    async def fetch(self, url: str) -> WebPage:
        if not url.startswith("https://example.com/"):
            raise BadRequest(f"{url!r} is no address")
        return WebPage(title="Page", content="text", links=("https://example.com/2",))


class TestFakeSearch(SearchSuite):
    address = "https://example.com/1"

    def provider(self) -> Provider:
        return Provider()


class Generous(Provider):
    async def search(self, query: str, max_results: int) -> Sequence[SearchResult]:
        return await super().search(query, max_results + 1)


class Fussy(Provider):
    async def search(self, query: str, max_results: int) -> Sequence[SearchResult]:
        if "\x00" in query:
            raise ValueError("NUL")
        return await super().search(query, max_results)


class Credulous(Provider):
    async def fetch(self, url: str) -> WebPage:
        return WebPage(title="Page", content="text")


@pytest.mark.parametrize(
    ("provider", "check"),
    [(Generous(), "test_search"), (Fussy(), "test_strange_queries"), (Credulous(), "test_fetching")],
)
def test_what_is_wrong_with_search_providers(provider: Provider, check: str) -> None:
    assert finds(suite_of(SearchSuite, "provider", provider, address=TestFakeSearch.address), check)


@click.command()
def greet() -> None:
    """Says hello."""


class TestFakeCommand(CommandSuite):
    def command(self) -> CliCommand:
        return CliCommand(name="greet", help="Says hello", make=lambda: greet)


def test_what_is_wrong_with_commands() -> None:
    @click.command(context_settings={"ignore_unknown_options": True})
    @click.argument("words", nargs=-1)
    def echo(words: tuple[str, ...]) -> None:
        pass

    takes_all = CliCommand(name="echo", help="Says it again", make=lambda: echo)
    assert finds(suite_of(CommandSuite, "command", takes_all), "test_unknown_options")
    silent = CliCommand(name="greet", help=" ", make=lambda: greet)
    assert finds(suite_of(CommandSuite, "command", silent), "test_help")


def device(**changes: Any) -> Device:
    values = {"id": "a", "kind": "cuda", "name": "GPU", "memory_total": 2, "memory_free": 1}
    return Device(**{**values, **changes})


class Probe:
    name = "fake"

    def __init__(self, find: Callable[[], list[Device]]) -> None:
        self.devices = find


def _slow() -> list[Device]:
    until = time.process_time() + 0.6
    while time.process_time() < until:
        pass
    return []


def _loud() -> list[Device]:
    sys.stdout.write("looking\n")
    return []


@pytest.mark.parametrize(
    ("find", "check"),
    [
        (lambda: [device(), device()], "test_devices"),
        (lambda: [device(memory_free=3)], "test_devices"),
        (lambda: [device(unusable="too old")], "test_devices"),
        (lambda: [device(also=("cuda",))], "test_devices"),
        (lambda: [device(id=str(random.random()))], "test_repeated"),
        (_slow, "test_speed"),
    ],
)
def test_what_is_wrong_with_probes(find: Callable[[], list[Device]], check: str) -> None:
    assert finds(suite_of(ProbeSuite, "probe", Probe(find)), check)
    assert not finds(suite_of(ProbeSuite, "probe", Probe(lambda: [device()])), check)


def test_a_probe_that_prints(capfd: pytest.CaptureFixture[str]) -> None:
    assert finds(suite_of(ProbeSuite, "probe", Probe(_loud)), "test_silence", capfd)


class Careless(DefaultPolicy):
    """Gives everything as much as there is, and more."""

    def place(self, question: Any) -> Any:
        found = super().place(question)
        if found is None:
            return None
        uses = tuple(msgspec.structs.replace(use, weights=use.weights * 20) for use in found.estimated)
        return msgspec.structs.replace(found, estimated=uses)


class Moody(DefaultPolicy):
    def next_request(self, waiting: Any) -> int:
        return int(random.choice(waiting).id)

    def evict(self, resident: Any) -> str:
        return "nobody"

    def place(self, question: Any) -> Any:
        found = super().place(question)
        return found and msgspec.structs.replace(found, num_ctx=1)


@pytest.mark.parametrize(
    ("policy", "check"),
    [
        (Careless(), "test_room"),
        (Moody(), "test_next_request"),
        (Moody(), "test_eviction"),
        (Moody(), "test_placement"),
    ],
)
def test_what_is_wrong_with_policies(policy: DefaultPolicy, check: str) -> None:
    assert finds(suite_of(PolicySuite, "policy", policy), check)


class Trimming(PlainReader):
    """Loses blanks at the ends of chunks."""

    def push(self, text: str) -> list[Part]:
        return [Part(text=text.rstrip())]


class Forgetful(PlainReader):
    """Takes what looks like a tag away, with what is in it."""

    def push(self, text: str) -> list[Part]:
        return [Part(text=text.partition("alpha")[0])]

    notices: list[Notice] = []


class Greedy(PlainDialect):
    name = "greedy"
    reading: type[PlainReader] = PlainReader

    def claims(self, template: Template) -> bool:
        return True

    def reader(self, request: OutputRequest) -> PlainReader:
        return self.reading()

    def shape(self, request: OutputRequest) -> OutputShape:
        calls = 'calls: "<call>" /[a-z]+/ "</call>"'
        return OutputShape(call_openers=("<call>",), calls=calls if request.tools else "")


@pytest.mark.parametrize(
    ("reading", "check"),
    [
        (PlainReader, "test_claims"),
        (PlainReader, "test_calls"),
        (Trimming, "test_plain_text"),
        (Forgetful, "test_nothing_is_lost"),
    ],
)
def test_what_is_wrong_with_dialects(reading: type[PlainReader], check: str) -> None:
    dialect = type("Dialect", (Greedy,), {"reading": reading})()
    assert finds(suite_of(DialectSuite, "dialect", dialect), check)
    assert finds(suite_of(DialectSuite, "dialect", PlainDialect()), check) == (check == "test_calls")


class Believing:
    """Believes what files say."""

    name = "believing"

    def claims(self, files: ModelFiles) -> bool:
        return files.weights.is_file() and files.weights.read_bytes()[:1] == b"B"

    def describe(self, files: ModelFiles) -> ModelDescription:
        data = files.weights.read_bytes()
        return ModelDescription(architecture=data[1:9].decode("ascii"), capabilities=("completion",))


class Checking(Believing):
    def describe(self, files: ModelFiles) -> ModelDescription:
        try:
            if not self.claims(files) or len(files.weights.read_bytes()) != 20:
                raise BadModelFile("this is none")
            return super().describe(files)
        except UnicodeDecodeError as exc:
            raise BadModelFile("this is no name") from exc


def test_what_is_wrong_with_formats(tmp_path_factory: pytest.TempPathFactory) -> None:
    def sample(self: object, factory: pytest.TempPathFactory) -> ModelFiles:
        path = factory.mktemp("model") / "model"
        path.write_bytes(b"B" + b"letters!" + bytes(11))
        return ModelFiles(weights=path)

    for check in ("test_damaged_files", "test_other_files", "test_truncated_header"):
        names = ["tmp_path", "tmp_path_factory"] if check != "test_other_files" else ["tmp_path"]
        for subject, wrong in ((Believing(), True), (Checking(), False)):
            given = {"tmp_path": tmp_path_factory.mktemp("damaged"), "tmp_path_factory": tmp_path_factory}
            suite = suite_of(FormatSuite, "format", subject, sample=sample)
            assert finds(suite, check, *(given[name] for name in names)) == wrong, (check, subject)


def test_a_registry_that_offers_nothing() -> None:
    class Empty:
        name = "empty"

        def list(self) -> list[Path]:
            return []

        def find(self, name: object) -> None:
            return None

    assert finds(suite_of(RegistrySuite, "registry", Empty()), "test_listing")
    excused = suite_of(RegistrySuite, "registry", Empty(), cannot={"listing": "there is nothing"})
    assert not finds(excused, "test_listing")

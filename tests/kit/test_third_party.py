"""The kit in somebody else's project: a plugin that is installed by itself, with the tests from the documentation."""

from __future__ import annotations

import os
import shutil
import subprocess
import sys
from pathlib import Path

import msgspec
import pytest

from corectl.testing import BackendSuite
from corectl.testing.results import Outcome, Subject, read_results
from tests.core.fake import write_distribution
from tests.docs.blocks import ROOT, read_page

PAGE = ROOT / "docs" / "plugins" / "testing.md"
BIGRAM = Path(__file__).parent / "bigram"


class Project:
    """The plugin and its tests, as they lie on its author's machine."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self.site = folder / "site"
        shutil.copytree(BIGRAM, self.site, ignore=shutil.ignore_patterns("__pycache__"))
        write_distribution(self.site, "corectl-bigram", {"corectl": {"bigram": "corectl_bigram"}})
        for block in read_page(PAGE):
            if block.directive == "file":
                target = folder / block.value.partition("/")[2]
                target.parent.mkdir(exist_ok=True)
                target.write_text(block.text, "utf-8")

    def change(self, file: str, old: str, new: str) -> None:
        path = self.folder / file
        text = path.read_text("utf-8")
        assert old in text
        path.write_text(text.replace(old, new), "utf-8")

    def test(self, *options: str) -> tuple[int, str]:
        """The exit status of pytest, and what it says."""
        ended = subprocess.run(
            [sys.executable, "-m", "pytest", "-q", "-p", "no:cacheprovider", *options, "tests"],
            cwd=self.folder,
            env={**os.environ, "PYTHONPATH": str(self.site), "PYTEST_DISABLE_PLUGIN_AUTOLOAD": "1"},
            capture_output=True,
            text=True,
            check=False,
        )
        return ended.returncode, ended.stdout + ended.stderr

    def found(self) -> Subject:
        """What the results file says."""
        return read_results(self.folder / "found.json").subject("backend", "bigram")


@pytest.fixture
def project(tmp_path: Path) -> Project:
    return Project(tmp_path)


def test_the_example_of_the_documentation_passes(project: Project) -> None:
    status, said = project.test("--corectl-conformance", "found.json")
    assert status == 0, said
    found = project.found()
    assert list(found.outcomes) == list(BackendSuite.capabilities())
    assert found.outcomes["masks"] == Outcome("passes")
    assert found.outcomes["images"] == Outcome("cannot", "it only generates")
    assert found.details == "1, cpu"
    assert {outcome.state for outcome in found.outcomes.values()} == {"passes", "cannot"}


class Defect(msgspec.Struct, frozen=True):
    """A change of the plugin's code, and the capability whose check must find it."""

    capability: str
    file: str
    old: str
    new: str


FEED = "logits: npt.NDArray[np.float32] = self._table[tokens[-1]].copy()"
CHECK = "if data.size != SIZE * SIZE or weights.stat().st_size != data.nbytes or not np.isfinite(data).all():"
DEFECTS = {
    "an engine that is imported too early": Defect(
        "availability",
        "__init__.py",
        "from corectl import hookimpl\n",
        "import corectl_bigram.engine\nfrom corectl import hookimpl\n",
    ),
    "an option that there is not": Defect(
        "availability", "__init__.py", 'version="1")', 'version="1", ignores=("luck",))'
    ),
    "an estimate that is far off": Defect("memory estimate", "__init__.py", ".st_size)", ".st_size // 10)"),
    "progress that is not told": Defect("load progress", "__init__.py", "progress(1.0)", "progress"),
    "half a file that is loaded": Defect(
        "load failures", "engine.py", CHECK, "data = np.resize(data, SIZE * SIZE)\n        if not data.size:"
    ),
    "a crash at a bad file": Defect(
        "load failures", "engine.py", CHECK, f"{CHECK}\n            __import__('os').abort()"
    ),
    "files that stay open": Defect(
        "load and unload",
        "engine.py",
        "        try:\n            data",
        "        ByteTokenizer.__dict__['encode'].__dict__[self] = weights.open()\n        try:\n            data",
    ),
    "characters that are lost": Defect(
        "any text", "engine.py", 'part.encode("utf-8", "replace")', 'part.encode("ascii", "replace")'
    ),
    "control tokens that are shown": Defect(
        "tokenizer", "engine.py", 'NAME.encode() if special else b""', "NAME.encode()"
    ),
    "chance where there must be none": Defect(
        "greedy", "engine.py", FEED, f"{FEED} * np.float32(np.random.default_rng().choice([-1, 1]))"
    ),
    "a mask that stays": Defect("masks", "engine.py", FEED, "logits = self._table[tokens[-1]]"),
    "pieces that change a prompt": Defect(
        "chunked prefill", "engine.py", FEED, "logits = np.roll(self._table[tokens[-1]], len(tokens))"
    ),
    "sequences that hear one another": Defect(
        "batching",
        "engine.py",
        FEED,
        "BigramStream.last, before = tokens[-1], getattr(BigramStream, 'last', 0)\n"
        "        logits = self._table[tokens[-1]] + self._table[before]",
    ),
    "a crash at a strange token": Defect(
        "crash", "engine.py", FEED, f"len(tokens) > 3 and __import__('os').abort()\n        {FEED}"
    ),
}


@pytest.mark.parametrize("name", DEFECTS)
def test_a_defect_is_found(project: Project, name: str) -> None:
    defect = DEFECTS[name]
    project.change(f"site/corectl_bigram/{defect.file}", defect.old, defect.new)
    check = "test_" + defect.capability.replace(" ", "_")
    status, said = project.test("--corectl-conformance", "found.json", "-k", check)
    assert status == 1, said
    assert project.found().outcomes[defect.capability].state == "fails", said


@pytest.mark.parametrize(
    ("old", "new", "complaint"),
    [
        ('"images":', '"imges":', "there is no capability 'imges'"),
        ('"images":', '"greedy":', "every backend must have 'greedy'"),
        ('"its tokens do not move"', '" "', "say why there is no 'context shift'"),
    ],
)
def test_what_cannot_be_excused(project: Project, old: str, new: str, complaint: str) -> None:
    project.change("tests/test_bigram.py", old, new)
    status, said = project.test()
    assert status == 2 and complaint in said


@pytest.mark.parametrize(
    "capability", ["masks", "logprobs", "prefix sharing", "batching", "penalties", "any text"]
)
def test_an_excuse_for_what_works_is_refused(project: Project, capability: str) -> None:
    project.change("tests/test_bigram.py", "cannot = {", f'cannot = {{"{capability}": "it is too hard",')
    check = "test_" + capability.replace(" ", "_")
    status, said = project.test("-k", check)
    assert status == 1, said


def test_a_plugin_that_is_not_installed(project: Project) -> None:
    shutil.rmtree(next(project.site.glob("*.dist-info")))
    status, said = project.test("-k", "crash")
    assert status == 1 and "no installed plugin offers 'bigram'" in said


def test_an_engine_that_is_not_there(project: Project) -> None:
    project.change(
        "site/corectl_bigram/__init__.py",
        'Availability(variant="cpu", version="1")',
        'Availability(reason="no bytes here")',
    )
    status, said = project.test("--corectl-conformance", "found.json")
    assert status == 0, said
    outcomes = project.found().outcomes
    assert outcomes["availability"] == Outcome("passes")
    assert outcomes["crash"] == Outcome("not run", "bigram: no bytes here")

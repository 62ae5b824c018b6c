"""The page about importing lists what is converted, and nothing else."""

from __future__ import annotations

import re
from pathlib import Path

from corectl_convert.families import FAMILIES
from corectl_convert.lora import BASES
from corectl_convert.tokenizers.pretokenizers import KNOWN

PAGE = (Path(__file__).parents[2] / "docs/importing.md").read_text("utf-8")


def test_all_architectures_are_in_the_table() -> None:
    rows = [
        line.split("|")[1] for line in PAGE.splitlines() if re.match(r"\| `\w+(Model|LM|Generation)`", line)
    ]
    assert {name for row in rows for name in re.findall(r"`(\w+)`", row)} == FAMILIES.keys()


def test_all_pre_tokenizers_are_listed() -> None:
    (listed,) = re.findall(r"The names of `tokenizer\.ggml\.pre` that are known: ([^.]+)\.", PAGE)
    assert set(re.findall(r"`([^`]+)`", listed)) == {*KNOWN.values(), "roberta-bpe"}


def test_all_bases_of_adapters_are_listed() -> None:
    (listed,) = re.findall(r"for models of the architectures (.+?) that\s+are GGUF", PAGE.replace("\n", " "))
    assert set(re.findall(r"`([^`]+)`", listed)) == set(BASES)

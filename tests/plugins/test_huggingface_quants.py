"""Which GGUF file a tag means, by nothing but the names of files."""

from __future__ import annotations

import re

import pytest
from hypothesis import given
from hypothesis import strategies as st

from corectl.errors import NotFound
from corectl_huggingface.quants import choose, projector, quant_of, variants


def chosen(tag: str, *paths: str) -> tuple[str, ...]:
    return choose(variants(paths), tag).files


@pytest.mark.parametrize(
    ("path", "quant"),
    [
        ("Llama-3.2-1B-Instruct-Q4_K_M.gguf", "Q4_K_M"),
        ("qwen2.5-0.5b-instruct-q4_k_m.gguf", "Q4_K_M"),
        ("model.Q8_0.gguf", "Q8_0"),
        ("ggml-model-f16.gguf", "F16"),
        ("m-fp16.gguf", "FP16"),
        ("m-BF16.gguf", "BF16"),
        ("m-UD-Q4_K_XL.gguf", "UD-Q4_K_XL"),
        ("m-IQ2_XXS.gguf", "IQ2_XXS"),
        ("m-IQ4_NL.gguf", "IQ4_NL"),
        ("m-Q4_0_4_8.gguf", "Q4_0_4_8"),
        ("m-TQ1_0.gguf", "TQ1_0"),
        ("gpt-oss-20b-mxfp4.gguf", "MXFP4"),
        ("m-Q4_K_M-v2.gguf", "Q4_K_M"),
        ("m-Q4_K_M_v2.gguf", "Q4_K_M"),
        ("Q6_K/m-00001-of-00002.gguf", "Q6_K"),
        ("Q6_K/m-Q5_K_S-00001-of-00002.gguf", "Q5_K_S"),
        ("model.gguf", ""),
        ("Q4ever.gguf", ""),
        ("BigF16Model.gguf", ""),
    ],
)
def test_names_say_how_weights_are_quantised(path: str, quant: str) -> None:
    assert quant_of(path) == quant


def test_tags_are_compared_without_case() -> None:
    paths = ("m-Q4_K_M.gguf", "m-q8_0.gguf", "m-fp16.gguf", "m-UD-Q2_K_XL.gguf")
    assert chosen("q8_0", *paths) == chosen("Q8_0", *paths) == ("m-q8_0.gguf",)
    assert chosen("f16", *paths) == chosen("FP16", *paths) == ("m-fp16.gguf",)
    assert chosen("ud-q2_k_xl", *paths) == chosen("Q2_K_XL", *paths) == ("m-UD-Q2_K_XL.gguf",)


def test_the_name_of_a_file_is_a_tag() -> None:
    paths = ("a-Q4_K_M.gguf", "b-Q4_K_M.gguf", "x/c-Q8_0-00001-of-00002.gguf", "x/c-Q8_0-00002-of-00002.gguf")
    assert chosen("Q4_K_M", *paths) == ("a-Q4_K_M.gguf",)
    for tag in ("b-Q4_K_M.gguf", "b-q4_k_m"):
        assert chosen(tag, *paths) == ("b-Q4_K_M.gguf",)
    for tag in ("c-Q8_0", "c-Q8_0-00001-of-00002.gguf"):
        assert chosen(tag, *paths) == paths[2:]


@pytest.mark.parametrize(
    ("quants", "best"),
    [
        (("Q8_0", "Q4_K_M", "Q2_K"), "Q4_K_M"),
        (("Q8_0", "UD-Q4_K_XL", "Q2_K"), "UD-Q4_K_XL"),
        (("Q8_0", "Q6_K", "F16"), "Q6_K"),
        (("F32", "F16", "Q8_0"), "Q8_0"),
        (("Q2_K", "Q3_K_M"), "Q3_K_M"),
        (("F32", "BF16"), "BF16"),
        (("IQ1_S", "TQ1_0"), "IQ1_S"),
    ],
)
def test_latest_is_four_bits_or_what_is_nearest(quants: tuple[str, ...], best: str) -> None:
    assert chosen("latest", *(f"m-{quant}.gguf" for quant in quants)) == (f"m-{best}.gguf",)


def test_files_without_a_quantisation_have_their_names() -> None:
    offered = variants(["b.gguf", "a.gguf", "deep/a.gguf"])
    assert [variant.label for variant in offered] == ["a", "b"]
    assert choose(offered, "latest").files == ("a.gguf",)
    assert choose(offered, "B").files == ("b.gguf",)


def test_shards_belong_together_or_are_left_out() -> None:
    whole = [f"Q8_0/m-0000{number}-of-00003.gguf" for number in (2, 3, 1)]
    half = ["m-Q4_K_M-00001-of-00002.gguf", "m-Q2_K-00002-of-00002.gguf", "m-Q3_K_S-00003-of-00002.gguf"]
    (only,) = variants([*whole, *half])
    assert (only.label, only.files) == ("Q8_0", tuple(sorted(whole)))


def test_what_helps_weights_is_no_model() -> None:
    paths = [
        "mmproj-model-f16.gguf",
        "imatrix.gguf",
        "m.imatrix.gguf",
        "m-Q8_0.gguf",
        "README.md",
        "m-Q4_0.bin",
    ]
    assert [variant.label for variant in variants(paths)] == ["Q8_0"]
    assert variants(paths[:3]) == []


def test_of_projectors_the_one_of_16_bits_is_taken() -> None:
    every = ["mmproj-F32.gguf", "mmproj-Q8_0.gguf", "mmproj-BF16.gguf", "mmproj-F16.gguf"]
    assert projector(every) == "mmproj-F16.gguf"
    assert projector(every[:3]) == "mmproj-BF16.gguf"
    assert projector(["x/gemma-mmproj.gguf"]) == "x/gemma-mmproj.gguf"
    assert projector(["m-Q8_0.gguf"]) is None


def test_what_is_not_there_is_answered_with_what_is() -> None:
    with pytest.raises(NotFound, match=re.escape('no quantization "Q9_0"; it has Q4_K_M, Q8_0')):
        chosen("Q9_0", "m-Q4_K_M.gguf", "m-Q8_0.gguf")
    with pytest.raises(NotFound, match="and 960 more") as raised:
        chosen("Q9_0", *(f"m{number}.gguf" for number in range(1000)))
    assert len(raised.value.message) < 500


@given(
    st.lists(st.text(st.characters(codec="utf-8"), max_size=40).map(lambda text: f"{text}.gguf"), max_size=20)
)
def test_any_names_give_labels_that_find_them(paths: list[str]) -> None:
    offered = variants(paths)
    labels = [variant.label.casefold() for variant in offered]
    assert len(set(labels)) == len(labels)
    for variant in offered:
        assert set(variant.files) <= set(paths)
        if variant.label.casefold() != "latest":
            assert choose(offered, variant.label) == variant

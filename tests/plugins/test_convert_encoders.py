"""Random encoders: llama.cpp's vectors from their conversions are those of transformers."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest

from corectl.errors import BadModelFile, CorectlError, NotSupported
from corectl.model.gguf import read_header
from corectl.runner.engine import Passage
from tests.backends.conftest import load
from tests.plugins.convert_kit import (
    VOCABULARY,
    Array,
    byte_level,
    change_json,
    converted,
    files_of,
    roberta,
    unigram,
    wordpiece,
    write_json,
)
from tests.plugins.test_convert_architectures import randomized, save

torch = pytest.importorskip("torch", reason="transformers computes with torch")
transformers = pytest.importorskip("transformers")
pytest.importorskip("llama_cpp")

COMMON: dict[str, Any] = {
    "vocab_size": VOCABULARY,
    "hidden_size": 64,
    "intermediate_size": 96,
    "num_hidden_layers": 2,
    "num_attention_heads": 4,
    "max_position_embeddings": 64,
}
TOKENIZERS = {
    "Bert": wordpiece,
    "NomicBert": wordpiece,
    "Roberta": roberta,
    "XLMRoberta": unigram,
    "Qwen3": byte_level,
}
TEXTS = ("hello world", "the sky is blue", "unaffable")
POOLINGS = {"mean_tokens": 1, "cls_token": 2, "lasttoken": 3}


def written(folder: Path, kind: str, **changes: Any) -> Any:
    values = {**COMMON, **changes}
    if kind in ("Roberta", "XLMRoberta"):
        values |= {"pad_token_id": 1, "bos_token_id": 0, "eos_token_id": 2}
    if kind == "Qwen3":
        values |= {"num_key_value_heads": 2, "head_dim": 16, "eos_token_id": 2}
    model = randomized(
        getattr(transformers, f"{kind}Model")(getattr(transformers, f"{kind}Config")(**values))
    )
    save(model, folder, TOKENIZERS[kind]())
    return model


def pooled_by(folder: Path, mode: str) -> None:
    """Says so as sentence-transformers does."""
    modules = [("", "Transformer"), ("1_Pooling", "Pooling"), ("2_Normalize", "Normalize")]
    write_json(
        folder / "modules.json",
        [{"path": path, "type": f"sentence_transformers.models.{kind}"} for path, kind in modules],
    )
    write_json(folder / "1_Pooling/config.json", {f"pooling_mode_{name}": name == mode for name in POOLINGS})


def vectors(path: Path, texts: tuple[str, ...]) -> tuple[list[list[int]], Array]:
    """The tokens of texts, and llama.cpp's vectors, of length 1."""
    engine = load(path, embedding=True, num_ctx=62, cells=64, num_batch=64)
    tokens = [list(engine.tokenizer.encode(text)) for text in texts]
    found = np.concatenate([engine.embed([Passage(ids)]) for ids in tokens]).astype(np.float32)
    engine.close()
    return tokens, found / np.linalg.norm(found, axis=1, keepdims=True)


def assert_same(folder: Path, model: Any, kind: str, pool: Any = lambda hidden: hidden.mean(0)) -> None:
    tokens, found = vectors(converted(folder), TEXTS)
    tokenizer = TOKENIZERS[kind]()
    assert tokens == [tokenizer.encode(text).ids for text in TEXTS]
    for ids, vector in zip(tokens, found, strict=True):
        with torch.no_grad():
            hidden = model(torch.tensor([ids])).last_hidden_state[0].numpy()
        expected = pool(hidden)
        assert vector @ (expected / np.linalg.norm(expected)) > 0.9999


@pytest.mark.parametrize("kind", TOKENIZERS)
def test_vectors_are_those_of_transformers(tmp_path: Path, kind: str) -> None:
    model = written(tmp_path / "m", kind)
    assert_same(tmp_path / "m", model, kind)


@pytest.mark.parametrize("mode", POOLINGS)
def test_pooling_is_what_sentence_transformers_says(tmp_path: Path, mode: str) -> None:
    model = written(tmp_path / "m", "Bert")
    pooled_by(tmp_path / "m", mode)
    pools: dict[str, Any] = {
        "mean_tokens": lambda hidden: hidden.mean(0),
        "cls_token": lambda hidden: hidden[0],
        "lasttoken": lambda hidden: hidden[-1],
    }
    assert_same(tmp_path / "m", model, "Bert", pools[mode])
    assert read_header(tmp_path / "m.gguf").of_architecture("pooling_type") == POOLINGS[mode]


def test_nomic_bert_has_the_names_of_its_authors(tmp_path: Path) -> None:
    """Published configurations are for the authors' own code."""
    model = written(tmp_path / "m", "NomicBert")
    names = (
        "hidden_size",
        "intermediate_size",
        "num_hidden_layers",
        "num_attention_heads",
        "rope_parameters",
    )
    change_json(
        tmp_path / "m/config.json",
        **dict.fromkeys(names),
        n_embd=64,
        n_inner=96,
        n_layer=2,
        n_head=4,
        n_positions=8192,
        layer_norm_epsilon=model.config.layer_norm_eps,
        rotary_emb_base=1000,
        activation_function="swiglu",
        prenorm=False,
        qkv_proj_bias=False,
        architectures=["NomicBertModel"],
    )
    assert_same(tmp_path / "m", model, "NomicBert")
    assert read_header(tmp_path / "m.gguf").of_architecture("context_length") == 2048


def test_a_checkpoint_for_training_is_as_good(tmp_path: Path) -> None:
    """Its tensors have a prefix, and there are some that give no vectors."""
    model = randomized(transformers.BertForMaskedLM(transformers.BertConfig(**COMMON)))
    save(model, tmp_path / "m", wordpiece())
    assert_same(tmp_path / "m", model.bert, "Bert")


def with_words(folder: Path, tokenizer: Any, **says: Any) -> None:
    """With vocab.txt instead of tokenizer.json, and with what tokenizer_config.json says."""
    (folder / "tokenizer.json").unlink()
    tokens = sorted(tokenizer.get_vocab().items(), key=lambda item: item[1])
    (folder / "vocab.txt").write_text("".join(f"{token}\n" for token, _ in tokens), "utf-8")
    write_json(folder / "tokenizer_config.json", says)


@pytest.mark.parametrize("lowercase", [True, False])
@pytest.mark.parametrize("accents", [None, True, False])
@pytest.mark.parametrize("words", [True, False])
def test_word_pieces_are_those_of_the_library(
    tmp_path: Path, lowercase: bool, accents: bool | None, words: bool
) -> None:
    """From tokenizer.json, or from vocab.txt."""
    written(tmp_path / "m", "Bert")
    tokenizer = wordpiece(lowercase=lowercase, accents=accents)
    tokenizer.save(str(tmp_path / "m/tokenizer.json"))
    if words:
        with_words(tmp_path / "m", tokenizer, do_lower_case=lowercase, strip_accents=accents)
    texts = ("Hello WORLD, unaffable.", "hello the skys", "thé [MASK] a.", "hé Thé", "漢字 is blue", "")
    found, _ = vectors(converted(tmp_path / "m"), texts)
    assert found == [tokenizer.encode(text).ids for text in texts]


@pytest.mark.parametrize(
    ("changes", "said"),
    [
        ({"position_embedding_type": "relative_key"}, "position_embedding_type"),
        ({"hidden_act": "relu"}, "hidden_act 'relu'"),
        ({"is_decoder": True}, "is_decoder"),
    ],
)
def test_what_llama_cpp_does_not_compute_is_refused(
    tmp_path: Path, changes: dict[str, Any], said: str
) -> None:
    written(tmp_path / "m", "Bert")
    change_json(tmp_path / "m/config.json", **changes)
    with pytest.raises(NotSupported, match=said):
        converted(tmp_path / "m")


@pytest.mark.parametrize(
    ("says", "error", "said"),
    [
        ({"tokenize_chinese_chars": False}, NotSupported, "tokenize_chinese_chars"),
        ({"tokenize_chinese_chars": "no"}, BadModelFile, "tokenizer_config.json: tokenize_chinese_chars"),
        ({"strip_accents": 1}, BadModelFile, "tokenizer_config.json: strip_accents"),
        ({"do_lower_case": "no"}, BadModelFile, "tokenizer_config.json: do_lower_case"),
    ],
)
def test_what_is_said_of_words_is_refused_where_it_cannot_be(
    tmp_path: Path, says: dict[str, Any], error: type[CorectlError], said: str
) -> None:
    written(tmp_path / "m", "Bert")
    with_words(tmp_path / "m", wordpiece(), **says)
    with pytest.raises(error, match=said):
        converted(tmp_path / "m")


def test_modules_that_change_vectors_are_refused(tmp_path: Path) -> None:
    written(tmp_path / "m", "Bert")
    write_json(
        tmp_path / "m/modules.json", [{"path": "2_Dense", "type": "sentence_transformers.models.Dense"}]
    )
    from corectl_convert.converter import SafetensorsToGguf

    assert "Dense" in SafetensorsToGguf().why_not(files_of(tmp_path / "m"))
    with pytest.raises(NotSupported, match="Dense"):
        converted(tmp_path / "m")

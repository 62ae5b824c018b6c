"""The same weights in several forms: unquantised GGUF, a folder as transformers and MLX read it, and ONNX.

All are made from a GGUF file of the Llama architecture with a byte-level vocabulary, such as SmolLM2. With fewer
`layers` than it has, the models are smaller, faster, and talk nonsense, but all the same nonsense.
"""

from __future__ import annotations

import json
import subprocess
import sys
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import numpy.typing as npt
from gguf import GGUFReader, GGUFWriter
from safetensors.numpy import save_file
from tokenizers import AddedToken, Tokenizer, decoders, pre_tokenizers
from tokenizers.models import BPE

Array = npt.NDArray[np.float32]

CONTROL = 3
"""The type of a control token in a GGUF file."""

_NAMES = {
    "attn_norm": "input_layernorm",
    "attn_q": "self_attn.q_proj",
    "attn_k": "self_attn.k_proj",
    "attn_v": "self_attn.v_proj",
    "attn_output": "self_attn.o_proj",
    "ffn_norm": "post_attention_layernorm",
    "ffn_gate": "mlp.gate_proj",
    "ffn_up": "mlp.up_proj",
    "ffn_down": "mlp.down_proj",
}


class Forms:
    """The forms of one model, each made when it is first asked for, in a folder that they share."""

    def __init__(self, source: Path, folder: Path) -> None:
        self._source, self._folder = source, folder

    def gguf(self, layers: int | None = None) -> Path:
        return self._made(f"{layers}.gguf", lambda path: write_gguf(Source(self._source, layers), path))

    def safetensors(self, layers: int | None = None) -> Path:
        return self._made(f"{layers}-hf", lambda path: write_folder(Source(self._source, layers), path))

    def onnx(self, layers: int | None = None) -> Path:
        return self._made(f"{layers}-onnx", lambda path: write_onnx(self.safetensors(layers), path))

    def _made(self, name: str, make: Callable[[Path], Path]) -> Path:
        path = self._folder / name
        return path if path.exists() else make(path)


class Source:
    """A GGUF file as it is read here: its metadata, and its tensors as 32-bit numbers."""

    def __init__(self, path: Path, layers: int | None = None) -> None:
        self._reader = GGUFReader(path)
        self.layers = layers or self.number("llama.block_count")

    def value(self, key: str) -> Any:
        return self._reader.fields[key].contents()

    def number(self, key: str) -> int:
        return int(self.value(key))

    def metadata(self) -> Iterator[tuple[str, Any, Any, Any]]:
        """Key, value, type, and type of the items."""
        for key, field in self._reader.fields.items():
            if not key.startswith("GGUF.") and key != "general.architecture":
                types = field.types
                yield key, field.contents(), types[0], types[-1] if len(types) > 1 else None

    def tensors(self) -> Iterator[tuple[str, Array]]:
        for tensor in self._reader.tensors:
            parts = tensor.name.split(".")
            if parts[0] != "blk" or int(parts[1]) < self.layers:
                yield tensor.name, gguf.dequantize(tensor.data, tensor.tensor_type).astype(np.float32)


def write_gguf(source: Source, path: Path) -> Path:
    """An F16 file of the same weights; norms stay 32 bits wide, as llama.cpp wants them."""
    writer = GGUFWriter(path, "llama")
    for key, value, kind, items in source.metadata():
        changed = {"llama.block_count": source.layers, "general.file_type": 1}.get(key, value)
        writer.add_key_value(key, changed, kind, items)
    for name, values in source.tensors():
        writer.add_tensor(name, values if values.ndim == 1 else values.astype(np.float16))
    writer.write_header_to_file()
    writer.write_kv_data_to_file()
    writer.write_tensors_to_file()
    writer.close()
    return path


def write_folder(source: Source, folder: Path, *, dtype: str = "float32") -> Path:
    """A folder with config.json, tokenizer.json and model.safetensors."""
    folder.mkdir(parents=True, exist_ok=True)
    tensors = {
        _name(name): _unpermuted(source, name, values).astype(dtype) for name, values in source.tensors()
    }
    save_file(tensors, folder / "model.safetensors", metadata={"format": "pt"})
    _write_json(folder / "config.json", _config(source, dtype))
    _write_json(
        folder / "generation_config.json", {"eos_token_id": source.number("tokenizer.ggml.eos_token_id")}
    )
    _tokenizer(source).save(str(folder / "tokenizer.json"))
    tokens = source.value("tokenizer.ggml.tokens")
    names = {
        f"{name}_token": tokens[source.number(f"tokenizer.ggml.{name}_token_id")] for name in ("bos", "eos")
    }
    tokenizer = {
        **names,
        "tokenizer_class": "PreTrainedTokenizerFast",
        "chat_template": source.value("tokenizer.chat_template"),
    }
    _write_json(folder / "tokenizer_config.json", tokenizer)
    return folder


def write_onnx(folder: Path, target: Path, *, precision: str = "fp32") -> Path:
    """A model folder of ONNX Runtime GenAI, made by its own model builder from such a folder."""
    command = [sys.executable, "-m", "onnxruntime_genai.models.builder"]
    paths = ["-i", str(folder), "-o", str(target), "-c", str(target.with_name(f"{target.name}-cache"))]
    subprocess.run(
        [*command, *paths, "-p", precision, "-e", "cpu"], check=True, capture_output=True, timeout=600
    )
    return target


def _name(name: str) -> str:
    fixed = {"token_embd.weight": "model.embed_tokens.weight", "output_norm.weight": "model.norm.weight"}
    if name in fixed:
        return fixed[name]
    if name == "output.weight":
        return "lm_head.weight"
    _, layer, part, kind = name.split(".")
    return f"model.layers.{layer}.{_NAMES[part]}.{kind}"


def _unpermuted(source: Source, name: str, values: Array) -> Array:
    """llama.cpp rotates neighbours, transformers rotates halves: the rows of queries and keys lie otherwise."""
    part = name.split(".")[2] if name.startswith("blk.") else ""
    if part not in ("attn_q", "attn_k"):
        return values
    heads = source.number(f"llama.attention.head_count{'_kv' if part == 'attn_k' else ''}")
    size = values.shape[0] // heads
    return values.reshape(heads, size // 2, 2, -1).swapaxes(1, 2).reshape(values.shape)


def _config(source: Source, dtype: str) -> dict[str, Any]:
    width, heads = source.number("llama.embedding_length"), source.number("llama.attention.head_count")
    return {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": len(source.value("tokenizer.ggml.tokens")),
        "hidden_size": width,
        "intermediate_size": source.number("llama.feed_forward_length"),
        "num_hidden_layers": source.layers,
        "num_attention_heads": heads,
        "num_key_value_heads": source.number("llama.attention.head_count_kv"),
        "head_dim": width // heads,
        "hidden_act": "silu",
        "rms_norm_eps": source.value("llama.attention.layer_norm_rms_epsilon"),
        "rope_theta": source.value("llama.rope.freq_base"),
        "max_position_embeddings": source.number("llama.context_length"),
        "tie_word_embeddings": True,
        "bos_token_id": source.number("tokenizer.ggml.bos_token_id"),
        "eos_token_id": source.number("tokenizer.ggml.eos_token_id"),
        "torch_dtype": dtype,
    }


def _tokenizer(source: Source) -> Tokenizer:
    tokens, kinds = source.value("tokenizer.ggml.tokens"), source.value("tokenizer.ggml.token_type")
    merges = [tuple(pair.split(" ", 1)) for pair in source.value("tokenizer.ggml.merges")]
    tokenizer = Tokenizer(BPE({token: id for id, token in enumerate(tokens)}, merges))
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [
            pre_tokenizers.Digits(individual_digits=True),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=True),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    controls = [token for token, kind in zip(tokens, kinds, strict=True) if kind == CONTROL]
    tokenizer.add_special_tokens([AddedToken(token, special=True, normalized=False) for token in controls])
    return tokenizer


def _write_json(path: Path, value: Any) -> None:
    path.write_text(json.dumps(value), "utf-8")

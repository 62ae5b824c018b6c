"""Small checkpoints with small tokenizers, and what llama.cpp makes of their conversions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from safetensors.numpy import save_file
from tokenizers import AddedToken, Regex, Tokenizer, decoders, models, normalizers, pre_tokenizers, processors
from tokenizers.pre_tokenizers import Metaspace, Split

from corectl.model.files import ModelFiles
from corectl_convert.model import convert

Array = npt.NDArray[np.float32]

VOCABULARY = 384
"""Rows of the embedding; the tokenizers below have fewer tokens."""

QWEN = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"
TEXTS = (
    "hello world",
    " the theory of the other",
    "Ünïcode — 漢字, emoji 😀 and\ttabs\n\n\nlines",
    "numbers 12345 and don't  stop",
    "",
    "<|end|>hello<|end|> the<tool>x",
)
_PAIRS = (
    "t h",
    "th e",
    "h e",
    "l l",
    "he ll",
    "hell o",
    "o r",
    "w or",
    "l d",
    "wor ld",
    "o t",
    "ot he",
    "othe r",
)
_WORDS = (
    "the",
    "hello",
    "world",
    "##s",
    "un",
    "##aff",
    "##able",
    "a",
    "sky",
    "blue",
    "is",
    "##o",
    "h",
    "e",
    "l",
    ".",
)


def files_of(folder: Path) -> ModelFiles:
    """All files of a folder, as a create request brings them."""
    named = {
        path.relative_to(folder).as_posix(): path for path in sorted(folder.rglob("*")) if path.is_file()
    }
    weights = next((path for name, path in named.items() if name.endswith(".safetensors")), folder)
    return ModelFiles(weights=weights, named=named)


def converted(folder: Path) -> Path:
    """The GGUF file of a checkpoint, in 32 bits, so that nothing is rounded."""
    path = folder.with_suffix(".gguf")
    convert(files_of(folder), path, lambda written, total: None, kind="F32")
    return path


def llama(path: Path, *, context: int = 128, **options: Any) -> Any:
    """llama.cpp with the file, with keys and values in 32 bits."""
    import llama_cpp

    return llama_cpp.Llama(
        str(path),
        n_ctx=context,
        n_batch=context,
        n_threads=1,
        n_gpu_layers=0,
        logits_all=True,
        type_k=0,
        type_v=0,
        verbose=False,
        **options,
    )


def logits_of(path: Path, tokens: Sequence[int], *, context: int = 128) -> Array:
    """What llama.cpp predicts after each token."""
    engine = llama(path, context=context)
    engine.eval(list(tokens))
    found = np.array(engine.scores[: len(tokens)], np.float32)
    engine.close()
    return found


def write_json(path: Path, value: Any) -> None:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(value), "utf-8")


def change_json(path: Path, **changes: Any) -> None:
    """Fields of an object in a file, set anew; None takes one away."""
    value = json.loads(path.read_text("utf-8")) | changes
    write_json(path, {key: item for key, item in value.items() if item is not None})


def _merged(alphabet: Mapping[str, int]) -> tuple[dict[str, int], list[tuple[str, str]]]:
    vocabulary = dict(alphabet)
    merges = []
    for pair in _PAIRS:
        left, right = pair.split(" ")
        merges.append((left, right))
        vocabulary.setdefault(left + right, len(vocabulary))
    return vocabulary, merges


def _finished(tokenizer: Tokenizer, *, bos: str = "", eos: str = "") -> Tokenizer:
    tokenizer.add_special_tokens([AddedToken("<|end|>", special=True, normalized=False)])
    tokenizer.add_tokens([AddedToken("<tool>", special=False, normalized=False)])
    if bos or eos:
        tokenizer.post_processor = processors.TemplateProcessing(
            single=" ".join(part for part in (bos, "$A", eos) if part),
            special_tokens=[(token, tokenizer.token_to_id(token)) for token in (bos, eos) if token],
        )
    return tokenizer


def byte_level(*, cut: Any = None, normalizer: Any = None, ignore_merges: bool = False) -> Tokenizer:
    """Byte-level BPE, cut as Qwen2 does it or otherwise."""
    alphabet = {char: id for id, char in enumerate(sorted(pre_tokenizers.ByteLevel.alphabet()))}
    vocabulary, merges = _merged(alphabet)
    tokenizer = Tokenizer(models.BPE(vocabulary, merges, ignore_merges=ignore_merges))
    tokenizer.normalizer = normalizer
    tokenizer.pre_tokenizer = cut or pre_tokenizers.Sequence(
        [
            Split(Regex(QWEN), "isolated"),
            pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
        ]
    )
    tokenizer.decoder = decoders.ByteLevel()
    return _finished(tokenizer)


def sentencepiece(*, prefix: bool = True, trained_otherwise: bool = False) -> Tokenizer:
    """BPE with bytes for what has no token, as Llama 2 (with a space before a text) and Gemma (without) have it."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += ["▁", *"abcdefghijklmnopqrstuvwxyz.,'"]
    vocabulary, merges = _merged({token: id for id, token in enumerate(tokens)})
    for token in ("▁the", "▁hello", "▁wor", "▁▁"):
        vocabulary[token] = len(vocabulary)
    if not trained_otherwise:
        # All ways to a token, in the order of what they give.
        merges = [
            (token[:at], token[at:])
            for token in vocabulary
            if not token.startswith("<")
            for at in range(1, len(token))
            if token[:at] in vocabulary and token[at:] in vocabulary
        ]
    tokenizer = Tokenizer(
        models.BPE(vocabulary, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True)
    )
    blanks = normalizers.Replace(" ", "▁")
    tokenizer.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), blanks]) if prefix else blanks
    if not prefix:
        tokenizer.pre_tokenizer = Split(" ", "merged_with_previous")
    tokenizer.add_special_tokens(["<unk>", "<s>", "</s>"])
    return _finished(tokenizer, bos="<s>")


def metaspace() -> Tokenizer:
    """As Mistral has it since its third version."""
    tokenizer = sentencepiece()
    tokenizer.normalizer = None
    tokenizer.pre_tokenizer = Metaspace(prepend_scheme="first", split=False)
    return tokenizer


def phi3(**flags: Mapping[str, bool]) -> Tokenizer:
    """Phi-3's added tokens, most of which swallow the white space after them; `flags` are others, by token."""
    tokenizer = sentencepiece()
    names = ["endoftext", "assistant", *(f"placeholder{number}" for number in range(1, 7)), "system", "user"]
    tokenizer.add_special_tokens([f"<|{name}|>" for name in names])
    whole = json.loads(tokenizer.to_str())
    for token in whole["added_tokens"]:
        content = token["content"]
        token["rstrip"] = content not in ("<unk>", "<s>", "<|endoftext|>")
        token["special"] = token["special"] and content != "</s>"
        token |= flags.get(content, {})
    return Tokenizer.from_str(json.dumps(whole))


def wordpiece(*, lowercase: bool = True, accents: bool | None = None) -> Tokenizer:
    """BERT's. Without a word about `accents` they are stripped where upper case is."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS]
    tokenizer = Tokenizer(models.WordPiece({token: id for id, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase, strip_accents=accents)
    tokenizer.pre_tokenizer = pre_tokenizers.BertPreTokenizer()
    tokenizer.add_special_tokens(tokens[:5])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="[CLS] $A [SEP]",
        pair="[CLS] $A [SEP] $B:1 [SEP]:1",
        special_tokens=[("[CLS]", 2), ("[SEP]", 3)],
    )
    return tokenizer


def roberta() -> Tokenizer:
    tokenizer = byte_level(cut=pre_tokenizers.ByteLevel(add_prefix_space=False))
    tokenizer.add_special_tokens(["<s>", "</s>"])
    first, last = ((token, tokenizer.token_to_id(token) or 0) for token in ("<s>", "</s>"))
    tokenizer.post_processor = processors.RobertaProcessing(last, first, add_prefix_space=False)
    return tokenizer


def unigram() -> Tokenizer:
    """XLM-RoBERTa's, without its map of characters."""
    pieces = [("<s>", 0.0), ("<pad>", 0.0), ("</s>", 0.0), ("<unk>", 0.0)]
    pieces += [("▁", -3.0), *((char, -6.0) for char in "abcdefghijklmnopqrstuvwxyz.,")]
    pieces += [("▁the", -2.0), ("▁hello", -2.5), ("▁wor", -2.7), ("ld", -3.1), ("ory", -4.0), ("he", -3.3)]
    tokenizer = Tokenizer(models.Unigram(pieces, unk_id=3))
    tokenizer.normalizer = normalizers.Replace(Regex(" {2,}"), " ")
    tokenizer.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.WhitespaceSplit(), Metaspace(prepend_scheme="always")]
    )
    tokenizer.add_special_tokens(["<s>", "<pad>", "</s>", "<unk>"])
    tokenizer.post_processor = processors.TemplateProcessing(
        single="<s> $A </s>", pair="<s> $A </s> </s> $B </s>", special_tokens=[("<s>", 0), ("</s>", 2)]
    )
    return tokenizer


def random_llama(folder: Path, tokenizer: Tokenizer | None = None, **changes: Any) -> Path:
    """A Llama checkpoint of random numbers, without torch; `changes` are of its configuration."""
    config = {
        "architectures": ["LlamaForCausalLM"],
        "model_type": "llama",
        "vocab_size": VOCABULARY,
        "hidden_size": 32,
        "intermediate_size": 48,
        "num_hidden_layers": 1,
        "num_attention_heads": 2,
        "num_key_value_heads": 1,
        "max_position_embeddings": 256,
        "rms_norm_eps": 1e-5,
        "rope_theta": 10_000.0,
        "bos_token_id": 1,
        "eos_token_id": 2,
        "tie_word_embeddings": True,
        **changes,
    }
    write_json(folder / "config.json", config)
    (tokenizer or byte_level()).save(str(folder / "tokenizer.json"))
    shapes = {
        "model.embed_tokens.weight": (config["vocab_size"], 32),
        "model.norm.weight": (32,),
        "model.layers.0.input_layernorm.weight": (32,),
        "model.layers.0.post_attention_layernorm.weight": (32,),
        "model.layers.0.self_attn.q_proj.weight": (32, 32),
        "model.layers.0.self_attn.k_proj.weight": (16, 32),
        "model.layers.0.self_attn.v_proj.weight": (16, 32),
        "model.layers.0.self_attn.o_proj.weight": (32, 32),
        "model.layers.0.mlp.gate_proj.weight": (48, 32),
        "model.layers.0.mlp.up_proj.weight": (48, 32),
        "model.layers.0.mlp.down_proj.weight": (32, 48),
    }
    random = np.random.default_rng(7)
    tensors = {
        name: (random.standard_normal(shape) * 0.2).astype(np.float32) for name, shape in shapes.items()
    }
    save_file(tensors, folder / "model.safetensors")
    return folder

"""Small checkpoints with small tokenizers, and what llama.cpp makes of their conversions."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
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


def sentencepiece(*, prefix: bool = True) -> Tokenizer:
    """BPE with bytes for what has no token, as Llama 2 (with a space before a text) and Gemma (without) have it."""
    tokens = ["<unk>", "<s>", "</s>", *(f"<0x{byte:02X}>" for byte in range(256))]
    tokens += ["▁", *"abcdefghijklmnopqrstuvwxyz.,'"]
    vocabulary, merges = _merged({token: id for id, token in enumerate(tokens)})
    for pair in (("▁", "the"), ("▁", "hello"), ("▁", "wor"), ("▁", "▁")):
        merges.append(pair)
        vocabulary["".join(pair)] = len(vocabulary)
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


def wordpiece(*, lowercase: bool = True) -> Tokenizer:
    """BERT's."""
    tokens = ["[PAD]", "[UNK]", "[CLS]", "[SEP]", "[MASK]", *_WORDS]
    tokenizer = Tokenizer(models.WordPiece({token: id for id, token in enumerate(tokens)}, unk_token="[UNK]"))
    tokenizer.normalizer = normalizers.BertNormalizer(lowercase=lowercase)
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

"""The vocabulary of a model that comes with a `tokenizer.json`, through the library `tokenizers`. In the runner."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable, Sequence
from functools import cache
from pathlib import Path
from typing import TYPE_CHECKING, Any

from corectl.errors import BadModelFile, LoadFailed
from corectl.model.files import read_small

if TYPE_CHECKING:
    from tokenizers import Tokenizer as Native

MAX_FILE = 64 << 20
"""Bytes. The largest vocabularies take 33 million."""

ENDS = frozenset(
    (
        *(
            "<|endoftext|>",
            "<|im_end|>",
            "<|eot_id|>",
            "<|eom_id|>",
            "<|end_of_text|>",
            "<|end|>",
            "<|return|>",
        ),
        *(
            "<end_of_turn>",
            "<eos>",
            "</s>",
            "<|eot|>",
            "<|call|>",
            "<EOT>",
            "<｜end▁of▁sentence｜>",
            "<turn|>",
        ),
    )
)
"""Names of control tokens that end a turn in some family, whether or not its configuration says so."""

_BYTE = re.compile(r"<0x([0-9A-Fa-f]{2})>")


class HfTokenizer:
    """See `corectl.runner.engine.Tokenizer`. `size` is that of the vocabulary, or of the model's if that has less."""

    def __init__(self, folder: Path, *, vocabulary: int, ends: Sequence[int] = ()) -> None:
        """Reads the tokenizer of a model that gives `vocabulary` logits. Raises `LoadFailed` and `BadModelFile`.

        `ends` are tokens that end a text, besides those that the folder's usual files name.
        """
        data = _read(folder, "tokenizer.json")
        if data is None:
            raise LoadFailed("the model has no tokenizer.json; make one with the library transformers")
        self._reading, self._plain = _native(data), _native(data)
        # Then control tokens in a text are nothing but text.
        self._plain.encode_special_tokens = True
        layout = json.loads(data)
        self.size = min(vocabulary, _largest_id(layout) + 1)
        added = {int(item["id"]): item for item in layout.get("added_tokens") or ()}
        self._added = {id: str(item["content"]).encode() for id, item in added.items()}
        self._controls = frozenset(id for id, item in added.items() if item.get("special"))
        parts = (layout.get("decoder") or {}, layout.get("pre_tokenizer") or {})
        self._byte_level = any("ByteLevel" in _types(part) for part in parts)
        self._pieces: dict[int, bytes] = {}
        configs = [
            _json(folder, name) for name in ("generation_config.json", "config.json", "tokenizer_config.json")
        ]
        self._ends = self._end_tokens([*configs, {"eos_token_id": list(ends)}])
        begin = self._reading.encode("", add_special_tokens=True).ids
        wanted = _name(configs[2].get("bos_token"))
        self.adds_bos = bool(begin) and begin[0] not in self._ends
        self.bos_token = self._name_of(begin[0]) if self.adds_bos else wanted
        self.eos_token = _name(configs[2].get("eos_token")) or (
            self._name_of(min(self._ends)) if self._ends else ""
        )

    def encode(self, text: str, *, special: bool = True, add_special: bool = True) -> list[int]:
        native = self._reading if special else self._plain
        # A lone surrogate is no text for the library.
        text = text.encode("utf-8", "replace").decode()
        found: list[int] = native.encode(text, add_special_tokens=add_special).ids
        if found and max(found) >= self.size:
            # Some vocabularies name tokens that the model has no numbers for: in a text, such a name is only a text.
            found = self._plain.encode(text, add_special_tokens=add_special).ids
            found = [token for token in found if token < self.size]
        return found

    def decode(self, tokens: Sequence[int]) -> str:
        return b"".join(self.piece(token, special=True) for token in tokens).decode("utf-8", "replace")

    def piece(self, token: int, *, special: bool = False) -> bytes:
        if token in self._controls or token in self._ends:
            return self._bytes(token) if special else b""
        piece = self._pieces.get(token)
        if piece is None:
            piece = self._pieces[token] = self._bytes(token)
        return piece

    def is_end(self, token: int) -> bool:
        return token in self._ends

    def _bytes(self, token: int) -> bytes:
        if token in self._added:
            return self._added[token]
        text = self._reading.id_to_token(token)
        if text is None:
            return b""
        table = _byte_table()
        if self._byte_level and all(letter in table for letter in text):
            return bytes(table[letter] for letter in text)
        byte = _BYTE.fullmatch(text)
        return bytes([int(byte[1], 16)]) if byte else text.replace("▁", " ").encode()

    def _name_of(self, token: int) -> str:
        return self._reading.id_to_token(token) or ""

    def _end_tokens(self, configs: Iterable[dict[str, Any]]) -> frozenset[int]:
        found: set[int] = set()
        for config in configs:
            ids = config.get("eos_token_id")
            found |= {id for id in (ids if isinstance(ids, list) else [ids]) if isinstance(id, int)}
            name = _name(config.get("eos_token"))
            token = self._reading.token_to_id(name) if name else None
            found |= {token} if token is not None else set()
        found |= {id for id in self._controls if self._added[id].decode("utf-8", "replace") in ENDS}
        return frozenset(id for id in found if 0 <= id < self.size)


def _native(data: bytes) -> Native:
    from tokenizers import Tokenizer as Native

    try:
        native = Native.from_str(data.decode())
    except Exception as exc:
        raise LoadFailed(f"tokenizer.json cannot be used: {str(exc)[:200]}") from exc
    # A file may have been written by one that cuts its texts, or fills them up.
    native.no_truncation()
    native.no_padding()
    return native


def _largest_id(layout: dict[str, Any]) -> int:
    """Numbers of tokens may have gaps, so that there are fewer of them."""
    vocabulary = layout["model"].get("vocab") or ()
    ids = vocabulary.values() if isinstance(vocabulary, dict) else (len(vocabulary) - 1,)
    return max((*ids, *(int(item["id"]) for item in layout.get("added_tokens") or ())), default=-1)


def _read(folder: Path, name: str) -> bytes | None:
    try:
        return read_small(folder / name, MAX_FILE)
    except FileNotFoundError:
        return None
    except OSError as exc:
        raise LoadFailed(f"{name} cannot be read: {exc.strerror}") from exc


def _json(folder: Path, name: str) -> dict[str, Any]:
    data = _read(folder, name)
    try:
        found = json.loads(data) if data is not None else {}
    except (ValueError, RecursionError) as exc:
        raise BadModelFile(f"{name} is no JSON: {exc}") from exc
    return found if isinstance(found, dict) else {}


def _name(value: object) -> str:
    """A token's name as configurations have it: a text, or an object with its content."""
    if isinstance(value, dict):
        value = value.get("content")
    return value if isinstance(value, str) else ""


def _types(part: dict[str, Any]) -> set[str]:
    """The types of a decoder or pre-tokenizer, and of those that it is made of."""
    inner = part.get("decoders") or part.get("pretokenizers") or ()
    return {str(part.get("type")), *(name for item in inner for name in _types(item))}


@cache
def _byte_table() -> dict[str, int]:
    """The letters by which byte-level vocabularies write bytes: printable ones stand for themselves, others follow."""
    printable = [*range(33, 127), *range(161, 173), *range(174, 256)]
    table = {chr(byte): byte for byte in printable}
    others = (byte for byte in range(256) if byte not in printable)
    return table | {chr(256 + place): byte for place, byte in enumerate(others)}

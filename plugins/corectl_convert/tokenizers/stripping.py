"""White space beside tokens: some swallow it, and GGUF has no key that says which.

llama.cpp knows what Phi-3 does, and takes a model for one by its name. So that is the name of a model whose tokens do
the same.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable

from corectl_convert.recipe import Value
from corectl_convert.tokenizers.vocabulary import CONTROL, UNKNOWN, USER_DEFINED, Added, Vocabulary

log = logging.getLogger(__name__)

PHI3 = "phi-3"

KEEPING = frozenset({"<unk>", "<s>", "<|endoftext|>"})
"""Tokens of Phi-3 that swallow nothing, by llama.cpp; all others that are not plain text swallow what follows."""

NEEDED = KEEPING | {"</s>"}
"""llama.cpp does not load a model of that name without these."""


def name_metadata(vocabulary: Vocabulary, added: Iterable[Added]) -> dict[str, Value]:
    """A name, if more tokens are right with it than without. Those that are wrong all the same are logged."""
    # Of two for one id the later one counts, as in `Slots`.
    known = {token.id: token for token in added if token.id < len(vocabulary.tokens)}
    wanted = {id for id, token in known.items() if token.rstrip}
    ways: dict[str, set[int]] = {"": set()}
    if NEEDED.issubset(vocabulary.tokens):
        ways[PHI3] = _swallowing(vocabulary)
    name = min(ways, key=lambda name: len(ways[name] ^ wanted))
    wrong = (ways[name] ^ wanted) | {id for id, token in known.items() if token.lstrip}
    if wrong:
        tokens = ", ".join(vocabulary.tokens[id] for id in sorted(wrong))
        log.warning(
            "llama.cpp treats white space beside these tokens otherwise than the tokenizer: %.300s", tokens
        )
    return {"general.name": name} if name else {}


def _swallowing(vocabulary: Vocabulary) -> set[int]:
    return {
        id
        for id, (token, kind) in enumerate(zip(vocabulary.tokens, vocabulary.kinds, strict=True))
        if kind in (CONTROL, USER_DEFINED, UNKNOWN) and token not in KEEPING
    }

"""Which files of a repository are a model, and what each of them is. Nothing but their names is needed for that."""

from __future__ import annotations

from collections.abc import Collection, Iterable
from pathlib import PurePosixPath

import msgspec

from corectl.model.manifest import MediaType
from corectl_huggingface import quants

CONFIG = "config.json"
INDEX = "model.safetensors.index.json"
MODULES = "modules.json"
SUFFIX = ".safetensors"

_WHOLE = f"model{SUFFIX}"
_TEXTS = {
    "template": MediaType.TEMPLATE,
    "system": MediaType.SYSTEM,
    "params": MediaType.PARAMS,
    "LICENSE": MediaType.LICENSE,
}
"""Files that say how a model is used, and under which terms."""
_BESIDE = frozenset(
    (
        *(CONFIG, "generation_config.json", INDEX, MODULES, "sentence_bert_config.json"),
        *("config_sentence_transformers.json", "preprocessor_config.json", "processor_config.json"),
        *("video_preprocessor_config.json", "chat_template.jinja", "chat_template.json", "tokenizer.json"),
        *("tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json", "vocab.txt"),
        *("merges.txt", "tokenizer.model", "spiece.model", "sentencepiece.bpe.model", "tekken.json"),
    )
)
"""What libraries read beside weights. Weights in other forms and code are never fetched."""


class Part(msgspec.Struct, frozen=True):
    """One layer of a model: the path of its file in the repository, and its name in the model's folder, if it needs
    one."""

    path: str
    media_type: MediaType
    name: str = ""

    @property
    def is_text(self) -> bool:
        """Whether it is written by hand, so that it is short."""
        return self.media_type in _TEXTS.values()


def gguf_parts(paths: Collection[str], variant: quants.Variant) -> tuple[Part, ...]:
    """A model of GGUF files. Shards keep their names: an engine finds the others by that of the first."""
    split = len(variant.files) > 1
    weights = (
        Part(path, MediaType.MODEL, PurePosixPath(path).name if split else "") for path in variant.files
    )
    eye = quants.projector(paths)
    seeing = (Part(eye, MediaType.PROJECTOR),) if eye is not None else ()
    return (*weights, *seeing, *_texts(paths))


def folder_parts(
    paths: Collection[str], shards: Iterable[str] | None, modules: Iterable[str]
) -> tuple[Part, ...]:
    """A model of safetensors files; empty if it is none, or not complete.

    `shards` are the files that the index names, if there is an index. `modules` are the folders of further layers, as
    sentence-transformers has them.
    """
    weights = _weights(paths, shards)
    if not weights or CONFIG not in paths:
        return ()
    folders = tuple(f"{folder}/" for folder in modules if folder)
    inside = [path for path in paths if path.startswith(folders)] if folders else []
    more = [path for path in inside if path.endswith(f"/{_WHOLE}")]
    beside = [path for path in paths if path in _BESIDE]
    beside += [path for path in inside if path.endswith(f"/{CONFIG}")]
    return (
        *(Part(path, MediaType.MODEL, path) for path in (*weights, *sorted(more))),
        *(Part(path, MediaType.JSON, path) for path in sorted(beside)),
        *_texts(paths),
    )


def _weights(paths: Collection[str], shards: Iterable[str] | None) -> list[str]:
    if shards is not None:
        wanted = sorted(set(shards))
        return wanted if all(path in paths and path.endswith(SUFFIX) for path in wanted) else []
    if _WHOLE in paths:
        return [_WHOLE]
    found = sorted(path for path in paths if path.endswith(SUFFIX) and "/" not in path)
    # The same weights once more, under the names that their maker's own program wants.
    found = [path for path in found if not path.startswith("consolidated")] or found
    return found if _complete(found) else []


def _complete(paths: Iterable[str]) -> bool:
    """Whether each file that is one of several has the others beside it."""
    sets: dict[tuple[str, int], set[int]] = {}
    for path in paths:
        if found := quants.shard(path[: -len(SUFFIX)]):
            stem, number, count = found
            sets.setdefault((stem, count), set()).add(number)
    return all(
        len(numbers) == count and min(numbers) == 1 and max(numbers) == count
        for (_, count), numbers in sets.items()
    )


def _texts(paths: Collection[str]) -> Iterable[Part]:
    return (Part(path, media_type) for path, media_type in _TEXTS.items() if path in paths)

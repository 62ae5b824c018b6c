"""Loads a model in ctransformers. In the runner process."""

from __future__ import annotations

import re
import tempfile
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

from ctransformers.llm import LLM, Config

from corectl.errors import BadModelFile, LoadFailed
from corectl.messages import Notice
from corectl.runner.engine import Engine, EngineInfo, ModelSpec, Placement
from corectl_ctransformers.header import Header, read_header, read_vocabulary, weights_of
from corectl_ctransformers.memory import BATCH, Graph, native_context, taken
from corectl_ctransformers.model import GgmlEngine, GgmlModel
from corectl_ctransformers.tokenizer import GgmlTokenizer
from corectl_ctransformers.variant import library_variant

_EIGHT_SHARE = re.compile(r"(\b|_)70b(\b|_)", re.IGNORECASE)
"""A Llama whose path looks like this is taken by the library for one in which 8 queries share a key."""


def load_engine(model: ModelSpec, placement: Placement, progress: Callable[[float], None]) -> Engine:
    """Raises `LoadFailed`, whose text begins with the file's name."""
    progress(0.0)
    path = weights_of(model.weights, model.named)
    name = path.name
    try:
        header = read_header(path)
        vocabulary = read_vocabulary(path, header)
    except BadModelFile as exc:
        raise LoadFailed(f"{name}: {exc.message}") from exc
    except OSError as exc:
        raise LoadFailed(f"{name} cannot be read: {exc.strerror}") from exc
    context = native_context(header, placement.num_ctx)
    graph = Graph(header, context)
    info = _info(header, graph, context, placement)
    if not info.num_ctx:
        raise LoadFailed(f"{name}: this {header.family} model is too wide for the library's buffers")
    try:
        native = _load(path, header, context, use_mmap=placement.use_mmap)
    except (RuntimeError, OSError) as exc:
        raise LoadFailed(
            f"{name}: ctransformers cannot load this {header.family} model ({header.quantization}, file of the kind "
            f"{header.kind}); the log may have more"
        ) from exc
    progress(1.0)
    tokenizer = GgmlTokenizer(header, vocabulary, native.vocab_size)
    # Falcon's keys and values lie as the last step has put them, so there is no way back.
    rewinds = header.layout.family != "falcon"
    return GgmlEngine(GgmlModel(native, info, tokenizer, graph, rewinds=rewinds))


def _load(path: Path, header: Header, context: int, *, use_mmap: bool) -> LLM:
    # What is not aligned cannot be used where it lies.
    config = Config(context_length=context, mmap=use_mmap and header.layout.magic != "ggmf")
    with _named_for(path, header) as named:
        return LLM(str(named), header.layout.loader, config=config, lib=library_variant())


@contextmanager
def _named_for(path: Path, header: Header) -> Iterator[Path]:
    """The file by a path that tells the library the truth about it."""
    if bool(_EIGHT_SHARE.search(str(path))) == (header.sizes.groups == 8):
        yield path
        return
    with tempfile.TemporaryDirectory(prefix="corectl") as folder:
        link = Path(folder, "70b" if header.sizes.groups == 8 else "model")
        link.symlink_to(path.resolve())
        yield link


def _info(header: Header, graph: Graph, context: int, placement: Placement) -> EngineInfo:
    wanted = min(context, placement.num_ctx)
    num_ctx = graph.longest(wanted)
    notices: tuple[Notice, ...] = ()
    if num_ctx < wanted:
        message = f"the context has {num_ctx} tokens, because more do not fit through the library's buffers"
        notices = (Notice(code="reduced_load", message=message),)
    use = taken(header, context)
    return EngineInfo(
        num_ctx=num_ctx,
        cells=num_ctx,
        num_batch=min(placement.num_batch, BATCH),
        max_sequences=1,
        num_thread=placement.num_thread,
        memory=use.total,
        measured=(use,),
        description=f"{header.family} {header.quantization}, {header.kind}, through ctransformers",
        notices=notices,
    )

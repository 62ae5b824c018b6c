"""What a backend and an engine are: tokens in, tokens out.

A `Backend` is the descriptor that a plugin returns: cheap, and asked in the server process. Its `load` is called in
the runner process only, and gives the `Engine`, which the batch loop drives from one thread. Errors of the engine's
library are translated by the backend into `corectl.errors` (`LoadFailed`, `EngineError`).

Plugins import all of it from here. The memory that models take stands in `corectl.runner.memory`, and what a step is
made of in `corectl.runner.work`.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Protocol, runtime_checkable

import msgspec

from corectl.messages import Notice
from corectl.model.files import ModelFiles
from corectl.runner.memory import CacheShape, LayerMemory, MemoryEstimate, MemoryUse
from corectl.runner.work import (
    Candidate,
    Constraint,
    PairTokens,
    Passage,
    Sampled,
    SequenceSpec,
    Work,
)

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt

__all__ = [
    "ArchitectureChecker",
    "Availability",
    "Backend",
    "CacheShape",
    "Candidate",
    "Constraint",
    "CrossEncoder",
    "DetailedBackend",
    "Engine",
    "EngineInfo",
    "LayerMemory",
    "MemoryEstimate",
    "MemoryUse",
    "ModelSpec",
    "PairTokens",
    "Passage",
    "Placement",
    "Quantizer",
    "Sampled",
    "SequenceSpec",
    "Tokenizer",
    "Work",
]


class Availability(msgspec.Struct, frozen=True, kw_only=True):
    """Whether a backend can be used here. `reason` is empty if it can, else says why not and what to type.

    `variant` names the way it computes (cpu, cuda, metal ...), `version` is the engine library's. `ignores` are options
    and settings, by name, that it cannot honour; a request that gives one is told so. `adapters` says that it applies
    the adapters of a model (LoRA); one that does not is not given a model that has some.
    """

    reason: str = ""
    variant: str = ""
    version: str = ""
    ignores: tuple[str, ...] = ()
    adapters: bool = False

    @property
    def usable(self) -> bool:
        return not self.reason


class ModelSpec(ModelFiles, frozen=True, kw_only=True):
    """A model to load, and what belongs to it. `embedding` says that it gives vectors or scores, not text.

    `adapters` are the files of adapters; one that is a folder has them in `adapter_named` too, by their names.
    """

    format: str
    projectors: tuple[Path, ...] = ()
    adapters: tuple[Path, ...] = ()
    adapter_named: dict[str, Path] = {}
    embedding: bool = False

    @property
    def paths(self) -> tuple[Path, ...]:
        """All files, each once; two models that have the same are the same in memory."""
        return tuple(dict.fromkeys((self.weights, *self.named.values(), *self.projectors, *self.adapters)))


class Placement(msgspec.Struct, frozen=True, kw_only=True):
    """Where and how large a model is loaded; every value is settled.

    `num_ctx` is the longest sequence in tokens, `cells` the size of the key-value pool that all sequences share, in
    tokens, `num_batch` the most tokens of one step, `max_sequences` how many may run at once. `devices` are the ids in
    use; of the accelerators among them, `layers` says how many layers each has, in order (the rest is computed by the
    CPU). `num_thread` is the most CPU threads; the runner uses fewer while cores are taken, unless `fixed_threads`.
    `numa` asks for threads and weights that are spread over the machine's NUMA nodes, where it has several.
    `snapshots` is the host memory in bytes for saved states of sequences. `estimated` is what all that should take.
    """

    num_ctx: int
    cells: int
    num_batch: int
    max_sequences: int
    num_thread: int
    fixed_threads: bool = False
    numa: bool = False
    layers: tuple[int, ...] = ()
    use_mmap: bool = True
    devices: tuple[str, ...] = ()
    cache_type: str = "f16"
    flash_attention: bool | None = None
    snapshots: int = 0
    estimated: tuple[MemoryUse, ...] = ()


class EngineInfo(msgspec.Struct, frozen=True, kw_only=True):
    """What was really loaded; limits are in tokens, memory in bytes.

    Besides `max_sequences` that run, `idle_sequences` may keep their tokens for others to begin with. An engine looks
    at their cells too in each step. Above `idle_cells` of them (0: there is no such number) that costs more than it
    should, and some are better saved in the machine's memory. That is worth it from `worth_saving` tokens on: fewer are
    computed again in the time of a copy.

    `memory` is the sum of `measured`, and `gpu_memory` the part of it that lies on accelerators. Where all layers do,
    it is everything: what stays on the host then, such as the token embedding, is only read. `pooling` says what
    becomes of a text: `mean`, `cls` and `last` give a vector, `rank` the score of a pair, `none` a vector for each
    token; empty where the model was not loaded for that. `notices` say what the engine does another way than one may
    think.
    """

    num_ctx: int
    cells: int
    num_batch: int
    max_sequences: int
    num_thread: int
    memory: int
    gpu_memory: int = 0
    measured: tuple[MemoryUse, ...] = ()
    can_shift: bool = False
    idle_sequences: int = 0
    idle_cells: int = 0
    worth_saving: int = 32
    pooling: str = ""
    description: str = ""
    notices: tuple[Notice, ...] = ()


class Tokenizer(Protocol):
    """The model's vocabulary. Safe to use from any thread of the runner."""

    @property
    def bos_token(self) -> str: ...

    @property
    def eos_token(self) -> str: ...

    @property
    def adds_bos(self) -> bool: ...

    @property
    def size(self) -> int:
        """Tokens in the vocabulary."""
        ...

    def encode(self, text: str, *, special: bool = True, add_special: bool = True) -> list[int]:
        """Tokens of `text`; `special` reads control tokens, `add_special` adds those that the model wants around it."""
        ...

    def decode(self, tokens: Sequence[int]) -> str:
        """The text of tokens, control tokens included. Bytes that are no UTF-8 are U+FFFD."""
        ...

    def piece(self, token: int, *, special: bool = False) -> bytes:
        """The bytes of one token; empty for control tokens, unless `special` asks for their text too.

        Bytes may be a part of a UTF-8 character.
        """
        ...

    def is_end(self, token: int) -> bool:
        """True for tokens that end a generation."""
        ...


class Engine(Protocol):
    """A loaded model. Only the batch loop's thread calls it; it need not be safe for concurrent use.

    Invalid work must be refused by raising before native code sees it: an assert in native code ends the process.
    An engine that can see has a property `vision` as well; see `corectl.runner.vision`. What else an engine may be able
    to do is in `corectl.runner.abilities`.
    """

    @property
    def info(self) -> EngineInfo: ...

    @property
    def tokenizer(self) -> Tokenizer: ...

    def add(self, sequence: SequenceSpec) -> None:
        """Makes room for a sequence: its slot and its sampler. At most `info.max_sequences` at once."""
        ...

    def step(self, work: Sequence[Work]) -> list[Sampled]:
        """Computes one step for several sequences together, and draws for those that ask.

        The tokens of all of them, but for those of an image, are at most `info.num_batch`. Raises `EngineError` if
        nothing was computed.
        """
        ...

    def shift(self, id: int, keep: int, discard: int) -> None:
        """Forgets `discard` tokens of a sequence after its first `keep`, and moves the rest down."""
        ...

    def clear(self, id: int) -> None:
        """Forgets all tokens of a sequence and frees their cells; its sampler stays."""
        ...

    def remove(self, id: int) -> None:
        """Forgets a sequence altogether."""
        ...

    def embed(self, inputs: Sequence[Passage]) -> npt.NDArray[np.float32]:
        """A row for each input: its pooled vector, not normalised; of a pair its relevance, from 0 to 1.

        Only for a model that was loaded for embedding. The inputs are at most `info.max_sequences`, their tokens
        together at most `info.num_batch`.
        """
        ...

    def close(self) -> None:
        """Frees everything. Called once."""
        ...


@runtime_checkable
class CrossEncoder(Protocol):
    """What an engine has besides if its model scores pairs of texts, and its `info.pooling` is `rank`."""

    @property
    def info(self) -> EngineInfo: ...

    def encode_pair(self, query: str, document: str) -> PairTokens:
        """A pair's tokens, uncut, put together as in the model's training. Called on any thread of the runner."""
        ...


class Backend(Protocol):
    """An engine that a plugin offers."""

    @property
    def name(self) -> str: ...

    @property
    def formats(self) -> tuple[str, ...]:
        """Names of the model formats that it loads, best first."""
        ...

    def availability(self) -> Availability:
        """Called in the server process and by `corectl plugins`; must not load anything."""
        ...

    def estimate(self, model: ModelSpec, shape: CacheShape) -> MemoryEstimate:
        """What loading would take, from the file's header. Called in the server process on a worker thread."""
        ...

    def load(self, model: ModelSpec, placement: Placement, progress: Callable[[float], None]) -> Engine:
        """Loads a model. Called once, in the runner process; `progress` takes 0.0 to 1.0.

        Raises `LoadFailed`. `DevicesMissing` is for accelerators of the placement that the library does not find: then
        the model is loaded without them.
        """
        ...


@runtime_checkable
class DetailedBackend(Protocol):
    """What a backend has besides if it can say more of its library than a load needs."""

    def details(self) -> Mapping[str, str]:
        """Facts by what they are called, for people. May take seconds: only `corectl hardware` asks.

        What has to load the library for that does so in a process of its own.
        """
        ...


@runtime_checkable
class Quantizer(Protocol):
    """What a backend has besides if it can make a model's weights smaller."""

    @property
    def quantizations(self) -> tuple[str, ...]:
        """What `corectl create --quantize` can ask for, in any mix of upper and lower case, as people read it."""
        ...

    def quantize(
        self, files: ModelFiles, target: str, folder: Path, done: Callable[[int, int], None]
    ) -> Sequence[Notice]:
        """Writes the model to an empty folder, its weights as `target`, one of `quantizations`.

        `done` is told how many bytes of how many of the weights have been read. The notices say what has become
        something else than `target`. Called in a process of its own, with nothing else loaded. Raises `LoadFailed`, and
        `BadRequest` for weights that are quantised already.
        """
        ...


@runtime_checkable
class ArchitectureChecker(Protocol):
    """What a backend has besides if it can say which models of its formats it knows, from their files."""

    def why_not(self, format: str, files: ModelFiles) -> str:
        """Why it cannot run this model; empty if it can. Reads no more than headers and configurations.

        In the server process, on a worker thread. Raises `BadModelFile`.
        """
        ...

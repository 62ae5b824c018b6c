"""One llama.cpp model and context as an engine: many sequences in one `llama_decode` over a shared key-value pool."""

from __future__ import annotations

import ctypes
from array import array
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any, Literal

import llama_cpp
import msgspec
import numpy as np
import numpy.typing as npt

from corectl.errors import EngineError
from corectl.runner.engine import Constraint, EngineInfo, Passage, Sampled, SequenceSpec, Work
from corectl.runner.sampling import Logits, probabilities
from corectl.runner.vision import ImageSpan
from corectl_llamacpp.sampler import Candidates, build_chain, num_candidates
from corectl_llamacpp.tokenizer import LlamaTokenizer

if TYPE_CHECKING:
    from corectl_llamacpp.vision import LlamaVision

_REASONS = {
    1: "no room in the key-value cache",
    2: "the computation was aborted",
    -1: "the batch is not valid",
}


class _Slot(msgspec.Struct):
    """A sequence's place in the key-value pool and its native sampler chain, None for one that is only kept.

    The chain is given `candidates`, or the whole vocabulary.
    """

    number: int
    chain: Any
    candidates: Candidates | None
    top_logprobs: int
    constraint: Constraint | None


class LlamaBatch:
    """A reusable `llama_batch` of at most `size` tokens, filled by whole slices instead of token by token."""

    def __init__(self, size: int) -> None:
        tokens, positions, slots = ((ctypes.c_int32 * size)() for _ in range(3))
        outputs = (ctypes.c_int8 * size)()
        # A step of one token is the common case; of numpy alone the ways in would take longer than all else here.
        self._tokens, self._positions, self._slots = (
            _view(field, "i") for field in (tokens, positions, slots)
        )
        self._outputs = _view(outputs, "b")
        # Each token points at its own entry of the slots, once and for all: every token is in one sequence.
        first = ctypes.addressof(slots)
        slot_pointers = (ctypes.POINTER(ctypes.c_int32) * size)(
            *(ctypes.cast(first + 4 * i, ctypes.POINTER(ctypes.c_int32)) for i in range(size))
        )
        self.size = size
        self.native = llama_cpp.llama_batch(
            n_tokens=0,
            token=tokens,
            pos=positions,
            n_seq_id=(ctypes.c_int32 * size)(*[1] * size),
            seq_id=slot_pointers,
            logits=outputs,
        )

    def clear(self) -> None:
        self.native.n_tokens = 0

    def add(
        self, tokens: Sequence[int], *, position: int, slot: int, output: bool, every: bool = False
    ) -> int:
        """Appends one sequence's tokens; returns the index of the last. `every` token gives output, or the last."""
        start: int = self.native.n_tokens
        count = len(tokens)
        end = start + count
        # llama.cpp answers a batch that is too long by ending the process.
        if end > self.size or not count:
            raise EngineError(f"a step of {end} tokens; at most {self.size} fit, and none may be empty")
        if count == 1:
            self._tokens[start], self._positions[start], self._slots[start] = tokens[0], position, slot
        else:
            self._tokens[start:end] = array("i", tokens)
            self._positions[start:end] = array("i", range(position, position + count))
            self._slots[start:end] = array("i", [slot]) * count
            self._outputs[start:end] = array("b", [every]) * count
        self._outputs[end - 1] = output
        self.native.n_tokens = end
        return end - 1


class LlamaEngine:
    """See `corectl.runner.engine.Engine`. Owns `model`, `context` and `vision`, which `close` frees."""

    def __init__(self, model: Any, context: Any, info: EngineInfo, vision: LlamaVision | None = None) -> None:
        self._model = model
        self._context = context
        self._memory = llama_cpp.llama_get_memory(context)
        self._batch = LlamaBatch(info.num_batch)
        self._slots: dict[int, _Slot] = {}
        # By address: a place for each output of a step, until llama.cpp makes room for more of them elsewhere.
        self._views: dict[int, Logits] = {}
        # Sequences that were shifted since the last step.
        self._moved: set[int] = set()
        self._free = list(range(info.max_sequences + info.idle_sequences - 1, -1, -1))
        self._window = llama_cpp.llama_model_n_swa(model)
        self._recurrent = llama_cpp.llama_model_is_recurrent(model) or llama_cpp.llama_model_is_hybrid(model)
        self.info = info
        self.vision = vision
        self.tokenizer = LlamaTokenizer(llama_cpp.llama_model_get_vocab(model))

    def add(self, sequence: SequenceSpec) -> None:
        most = self.info.max_sequences
        if not self._free:
            raise EngineError(f"more than {most + self.info.idle_sequences} sequences")
        if sum(slot.chain is not None for slot in self._slots.values()) >= most:
            raise EngineError(f"more than {most} sequences that are not only kept")
        options, n_vocab, num_ctx = sequence.sampling, self.tokenizer.size, self.info.num_ctx
        count = num_candidates(options, n_vocab=n_vocab, num_ctx=num_ctx)
        self._slots[sequence.id] = _Slot(
            self._free.pop(),
            build_chain(options, n_vocab=n_vocab, num_ctx=num_ctx, prompt=sequence.prompt),
            Candidates(count) if count else None,
            sequence.top_logprobs,
            sequence.constraint,
        )

    def step(self, work: Sequence[Work]) -> list[Sampled]:
        self._batch.clear()
        outputs = []
        for item in work:
            slot = self._slots[item.id]
            if item.image is not None:
                self._decode_image(item.image, slot.number, item.position)
                continue
            last = self._batch.add(item.tokens, position=item.position, slot=slot.number, output=item.sample)
            if item.sample:
                outputs.append((item.id, slot, last))
        # A step may be an image alone; one of nothing at all is refused by llama.cpp.
        if self._batch.native.n_tokens or not work:
            self._decode(self._batch.native)
        return [self._sample(id, slot, index) for id, slot, index in outputs]

    def _decode(self, batch: Any) -> None:
        _check(llama_cpp.llama_decode(self._context, batch))
        self._moved.clear()

    def _decode_image(self, span: ImageSpan, slot: int, position: int) -> None:
        if self.vision is None:
            raise EngineError("an image for a model that cannot see")
        _check(self.vision.decode(self._context, span, slot=slot, position=position))

    def _sample(self, id: int, slot: _Slot, index: int) -> Sampled:
        if slot.top_logprobs < 0:
            if slot.constraint is not None:
                slot.constraint.mask(self._logits(index))
            return Sampled(id, self._draw(slot, index))
        logits = self._logits(index)
        if slot.constraint is not None:
            # Probabilities are the model's own, so they are taken from logits that the mask has not touched.
            masked, logits = logits, logits.copy()
            slot.constraint.mask(masked)
        token = self._draw(slot, index)
        chosen, top = probabilities(logits, token, slot.top_logprobs)
        return Sampled(id, token, chosen, top)

    def _draw(self, slot: _Slot, index: int) -> int:
        if slot.candidates is not None:
            return slot.candidates.draw(slot.chain, self._logits(index))
        return int(llama_cpp.llama_sampler_sample(slot.chain, self._context, index))

    def _logits(self, index: int) -> Logits:
        """What the last step gave for a token of the batch; valid until the next one."""
        found = llama_cpp.llama_get_logits_ith(self._context, index)
        address = ctypes.addressof(found.contents)
        view = self._views.get(address)
        if view is None:
            values = (ctypes.c_float * self.tokenizer.size).from_address(address)
            view = self._views[address] = np.frombuffer(values, np.float32)
        return view

    def shift(self, id: int, keep: int, discard: int) -> None:
        slot = self._slots[id].number
        llama_cpp.llama_memory_seq_rm(self._memory, slot, keep, keep + discard)
        llama_cpp.llama_memory_seq_add(self._memory, slot, keep + discard, -1, -discard)
        self._moved.add(id)

    def clear(self, id: int) -> None:
        llama_cpp.llama_memory_seq_rm(self._memory, self._slots[id].number, -1, -1)

    def remove(self, id: int) -> None:
        self.clear(id)
        slot = self._slots.pop(id)
        if slot.chain is not None:
            llama_cpp.llama_sampler_free(slot.chain)
        self._free.append(slot.number)

    @property
    def can_cut(self) -> bool:
        # Cells that two sequences hold are never used again by a window that moves on, and so they might run out.
        return not (self._window or self._recurrent)

    def keep(self, id: int) -> None:
        slot = self._slots[id]
        llama_cpp.llama_sampler_free(slot.chain)
        slot.chain = slot.candidates = None

    def copy(self, source: int, target: int, tokens: int) -> bool:
        origin, place = self._slots[source].number, self._slots[target].number
        first = llama_cpp.llama_memory_seq_pos_min(self._memory, origin)
        end = llama_cpp.llama_memory_seq_pos_max(self._memory, origin) + 1
        if tokens > end or (self._recurrent and tokens != end):
            return False
        # The next token looks back by a window, all of which must be there still.
        if self._window and first > max(tokens - self._window, 0):
            return False
        llama_cpp.llama_memory_seq_cp(self._memory, origin, place, 0, tokens)
        return True

    def state_size(self, id: int) -> int:
        # What was moved has its new positions already, but its keys are turned to them by the next step.
        if id in self._moved:
            return 0
        return int(llama_cpp.llama_state_seq_get_size(self._context, self._slots[id].number))

    def save(self, id: int) -> bytearray | None:
        slot, size = self._slots[id].number, self.state_size(id)
        if not size:
            return None
        try:
            state = bytearray(size)
        except MemoryError:
            return None
        native = (ctypes.c_uint8 * size).from_buffer(state)
        if llama_cpp.llama_state_seq_get_data(self._context, native, size, slot) != size:
            return None
        return state

    def restore(self, id: int, state: bytearray) -> bool:
        native = (ctypes.c_uint8 * len(state)).from_buffer(state)
        slot = self._slots[id].number
        if llama_cpp.llama_state_seq_set_data(self._context, native, len(state), slot):
            return True
        self.clear(id)
        return False

    def cut(self, id: int, tokens: int) -> None:
        llama_cpp.llama_memory_seq_rm(self._memory, self._slots[id].number, tokens, -1)

    def embed(self, inputs: Sequence[Passage]) -> npt.NDArray[np.float32]:
        self._fill(inputs)
        self._decode(self._batch.native)
        return self._pooled(len(inputs), llama_cpp.llama_model_n_embd_out(self._model))

    def _fill(self, inputs: Sequence[Passage]) -> None:
        """Makes a batch of texts that are read as a whole, each in a slot of its own."""
        self._batch.clear()
        if len(inputs) > self.info.max_sequences:
            raise EngineError(
                f"{len(inputs)} inputs; at most {self.info.max_sequences} can be embedded at once"
            )
        # Beyond the trained positions of an encoder llama.cpp ends the process.
        limit = min(self.info.num_ctx, llama_cpp.llama_model_n_ctx_train(self._model))
        for slot, passage in enumerate(inputs):
            count = len(passage.tokens)
            if count > limit:
                raise EngineError(f"an input of {count} tokens; at most {limit} can be embedded")
            self._batch.add(passage.tokens, position=0, slot=slot, output=True, every=True)
        # Encoders have no memory; a decoder that embeds must forget the inputs before.
        if self._memory:
            llama_cpp.llama_memory_clear(self._memory, True)

    def _pooled(self, count: int, size: int) -> npt.NDArray[np.float32]:
        """What the last batch gave for the first `count` slots, `size` values each."""
        found = np.empty((count, size), np.float32)
        for slot in range(count):
            pointer = llama_cpp.llama_get_embeddings_seq(self._context, slot)
            if not pointer:
                raise EngineError("the model gave no pooled vector")
            found[slot] = np.ctypeslib.as_array(pointer, shape=(size,))
        return found

    def set_threads(self, count: int) -> None:
        llama_cpp.llama_set_n_threads(self._context, count, count)

    def close(self) -> None:
        for id in list(self._slots):
            self.remove(id)
        if self.vision is not None:
            self.vision.close()
        llama_cpp.llama_free(self._context)
        llama_cpp.llama_model_free(self._model)


def _check(status: int) -> None:
    """Raises `EngineError` if llama.cpp has computed nothing."""
    if status:
        reason = _REASONS.get(status, f"llama_decode returned {status}")
        raise EngineError(f"an error was encountered while running the model: {reason}")


def _view(field: ctypes.Array[Any], kind: Literal["b", "i"]) -> memoryview[int]:
    """The memory of a batch's field, as values of `kind` (see `array`)."""
    return memoryview(field).cast("B").cast(kind)

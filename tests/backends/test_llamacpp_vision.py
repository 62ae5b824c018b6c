"""Images in llama.cpp, against the same computation in numpy and against llama.cpp's own road from image to logits."""

from __future__ import annotations

import ctypes
import hashlib
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import llama_cpp
import numpy as np
import pytest
from llama_cpp import mtmd_cpp as mtmd
from PIL import Image

from corectl.errors import BadRequest, LoadFailed, NotSupported
from corectl.messages import SamplingOptions
from corectl.runner.engine import ModelSpec, Sampled
from corectl.runner.job import Ended, Job
from corectl.runner.vision import IMAGE, ImageSpan, Picture
from corectl_llamacpp import vision
from corectl_llamacpp.backend import LlamaCppBackend
from corectl_llamacpp.engine import LlamaEngine
from corectl_llamacpp.params import weight_params
from corectl_llamacpp.vision import LlamaVision
from tests import tiny_qwen
from tests.backends.conftest import batch_loop, placement, smollm2
from tests.projector import Projector, QwenVision, Siglip, picture, write_projector
from tests.tiny_qwen import write_tiny_qwen

SMOLLM2_WIDTH = 576
SIZES = [(112, 112), (300, 200), (150, 310), (640, 480)]

Array = np.ndarray[Any, np.dtype[np.float32]]


class Seer:
    """A loaded model that can see, and the numpy side of it."""

    def __init__(self, weights: Path, file: Path, projector: Projector, **changes: int) -> None:
        self.weights, self.file, self.projector = weights, file, projector
        spec = ModelSpec(format="gguf", weights=weights, projectors=(file,))
        engine = LlamaCppBackend().load(spec, placement(**changes), lambda fraction: None)
        assert isinstance(engine, LlamaEngine) and isinstance(engine.vision, LlamaVision)
        self.engine, self.vision = engine, engine.vision

    def loaded(self, **changes: int) -> Seer:
        """The same model once more, with other sizes."""
        return Seer(self.weights, self.file, self.projector, **changes)


@pytest.fixture(scope="module")
def siglip(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seer]:
    """Looks at all of an image at once; positions count like tokens."""
    projector = Siglip(SMOLLM2_WIDTH)
    file = write_projector(projector, tmp_path_factory.mktemp("siglip") / "projector.gguf")
    seer = Seer(smollm2(), file, projector)
    yield seer
    seer.engine.close()


@pytest.fixture(scope="module")
def qwen(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Seer]:
    """Looks at images from left to right; an image takes fewer positions than tokens."""
    folder = tmp_path_factory.mktemp("qwen")
    projector = QwenVision(tiny_qwen.WIDTH)
    file = write_projector(projector, folder / "projector.gguf")
    seer = Seer(write_tiny_qwen(folder / "model.gguf"), file, projector)
    yield seer
    seer.engine.close()


@pytest.fixture(params=["siglip", "qwen"])
def seer(request: pytest.FixtureRequest) -> Seer:
    found = request.getfixturevalue(request.param)
    assert isinstance(found, Seer)
    return found


def pictured(image: Image.Image) -> Picture:
    pixels = image.tobytes()
    digest = hashlib.sha256(pixels + bytes(str(image.size), "ascii")).hexdigest()
    return Picture(digest=digest, width=image.width, height=image.height, pixels=lambda: pixels)


def job(seer: Seer, id: int, *parts: str | Image.Image, **options: Any) -> Job:
    """A prompt of texts and images, as preparing makes it."""
    tokens: list[int] = []
    spans: list[ImageSpan] = []
    for part in parts:
        if isinstance(part, str):
            tokens += seer.engine.tokenizer.encode(part, add_special=False)
            continue
        seen = seer.vision.see(pictured(part))
        for span in seen.spans:
            seer.vision.load(span)
            spans.append(
                ImageSpan(
                    start=len(tokens) + span.start,
                    cells=span.cells,
                    positions=span.positions,
                    handle=span.handle,
                )
            )
        tokens += seen.tokens
    sampling = SamplingOptions(temperature=0, num_predict=6, **options)
    return Job(id=id, tokens=tokens, spans=tuple(spans), sampling=sampling, top_logprobs=0)


def run(engine: LlamaEngine, *jobs: Job) -> dict[int, list[Sampled]]:
    """What each of several sequences that run together gives."""
    loop = batch_loop(engine)
    for one in jobs:
        loop.add(one)
    drawn: dict[int, list[Sampled]] = {one.id: [] for one in jobs}
    while not loop.idle:
        output = loop.step()
        for sampled in output.sampled:
            drawn[sampled.id].append(sampled)
        assert [ended.error for ended in output.ended if ended.error] == []
    return drawn


def logprobs(drawn: list[Sampled]) -> list[float]:
    return [item.chosen.logprob for item in drawn if item.chosen is not None]


def agree(seer: Seer, found: list[Sampled], wanted: list[Sampled]) -> None:
    """The same was drawn. With quantised weights, what else is in a step shows a little, and adds up."""
    if seer.weights == smollm2():
        found, wanted = found[:1], wanted[:1]
    assert logprobs(found) == pytest.approx(logprobs(wanted), abs=0.3)
    assert tokens(found) == tokens(wanted)


def tokens(drawn: list[Sampled]) -> list[int]:
    return [item.token for item in drawn]


@pytest.mark.parametrize("size", SIZES)
def test_embeddings_are_those_of_the_reference(seer: Seer, size: tuple[int, int]) -> None:
    image = picture(*size, seed=size[0])
    (span,) = seer.vision.see(pictured(image)).spans
    seer.vision.encode(span)
    found = span.handle.image.embeddings[0]
    wanted = seer.projector.embed(image)
    assert found.shape == wanted.shape == (span.cells, wanted.shape[1])
    lengths = np.linalg.norm(found, axis=-1) * np.linalg.norm(wanted, axis=-1)
    assert ((found * wanted).sum(-1) / lengths).min() > 0.999
    # Directions alone would not tell a scaled result, and rows alone not a shuffled one.
    np.testing.assert_allclose(found, wanted, atol=0.02)


def test_what_stands_for_an_image(siglip: Seer, qwen: Seer) -> None:
    seen = siglip.vision.see(pictured(picture(300, 200)))
    (span,) = seen.spans
    begin = siglip.engine.tokenizer.encode("<start_of_image>", add_special=False)
    end = siglip.engine.tokenizer.encode("<end_of_image>", add_special=False)
    assert list(seen.tokens) == [*begin, *[IMAGE] * 16, *end]
    assert (span.start, span.cells, span.positions) == (len(begin), 16, 16)
    seen = qwen.vision.see(pictured(picture(300, 200)))
    (span,) = seen.spans
    start, end_ = (qwen.engine.tokenizer.encode(f"<|vision_{name}|>")[0] for name in ("start", "end"))
    assert list(seen.tokens) == [start, *[IMAGE] * 77, end_]
    # 11 columns and 7 rows of tokens: the longer side counts.
    assert (span.cells, span.positions) == (77, 11)


@pytest.mark.parametrize("size", [(1, 1), (200, 1), (1, 200), (4000, 20), (20, 4000)])
def test_the_oddest_shapes_that_are_let_through(seer: Seer, size: tuple[int, int]) -> None:
    for span in seer.vision.see(pictured(picture(*size))).spans:
        seer.vision.load(span)
        seer.vision.encode(span)
        assert np.isfinite(span.handle.image.embeddings[span.handle.index]).all()


@pytest.mark.parametrize("size", [(8000, 8000), (113_000, 566), (566, 113_000)])
def test_the_largest_shapes_that_are_let_through(seer: Seer, size: tuple[int, int]) -> None:
    seen = seer.vision.see(Picture(digest=str(size), width=size[0], height=size[1], pixels=bytes))
    assert 0 < sum(span.cells for span in seen.spans) <= 4096


def test_a_shape_that_no_model_can_see(qwen: Seer) -> None:
    with pytest.raises(BadRequest, match="cannot see an image of 0 x 5 pixels"):
        qwen.vision.see(Picture(digest="x", width=0, height=5, pixels=bytes))


def test_more_images_than_are_decoded_ahead(seer: Seer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vision, "AHEAD", 1)
    images = [picture(56, 56, seed) for seed in range(20, 23)]
    waiting = job(seer, 1, *images, " Which?")
    assert [bool(span.handle.image.chunks) for span in waiting.spans] == [True, False, False]
    late = run(seer.engine, waiting)[1]
    monkeypatch.undo()
    agree(seer, late, run(seer.engine, job(seer, 2, *images, " Which?"))[2])


def test_only_so_many_embeddings_are_kept(seer: Seer, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(vision, "KEPT_BYTES", 0)
    image = picture(56, 56, seed=30)
    wanted = run(seer.engine, job(seer, 1, image, " What?"))[1]
    assert not seer.vision._kept
    agree(seer, run(seer.engine, job(seer, 2, image, " What?"))[2], wanted)


def reference(seer: Seer, before: str, image: Image.Image, after: str) -> Array:
    """Log-probabilities after a prompt, computed by llama.cpp's own helper, in one context for itself."""
    model = llama_cpp.llama_model_load_from_file(str(seer.weights).encode(), weight_params())
    params = mtmd.mtmd_context_params_default()
    params.n_threads, params.use_gpu = 1, False
    context = mtmd.mtmd_init_from_file(str(seer.file).encode(), model, params)
    settings = llama_cpp.llama_context_default_params()
    settings.n_threads = settings.n_threads_batch = 1
    settings.n_ctx = 1024
    decoder = llama_cpp.llama_init_from_model(model, settings)
    text = f"{before}<__media__>{after}".encode()
    data = (ctypes.c_uint8 * (3 * image.width * image.height)).from_buffer_copy(image.tobytes())
    bitmaps = (mtmd.mtmd_bitmap_p_ctypes * 1)(mtmd.mtmd_bitmap_init(*image.size, data))
    chunks = mtmd.mtmd_input_chunks_init()
    prompt = mtmd.mtmd_input_text(text, len(text), False, True)
    assert mtmd.mtmd_tokenize(context, chunks, ctypes.byref(prompt), bitmaps, 1) == 0
    past = ctypes.c_int32()
    status = mtmd.mtmd_helper_eval_chunks(context, decoder, chunks, 0, 0, 512, True, ctypes.byref(past))
    assert status == 0
    size = llama_cpp.llama_vocab_n_tokens(llama_cpp.llama_model_get_vocab(model))
    logits = np.ctypeslib.as_array(llama_cpp.llama_get_logits_ith(decoder, -1), shape=(size,)).astype(float)
    mtmd.mtmd_input_chunks_free(chunks)
    mtmd.mtmd_bitmap_free(bitmaps[0])
    llama_cpp.llama_free(decoder)
    mtmd.mtmd_free(context)
    llama_cpp.llama_model_free(model)
    return np.asarray(logits - np.logaddexp.reduce(logits), np.float32)


def test_the_model_reads_an_image_as_llama_cpp_itself_does(seer: Seer) -> None:
    image = picture(300, 200, seed=3)
    wanted = reference(seer, "Look: ", image, " What is it?")
    (first, *_) = run(seer.engine, job(seer, 1, "Look: ", image, " What is it?"))[1]
    assert first.token == int(wanted.argmax())
    assert first.chosen is not None
    assert first.chosen.logprob == pytest.approx(float(wanted.max()), abs=0.01)


def test_another_image_gives_another_answer(seer: Seer) -> None:
    one, other = (
        run(seer.engine, job(seer, 1, "Look: ", picture(300, 200, seed), " What?"))[1] for seed in (1, 2)
    )
    assert logprobs(one) != logprobs(other)


def test_sequences_with_images_run_together(seer: Seer) -> None:
    prompts = {
        1: ("Look: ", picture(300, 200, seed=1), " What is it?"),
        2: ("One ", picture(112, 112, seed=2), " and two ", picture(200, 300, seed=3), " differ?"),
        3: ("No image at all, only text.",),
    }
    alone = {id: run(seer.engine, job(seer, id, *parts))[id] for id, parts in prompts.items()}
    together = run(seer.engine, *(job(seer, id, *parts) for id, parts in prompts.items()))
    for id in prompts:
        agree(seer, together[id], alone[id])


def test_the_order_of_images_counts(seer: Seer) -> None:
    first, second = picture(300, 200, seed=1), picture(300, 200, seed=2)
    straight, swapped = (
        run(seer.engine, job(seer, 1, "A: ", one, " B: ", other, " Which?"))[1]
        for one, other in ((first, second), (second, first))
    )
    assert logprobs(straight) != logprobs(swapped)


def test_an_image_is_encoded_once(seer: Seer, monkeypatch: pytest.MonkeyPatch) -> None:
    calls = []
    encode = mtmd.mtmd_encode_chunk

    def counted(*args: Any) -> Any:
        calls.append(args)
        return encode(*args)

    monkeypatch.setattr(mtmd, "mtmd_encode_chunk", counted)
    image = picture(300, 200, seed=77)
    before = run(seer.engine, job(seer, 1, "Twice: ", image, image, " Same?"))[1]
    again = run(seer.engine, job(seer, 2, "Twice: ", image, image, " Same?"))[2]
    assert len(calls) == 1
    assert tokens(again) == tokens(before)


def test_a_sequence_that_gave_up_its_cells_is_computed_again(seer: Seer) -> None:
    parts = [("Look: ", picture(300, 200, seed), " What?") for seed in (5, 6)]
    jobs = [job(seer, id, *part) for id, part in enumerate(parts)]
    wanted = [run(seer.engine, one)[one.id] for one in jobs]
    # Both prompts have room, but not all that they give.
    cells = sum(len(one.tokens) for one in jobs) + 6
    small = seer.loaded(cells=cells, num_ctx=cells, num_batch=32)
    found = run(small.engine, *(job(small, id, *part) for id, part in enumerate(parts)))
    small.engine.close()
    for id, drawn in enumerate(wanted):
        agree(seer, found[id], drawn)


def test_cancelling_in_the_middle(seer: Seer) -> None:
    image = picture(300, 200, seed=6)
    prompt = job(seer, 1, "Look: ", image, " and ", picture(300, 200, seed=8), " What?")
    loop = batch_loop(seer.engine)
    loop.add(prompt)
    computed = 0
    while computed < prompt.spans[0].start + prompt.spans[0].cells:
        computed += loop.step().tokens
    loop.cancel(1)
    assert loop.idle
    after = run(seer.engine, job(seer, 2, "Look: ", image, " What?"))[2]
    assert len(after) == 6


def test_an_image_that_cannot_be_encoded_fails_alone(seer: Seer, monkeypatch: pytest.MonkeyPatch) -> None:
    loop = batch_loop(seer.engine)
    loop.add(job(seer, 1, "Only text."))
    loop.add(job(seer, 2, "Look: ", picture(300, 200, seed=9), " What?"))
    monkeypatch.setattr(mtmd, "mtmd_encode_chunk", lambda *args: 1)
    ended: list[Ended] = []
    while not loop.idle:
        ended += loop.step().ended
    by_id = {item.id: item for item in ended}
    assert by_id[1].error is None and by_id[1].reason == "length"
    assert by_id[2].error is not None and "an image was not encoded" in by_id[2].error.message


def test_a_projector_for_another_model(tmp_path: Path) -> None:
    file = write_projector(Siglip(64), tmp_path / "p.gguf")
    with pytest.raises(LoadFailed, match="mismatch between text model"):
        LlamaCppBackend().load(
            ModelSpec(format="gguf", weights=smollm2(), projectors=(file,)),
            placement(),
            lambda fraction: None,
        )


def test_projectors_that_cannot_be_used(tmp_path: Path) -> None:
    projector = Siglip(SMOLLM2_WIDTH)
    file = write_projector(projector, tmp_path / "p.gguf")
    backend = LlamaCppBackend()
    spec = ModelSpec(format="gguf", weights=smollm2(), projectors=(file, file))
    with pytest.raises(NotSupported, match="2 projectors"):
        backend.load(spec, placement(), lambda fraction: None)
    projector.kind = "hunyuanvl"
    file = write_projector(projector, tmp_path / "h.gguf")
    spec = ModelSpec(format="gguf", weights=smollm2(), projectors=(file,))
    with pytest.raises(NotSupported, match="hunyuanvl"):
        backend.load(spec, placement(), lambda fraction: None)

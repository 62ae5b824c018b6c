"""Each engine library's own loop: what the library gives without a server.

`python -m bench.loops ENGINE MODEL THREADS` loads a model, then reads lines: a number of tokens, a blank, and a prompt
as a JSON string. With 0 threads the library has as many as it takes by itself. For each line it generates greedily, and
prints the tokens per second from the first token to the last.
"""

from __future__ import annotations

import json
import sys
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

Generate = Callable[[str, int], Iterator[int]]


def mlx(model: Path, _: int) -> Generate:
    """`mlx_lm.stream_generate`, whose threads cannot be chosen."""
    from mlx_lm import load, stream_generate

    native, tokenizer = load(str(model))[:2]
    tokenizer.eos_token_ids = set()

    def generate(prompt: str, tokens: int) -> Iterator[int]:
        for response in stream_generate(native, tokenizer, prompt, max_tokens=tokens):
            yield response.token

    return generate


def onnx(model: Path, threads: int) -> Generate:
    """The generator of ONNX Runtime GenAI, one token at a time."""
    import onnxruntime_genai as genai

    config = genai.Config(str(model))
    if threads:
        options = {"session_options": {"intra_op_num_threads": threads}}
        config.overlay(json.dumps({"model": {"decoder": options}}))
    native = genai.Model(config)
    tokenizer = genai.Tokenizer(native)

    def generate(prompt: str, tokens: int) -> Iterator[int]:
        params = genai.GeneratorParams(native)
        ids = tokenizer.encode(prompt)
        params.set_search_options(do_sample=False, max_length=len(ids) + tokens)
        generator = genai.Generator(native, params)
        generator.append_tokens(ids)
        stream = tokenizer.create_stream()
        for _ in range(tokens):
            if generator.is_done():
                return
            generator.generate_next_token()
            token = int(generator.get_next_tokens()[0])
            stream.decode(token)
            yield token

    return generate


def ctransformers(model: Path, threads: int) -> Generate:
    """The library's own `generate`; the family of a legacy file is the first word of its name."""
    from ctransformers import LLM, Config

    config = Config(context_length=512, threads=threads or -1)
    native = LLM(str(model), model_type=model.stem.partition("-")[0], config=config)

    def generate(prompt: str, tokens: int) -> Iterator[int]:
        ids: Any = native.generate(native.tokenize(prompt), top_k=1, repetition_penalty=1.0)
        for _, token in zip(range(tokens), ids, strict=False):
            native.detokenize([token])
            yield int(token)

    return generate


LOOPS: dict[str, Callable[[Path, int], Generate]] = {"mlx": mlx, "onnx": onnx, "ctransformers": ctransformers}


def main() -> None:
    generate = LOOPS[sys.argv[1]](Path(sys.argv[2]), int(sys.argv[3]))
    for line in sys.stdin:
        count, _, prompt = line.partition(" ")
        times = [time.perf_counter() for _ in generate(json.loads(prompt), int(count))]
        print((len(times) - 1) / (times[-1] - times[0]), flush=True)


if __name__ == "__main__":
    main()

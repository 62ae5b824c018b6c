"""Vector instructions: what the processor has, and what ggml was compiled to use. Pure."""

from __future__ import annotations

from collections.abc import Set

from corectl.hardware.processor import Processor
from corectl.messages import Notice
from corectl_llamacpp.build import Build

_FEATURES = {
    "avx": "AVX",
    "avx2": "AVX2",
    "fma": "FMA",
    "f16c": "F16C",
    "bmi2": "BMI2",
    "avx_vnni": "AVX_VNNI",
    "avx512f": "AVX512",
    "avx512vbmi": "AVX512_VBMI",
    "avx512_vnni": "AVX512_VNNI",
    "avx512_bf16": "AVX512_BF16",
    "neon": "NEON",
    "fp16": "FP16_VA",
    "dotprod": "DOTPROD",
    "i8mm": "MATMUL_INT8",
    "sve": "SVE",
}
"""Extensions of processors that matter to ggml, and its names for them. AMX is left out: see `computes_with_amx`."""


def computes_with_amx(processor: Processor, features: Set[str]) -> bool:
    """Whether ggml's matrices would be multiplied with AMX.

    They must not be. Compilers leave out a part of the tiles' configuration that ggml puts on the stack, and the first
    tile ends the process (SIGILL): https://github.com/ggml-org/llama.cpp/pull/26954.
    """
    return "amx_int8" in processor.extensions and "AMX_INT8" in features


def lacking(processor: Processor, features: Set[str]) -> tuple[str, ...]:
    """Extensions that the processor has and the library does not use. Of one that names no feature nothing is known."""
    there = [name for name in processor.extensions if name in _FEATURES]
    return tuple(name for name in there if _FEATURES[name] not in features) if features else ()


def notices_of(processor: Processor, features: Set[str], build: Build) -> tuple[Notice, ...]:
    """Says what computes more slowly than it could, and what to type."""
    missing = lacking(processor, features)
    if not missing:
        return ()
    message = (
        f"this processor has {', '.join(missing)}, which the installed llama-cpp-python was not built for; "
        f"a build for this machine is faster: {build.command}"
    )
    return (Notice(code="slow_build", message=message),)

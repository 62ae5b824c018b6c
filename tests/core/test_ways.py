"""Which way a model's files go: a named backend, a kind of quantisation, accelerators, converters."""

from __future__ import annotations

import pytest

from corectl.errors import BadRequest, NotSupported
from corectl.store.ways import Way, choose_way, meant

KEPT = Way(format="safetensors", backends=("mlx",), quantizations=("int4", "mxfp4"))
FAST = Way(format="safetensors", backends=("mlx",), quantizations=("int4", "mxfp4"), accelerated=True)
CONVERTED = Way(format="gguf", converter="c", backends=("llamacpp",), quantizations=("Q4_0", "mxfp4"))
NO_KEPT = Way(format="safetensors", backends=("mlx",), problem="mlx is not installed")
NO_CONVERTED = Way(format="gguf", converter="c", backends=("llamacpp",), problem="unsupported architecture")


@pytest.mark.parametrize(
    ("ways", "wanted", "format"),
    [
        ([KEPT, CONVERTED], {}, "gguf"),
        ([FAST, CONVERTED], {}, "safetensors"),
        ([KEPT, NO_CONVERTED], {}, "safetensors"),
        ([NO_KEPT, CONVERTED], {}, "gguf"),
        ([KEPT], {}, "safetensors"),
        ([KEPT, CONVERTED], {"backend": "mlx"}, "safetensors"),
        ([FAST, CONVERTED], {"backend": "llamacpp"}, "gguf"),
        ([KEPT, CONVERTED], {"backend": "unheard of"}, "gguf"),
        ([KEPT, CONVERTED], {"target": "int4"}, "safetensors"),
        ([FAST, CONVERTED], {"target": "q4_0"}, "gguf"),
        ([KEPT, CONVERTED], {"target": "MXFP4"}, "gguf"),
        ([FAST, CONVERTED], {"target": "mxfp4"}, "safetensors"),
        ([FAST, CONVERTED], {"target": "mxfp4", "backend": "llamacpp"}, "gguf"),
    ],
)
def test_the_way(ways: list[Way], wanted: dict[str, str], format: str) -> None:
    assert choose_way(ways, **wanted).format == format


@pytest.mark.parametrize(
    ("ways", "wanted", "reason"),
    [
        ([NO_KEPT, NO_CONVERTED], {}, "unsupported architecture; mlx is not installed"),
        ([NO_KEPT, CONVERTED], {"backend": "mlx"}, "mlx is not installed"),
        ([KEPT, NO_CONVERTED], {"backend": "llamacpp"}, "unsupported architecture"),
    ],
)
def test_what_cannot_be_says_why(ways: list[Way], wanted: dict[str, str], reason: str) -> None:
    with pytest.raises(NotSupported) as caught:
        choose_way(ways, **wanted)
    assert caught.value.message == reason


@pytest.mark.parametrize("backend", ["", "mlx"])
def test_a_kind_that_no_way_knows_is_refused_with_those_that_are_known(backend: str) -> None:
    known = "int4, mxfp4" if backend else "int4, mxfp4, Q4_0"
    with pytest.raises(
        BadRequest, match=f"^unsupported quantization type ZZ9 - supported types are {known}$"
    ):
        choose_way([KEPT, CONVERTED], target="zz9", backend=backend)


@pytest.mark.parametrize(
    ("said", "kind"),
    [("q4_0", "Q4_0"), ("Q4_K", "Q4_K_M"), ("q4_k_s", "Q4_K_S"), ("q6_k", "Q6_K"), ("q9", ""), ("", "")],
)
def test_kinds_are_meant_in_any_case_and_without_a_size(said: str, kind: str) -> None:
    assert meant(said, ("Q4_0", "Q4_K_S", "Q4_K_M", "Q6_K")) == kind

"""Which execution provider computes a model: the one that it was made for, if this build and the placement have it."""

from __future__ import annotations

import importlib.metadata
import importlib.util
from collections.abc import Callable

import msgspec

from corectl.runner.engine import Placement
from corectl.scheduler.fit import HOST

LIBRARY = "onnxruntime-genai"

_BUILDS = (
    ("onnxruntime-genai-cuda", "cuda"),
    ("onnxruntime-genai-directml", "directml"),
    ("onnxruntime-qnn", "qnn"),
    ("onnxruntime-openvino", "openvino"),
    (LIBRARY, "cpu"),
)
"""Distributions, and what a build with them computes on; the first that is installed decides."""

_PROVIDERS = {"cuda": "cuda", "directml": "dml", "qnn": "qnn", "openvino": "openvino"}
"""By the variant: how models call its execution provider."""

PROBED = ("cuda",)
"""Variants whose devices the scheduler knows, and divides among models."""

WHOLE = 2
"""Layers of an estimate, with the head: a model is on one device, so all of it is one layer."""


class Build(msgspec.Struct, frozen=True):
    """What is installed: the library's version, and what it computes on."""

    variant: str
    version: str


def installed(version_of: Callable[[str], str] = importlib.metadata.version) -> Build | None:
    """The build of the library, found without importing it."""
    if importlib.util.find_spec("onnxruntime_genai") is None:
        return None
    found: dict[str, str] = {}
    for distribution, _ in _BUILDS:
        try:
            found[distribution] = version_of(distribution)
        except importlib.metadata.PackageNotFoundError:
            continue
    variant = next((variant for name, variant in _BUILDS if name in found), "cpu")
    version = next((version for name, version in found.items() if name.startswith(LIBRARY)), "unknown")
    return Build(variant, version)


class Way(msgspec.Struct, frozen=True):
    """How a model is computed: by the `accelerated` provider that it was made for, or by the CPU alone.

    `device` is the id of the one that has its memory. `surprise` says why it is the CPU, where one may think otherwise.
    """

    accelerated: bool = False
    device: str = HOST
    surprise: str = ""


def way_of(made_for: tuple[str, ...], variant: str, placement: Placement) -> Way:
    """The way for a model that was made for some providers (none: for the CPU), with this variant of the library."""
    provider, there = _PROVIDERS.get(variant, "cpu"), any(placement.layers)
    if not made_for:
        surprise = f"the model was made for it; build it again for {provider}" if there else ""
        return Way(surprise=surprise)
    if provider not in made_for:
        names = " and ".join(made_for)
        return Way(surprise=f"the model was made for {names}, and the installed build computes on {variant}")
    if variant not in PROBED:
        return Way(accelerated=True)
    if sum(placement.layers) < WHOLE:
        # The scheduler says so itself.
        return Way()
    return Way(accelerated=True, device=next(id for id in placement.devices if id != HOST))

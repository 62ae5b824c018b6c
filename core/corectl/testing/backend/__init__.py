"""The conformance suite for backends."""

from __future__ import annotations

from corectl.testing.backend.changing import ChangeChecks
from corectl.testing.backend.describing import DescriptorChecks
from corectl.testing.backend.generating import GenerationChecks
from corectl.testing.backend.refusing import RefusalChecks
from corectl.testing.backend.sequences import SequenceChecks
from corectl.testing.backend.serving import ServingChecks
from corectl.testing.backend.sharing import SharingChecks
from corectl.testing.backend.tokenizing import TokenizerChecks
from corectl.testing.backend.vectors import VectorChecks


class BackendSuite(
    ServingChecks,
    ChangeChecks,
    VectorChecks,
    RefusalChecks,
    SharingChecks,
    SequenceChecks,
    GenerationChecks,
    TokenizerChecks,
    DescriptorChecks,
):
    """Everything that a backend promises, on a real model.

    A subclass gives `backend` and `model`, says in `engine_modules` what only a runner may import, and in `cannot` what
    the engine cannot do. The plugin must be installed: some checks run in processes of their own, which find it by its
    entry point. Where `availability()` says that the backend cannot be used, checks that need its engine are skipped
    with that reason.
    """

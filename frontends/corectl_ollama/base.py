"""The model that another one is made of, where it is not here."""

from __future__ import annotations

from contextlib import aclosing

from corectl.model.name import parse_reference
from corectl.server.services import Services
from corectl.store.create import CreateSpec
from corectl_ollama.pull import pull_steps
from corectl_ollama.steps import Steps


async def with_base(services: Services, spec: CreateSpec, making: Steps) -> Steps:
    """The steps of making a model, in front of which stand those of pulling its `from`, if that is not here.

    Raises what either raises. A client that leaves while the base is pulled ends that, unless others wait for it.
    """
    async with aclosing(making):
        if await _is_missing(services, spec):
            async with aclosing(pull_steps(services, spec.from_, insecure=False)) as pulling:
                async for step in pulling:
                    # That the base is here is no success yet, and clients would take it for one.
                    if step.status != "success":
                        yield step
        async for step in making:
            yield step


async def _is_missing(services: Services, spec: CreateSpec) -> bool:
    if not spec.from_ or spec.remote_host:
        return False
    reference = parse_reference(spec.from_)
    return reference.source == "" and await services.find(reference.name) is None

"""What this server computes on, and what follows from that: backends, a request's context, how many models."""

from __future__ import annotations

import asyncio
import logging

from corectl.config import Settings
from corectl.hardware.device import Device
from corectl.hardware.inventory import Inventory
from corectl.messages import LoadOptions
from corectl.plugins import PluginHost
from corectl.scheduler.backends import Backends, Choice, wanted_backend
from corectl.scheduler.context import Context, settle_context
from corectl.scheduler.state import Model

log = logging.getLogger(__name__)

MODELS_PER_DEVICE = 3
"""Models in memory at once, for each accelerator or else for the machine, where nothing is set."""


class Machine:
    """The devices of one server, and the backends that can use them."""

    def __init__(self, settings: Settings, plugins: PluginHost) -> None:
        self._settings = settings
        self.backends = Backends(plugins.backends)
        self.inventory = Inventory(plugins.probes, settings.llm_library)

    @property
    def max_loaded(self) -> int:
        """Models that may be in memory at once."""
        devices = max(1, len(self.inventory.accelerators()))
        return self._settings.max_loaded_models or MODELS_PER_DEVICE * devices

    def choose(self, model: Model, option: str | None) -> Choice:
        """The backend for a model, by the devices as last known. Raises `NotSupported`."""
        return self.backends.choose(
            format=model.spec.format,
            wanted=wanted_backend(self._settings, model.record.name, option),
            devices=self.inventory.devices or (),
            adapters=bool(model.spec.adapters),
        )

    async def settle(self, model: Model, options: LoadOptions) -> tuple[Choice, Context]:
        """What computes a request, and its effective context.

        Raises `NotSupported`, and `BadRequest` if it asks for more context than the server allows.
        """
        await self.inventory.known()
        if not self.backends.asked:
            await asyncio.to_thread(self.backends.ask)
        choice = self.choose(model, options.backend)
        requested, trained = options.num_ctx, model.description.context_length
        if requested and trained and requested > trained:
            log.warning("requested context size too large for model: %d, using %d", requested, trained)
        accelerators = self.inventory.accelerators(choice.variant)
        context = settle_context(
            requested,
            configured=self._settings.context_length,
            memory=sum(device.memory_total for device in accelerators),
            trained=trained,
            ceiling=self._settings.max_context,
            vision=bool(model.spec.projectors),
        )
        return choice, context

    async def survey(self) -> tuple[tuple[Device, ...], set[str]]:
        """The devices as they are now, and the ids of those that can be used.

        What is on one whose probe is late may stay there: a driver that takes its time has not lost it.
        """
        devices = await self.inventory.refresh()
        return devices, {device.id for device in (*devices, *self.inventory.unsure) if device.ways}

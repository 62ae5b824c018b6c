"""What a scheduler policy decides, from frozen values to values. Pure: no input or output, no clock, no logging."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Protocol

import msgspec

from corectl.hardware.device import Device
from corectl.messages import LoadOptions
from corectl.runner.engine import CacheShape, MemoryEstimate, Placement


class WaitingRequest(msgspec.Struct, frozen=True, kw_only=True):
    """A request that waits for its model to be loaded. `model` is the model's key; `waited` is in seconds."""

    id: int
    model: str
    waited: float


class Resident(msgspec.Struct, frozen=True, kw_only=True):
    """A model in memory. `active` requests use it now; `keep_alive` and `idle` are in seconds, `memory` in bytes.

    `idle` is 0 while it is busy.
    """

    model: str
    active: int
    keep_alive: float
    idle: float
    memory: int


class PlacementQuestion(msgspec.Struct, frozen=True, kw_only=True):
    """What is to be placed. `options.num_ctx` is settled; `estimate` holds for `shape`.

    `num_parallel` is what the operator set (0: choose), `embedding` says that the model gives vectors, `alone`
    that no other model is in memory. `devices` are those that may be used. Of each accelerator `overhead` bytes are to
    stay free; with `spread` the model goes to all of them. `snapshots` is the host memory in bytes for saved states.
    """

    options: LoadOptions
    estimate: MemoryEstimate
    shape: CacheShape
    devices: tuple[Device, ...]
    num_parallel: int
    embedding: bool
    alone: bool
    overhead: int = 0
    spread: bool = False
    snapshots: int = 0


class SchedulerPolicy(Protocol):
    """A named set of the three decisions; see `corectl.hookspecs.corectl_scheduler_policies`."""

    @property
    def name(self) -> str: ...

    def next_request(self, waiting: Sequence[WaitingRequest]) -> int:
        """The id of the request whose model is loaded next. `waiting` is in order of arrival and not empty."""
        ...

    def evict(self, resident: Sequence[Resident]) -> str:
        """The model that makes room. It ends at once if it is idle, else when its requests have. Not empty."""
        ...

    def place(self, question: PlacementQuestion) -> Placement | None:
        """Where and how large the model is loaded; None if it does not fit beside what is in memory now.

        None makes the scheduler evict something and ask again. `question.alone` says that nothing is left to evict:
        then the answer is the best try, such as a part of the layers on the accelerators, and None fails the request.
        """
        ...

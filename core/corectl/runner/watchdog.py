"""Notices a runner that hangs: while it has work it is asked every few seconds how it is."""

from __future__ import annotations

import asyncio
from collections.abc import Callable

import msgspec


class Patience(msgspec.Struct, frozen=True, kw_only=True):
    """In seconds: how often a runner is asked, for how long it may say nothing, and how long one step may take.

    A step is at most one batch of a prompt or one image, which can take minutes for a large model on a slow machine.
    """

    every: float = 5.0
    silence: float = 60.0
    step: float = 900.0


PATIENCE = Patience()


class Watchdog:
    """Asks while `busy`, with `ask`; calls `give_up` with a reason when the patience is over. In the event loop.

    Silence is counted in questions without an answer, not by the clock: a server that was suspended itself has no
    reason to complain.
    """

    def __init__(
        self,
        patience: Patience,
        *,
        busy: Callable[[], bool],
        ask: Callable[[], None],
        give_up: Callable[[str], None],
    ) -> None:
        self._patience = patience
        self._busy = busy
        self._ask = ask
        self._give_up = give_up
        self._answered = False
        self._task: asyncio.Task[None] | None = None

    def wake(self) -> None:
        """There is work: watches until there is none."""
        if self._task is None:
            self._task = asyncio.get_running_loop().create_task(self._watch())

    def rest(self) -> None:
        """The runner is gone."""
        if self._task is not None:
            self._task.cancel()

    def heard(self, step_seconds: float) -> None:
        """The runner has answered: its current step has been going on for so long."""
        self._answered = True
        if step_seconds >= self._patience.step:
            self._give_up(f"stuck in one step for {step_seconds:.0f} seconds")

    async def _watch(self) -> None:
        silent = 0.0
        try:
            while self._busy():
                self._answered = False
                self._ask()
                await asyncio.sleep(self._patience.every)
                silent = 0.0 if self._answered else silent + self._patience.every
                if silent >= self._patience.silence:
                    self._give_up(f"silent for {silent:.0f} seconds")
                    return
        finally:
            self._task = None

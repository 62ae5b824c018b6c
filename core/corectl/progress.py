"""How far a long piece of work on models has come: a pull, a push, a create."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from corectl.messages import Notice


class Progress(msgspec.Struct, frozen=True):
    """One step. `total` and `completed` are in bytes, and 0 where they say nothing.

    `digest` names what they count (`sha256:<hex>`): clients draw one bar for each. A `notice` says what goes another
    way than one may think.
    """

    status: str
    digest: str = ""
    total: int = 0
    completed: int = 0
    notice: Notice | None = None


Report = Callable[[Progress], None]
"""Is told of each step, on the thread that does the work. Must return at once."""

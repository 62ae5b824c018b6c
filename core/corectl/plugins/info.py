"""What becomes of a plugin."""

from __future__ import annotations

from typing import Literal

import msgspec

State = Literal["active", "blocked", "broken"]


class PluginInfo(msgspec.Struct, kw_only=True):
    """What became of one entry point. `reason` says why it is blocked or broken; `hooks` are those it implements.

    `warnings` say what its author should change: it still works, but a later version will refuse it.
    """

    name: str
    distribution: str
    version: str
    state: State = "active"
    hooks: tuple[str, ...] = ()
    reason: str = ""
    warnings: tuple[str, ...] = ()


class Unfit(Exception):
    """Why a plugin is left out, in words for its author or its user."""

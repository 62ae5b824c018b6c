"""How deep the JSON of a request is nested. What can be read on one stack may be too deep to be written on another."""

from __future__ import annotations

import re

import numpy as np

MAX_DEPTH = 256
"""Lists and objects within one another. Whoever writes them again calls itself for each, and has other calls behind."""

# It never looks at a byte twice: one that does not end would be begun anew at each of its escaped quotes.
_STRING = re.compile(rb'"[^"\\]*+(?:\\.[^"\\]*+)*+"?', re.DOTALL)
_TURNS = np.zeros(256, np.int8)
_TURNS[[ord("["), ord("{")]] = 1
_TURNS[[ord("]"), ord("}")]] = -1


def too_deep(text: bytes) -> bool:
    """Whether more than `MAX_DEPTH` lists and objects lie within one another. What is no JSON gets any answer."""
    if text.count(b"[") + text.count(b"{") <= MAX_DEPTH:
        return False
    turns = _TURNS[np.frombuffer(_STRING.sub(b"", text), np.uint8)]
    return bool(turns.size) and int(np.cumsum(turns, dtype=np.int32).max()) > MAX_DEPTH

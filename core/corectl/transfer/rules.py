"""The numbers of the transfers, in one place; tests give smaller ones."""

from __future__ import annotations

import msgspec

MB = 10**6


class Rules(msgspec.Struct, frozen=True, kw_only=True):
    """How blobs are fetched. Sizes are in bytes, times in seconds.

    A download has at most `parts` parts, each of `min_part` to `max_part`; the limits win over the number.
    """

    parts: int = 16
    min_part: int = 100 * MB
    max_part: int = 1000 * MB
    tries: int = 6
    backoff: float = 1.0
    """The first pause between two tries; each one after it is twice as long."""
    progress: int = MB
    """A try that has brought this much starts the count again."""
    stall: float = 30.0
    """After this long without a byte a part is asked for again; that is no try."""
    stalls: int = 20
    """So many in a row, with nothing between them, are a failure after all."""
    tick: float = 0.06
    """Between two events of one blob, and between two notes of how far its parts are."""
    look: float = 0.008
    """Between two looks of the digest at how far the front is."""
    piece: int = 2**21
    """Bytes that are written at once."""
    buffer: int = 2**19
    """The same where a thread receives them: more would leave the processor's cache before they are written."""
    ramp: float = 0.5
    """After this long a download gets twice as many connections, up to one for each part."""
    large: int = 2**22
    """Bytes of a body from which on it is worth a connection of its own, which is not used again."""
    request: float = 1.0
    """How long one request should last where one connection is enough: it is for several parts then."""
    plenty: float = 300 * MB
    """Bytes a second at which more connections are not worth their while."""

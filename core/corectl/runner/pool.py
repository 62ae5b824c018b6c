"""The key-value pool as sequences share it: what one has computed, others begin with.

A sequence that has ended is kept as long as its cells and its place are not needed, and the least recently used go
first, so that they never stand in the way of one that runs. What goes is saved in the machine's memory, as far as there
is room; where an engine's memory cannot be cut, so are states of sequences that run.
"""

from __future__ import annotations

import logging
from collections import OrderedDict, deque
from collections.abc import Sequence

import msgspec

from corectl.runner.abilities import SequenceMemory
from corectl.runner.engine import Engine, SequenceSpec
from corectl.runner.prefix import Match, PrefixTree, common
from corectl.runner.snapshots import Snapshot, Snapshots
from corectl.runner.vision import IMAGE

log = logging.getLogger(__name__)

WORTHWHILE = 32
"""Tokens. For fewer no state is saved, and nobody waits for another one's prompt."""

WORTH_A_STEP = 256
"""Tokens of a prompt that nobody has sent before, for which there is a step more so that their state can be saved.

The step costs as much as some ten tokens of a prompt do, and on a GPU as much as some hundred. A prompt that comes
again is saved then.
"""

DEAR = 100
"""So many times the cells that kept sequences may hold, and they cost more than the oldest states are worth."""

QUICK_STATE, SMALL_STATE = 4 << 20, 16 << 20
"""Bytes that are saved in about two milliseconds, and in about ten."""

NO_MATCH = Match(0, (), 0)


class _Kept(msgspec.Struct, frozen=True):
    """A sequence that has ended."""

    salt: str
    tokens: list[int]


class CellPool:
    """Decides what a sequence begins with and what becomes of its cells. The batch loop's thread calls all methods, but
    any may read what it has, as properties.

    `snapshots` is the host memory for saved states in bytes. A sequence is known from `add` until `finish` or `remove`;
    it has cells from `begin` or `restore` on, until it is cleared or put aside.
    """

    def __init__(self, engine: Engine, snapshots: int) -> None:
        self._engine = engine
        self._memory = engine if isinstance(engine, SequenceMemory) else None
        self._tree = PrefixTree()
        # The least recently used first.
        self._kept: OrderedDict[int, _Kept] = OrderedDict()
        self._states = Snapshots(snapshots if self._memory is not None else 0)
        self._evicted: deque[_Kept] = deque(maxlen=16)
        # Sequences that are known and not kept.
        self._live = 0
        # What of what is kept was looked at for the sake of speed since something has ended: 1 for what goes quickly.
        self._trimmed = 0
        # Kept sequences that were saved ahead of time since one has ended last.
        self._tidied: set[int] = set()
        self.evicted_tokens = 0

    @property
    def free(self) -> int:
        """Cells that no running sequence holds."""
        return self._engine.info.cells - self._tree.running

    @property
    def used(self) -> int:
        """Cells that any sequence holds."""
        return self._tree.used

    @property
    def idle(self) -> int:
        """Cells that only kept sequences hold."""
        return self._tree.used - self._tree.running

    @property
    def snapshot_bytes(self) -> int:
        return self._states.used

    @property
    def saves(self) -> bool:
        """Whether sequences can begin with states that others have left; if not, they share cells, or nothing."""
        return self._memory is not None and not self._memory.can_cut and self._states.limit > 0

    @property
    def shares(self) -> bool:
        """Whether a sequence can begin with what another one has computed that runs still."""
        return self._memory is not None and self._memory.can_cut

    def match(self, salt: str, tokens: list[int], limit: int) -> Match:
        """What of the first `limit` of `tokens` is in the pool for a sequence to begin with."""
        if self._memory is None:
            return NO_MATCH
        found = self._tree.match(salt, tokens, limit)
        if self._memory.can_cut:
            return found
        return Match(found.length, tuple(id for id in found.holders if id in self._kept)[:1], 0)

    def known(self, salt: str, tokens: list[int], limit: int) -> int:
        """How many tokens a sequence would not have to compute."""
        match = self.match(salt, tokens, limit)
        return max(match.length if match.holders else 0, self._saved(salt, tokens, limit)[1])

    def _saved(self, salt: str, tokens: list[int], limit: int) -> tuple[Snapshot | None, int]:
        """The state to begin with, and how many tokens of it."""
        if self.shares:
            return self._states.longest(salt, tokens, limit)
        state = self._states.find(salt, tokens, limit)
        return state, len(state.tokens) if state is not None else 0

    def add(self, sequence: SequenceSpec, match: Match) -> None:
        """Makes a sequence known to the engine; of kept ones that give up their places, those of `match` go last."""
        info = self._engine.info
        while self._kept and self._live + len(self._kept) >= info.max_sequences + info.idle_sequences:
            self._evict(next((id for id in self._kept if id not in match.holders), next(iter(self._kept))))
        self._engine.add(sequence)
        self._live += 1

    def begin(self, id: int, salt: str, tokens: list[int], limit: int, match: Match) -> int:
        """Gives an empty sequence what is known of its first `limit` tokens; how many that is."""
        state, length = self._saved(salt, tokens, limit)
        # What is in the pool costs nothing, a state is copied as a whole.
        least = self._engine.info.worth_saving + match.running if self.shares else 1
        if length < match.length + least and self._copy(id, salt, match):
            return match.length
        if state is not None and length >= least and self._take(id, salt, state, length):
            return length
        if self._copy(id, salt, match):
            return match.length
        self._tree.start(id, salt)
        return 0

    def _copy(self, id: int, salt: str, match: Match) -> bool:
        # It may have been evicted since, to make a place.
        source = next((item for item in match.holders if self._tree.holds(item)), None)
        if source is None or self._memory is None or not self._memory.copy(source, id, match.length):
            return False
        self._tree.start(id, salt, source, match.length)
        if source in self._kept:
            self._kept.move_to_end(source)
            if not self._memory.can_cut:
                self._forget(source)
        return True

    def _take(self, id: int, salt: str, snapshot: Snapshot, length: int) -> bool:
        """Gives an empty sequence the first `length` tokens of a snapshot. False, and nothing done, without room."""
        if self._memory is None or not self._restore(id, len(snapshot.tokens), snapshot.state):
            return False
        if length < len(snapshot.tokens):
            self._memory.cut(id, length)
        self._states.touch(snapshot)
        self._tree.start(id, salt)
        self._tree.extend(id, snapshot.tokens[:length])
        return True

    def _restore(self, id: int, cells: int, state: bytearray) -> bool:
        """Gives an empty sequence a state that takes so many cells. Without room, nothing that is kept goes for it."""
        if self._memory is None or self._tree.running + cells > self._engine.info.cells:
            return False
        self.make_room(cells)
        if self.used + cells > self._engine.info.cells:
            return False
        return self._memory.restore(id, state)

    def restore(
        self, id: int, salt: str, tokens: list[int], state: bytearray, *, shifted: bool = False
    ) -> bool:
        """Gives an empty sequence a saved state, in cells of its own. False, and nothing done, if there is no room.

        The state of one that was `shifted` is nobody else's.
        """
        if not self._restore(id, len(tokens), state):
            return False
        self._tree.start(id, salt)
        if shifted:
            self._tree.shift(id, salt, 0, tokens)
        else:
            self._tree.extend(id, tokens)
        return True

    def crowded(self, *, large: bool) -> bool:
        """Whether kept sequences slow down those that run, and some can go; also such as have a `large` state."""
        most = self._engine.info.idle_cells
        return self._trimmed < (2 if large else 1) and most > 0 and self.idle > most

    def trim(self, *, large: bool) -> None:
        """Takes kept sequences out of the pool while they slow down the steps of those that run.

        All that are saved, or quickly are; and if one with a `large` state may be saved now, one of those. One that
        would be lost, or for which another state would be, stays: it costs time, but less than to compute it again.
        Where many have stayed, the states that were of use longest ago are lost.
        """
        if not self.crowded(large=large):
            return
        most = self._engine.info.idle_cells
        spare = large
        for id, kept in list(self._kept.items()):
            fits = self._fits(id, kept, instead=self.idle > DEAR * most)
            quick = self._is_saved(id, kept) or (fits and self._is_at_most(id, SMALL_STATE))
            if quick or (spare and fits):
                spare = spare and quick
                self._evict(id)
            if self.idle <= most:
                return
        self._trimmed = 2 if large and spare else 1

    def tidy(self, *, quick: bool) -> bool:
        """Saves one kept sequence ahead of time, for when it would slow down others; whether there was one.

        If it is to be `quick`, only a state of up to `QUICK_STATE` bytes.
        """
        if not self.crowded(large=True):
            return False
        unsaved = [(id, kept) for id, kept in self._kept.items() if not self._is_saved(id, kept)]
        instead = sum(self._tree.own(id) for id, _ in unsaved) > DEAR * self._engine.info.idle_cells
        for id, kept in unsaved:
            if id in self._tidied or (quick and not self._is_at_most(id, QUICK_STATE)):
                continue
            if self._fits(id, kept, instead=instead):
                # Once is enough: where not all states fit, each would push out the next without end.
                self._tidied.add(id)
                return self.snapshot(id, kept.salt, kept.tokens)
        return False

    def _is_saved(self, id: int, kept: _Kept) -> bool:
        """Whether nothing is lost if a sequence goes: there is a state of it, or others hold nearly all of it."""
        if IMAGE in kept.tokens:
            return False
        if self.shares and self._tree.own(id) < self._engine.info.worth_saving:
            return True
        return self._saved(kept.salt, kept.tokens, len(kept.tokens))[1] == len(kept.tokens)

    def _is_at_most(self, id: int, size: int) -> bool:
        return self._memory is not None and self._memory.state_size(id) <= size

    def _fits(self, id: int, kept: _Kept, *, instead: bool) -> bool:
        """Whether a sequence can be saved: beside all states, or `instead` of those that were of use longest ago."""
        if self._memory is None or IMAGE in kept.tokens or len(kept.tokens) < WORTHWHILE:
            return False
        return self._can_save(id) if instead else self._states.fits(self._memory.state_size(id))

    def extend(self, id: int, tokens: Sequence[int]) -> None:
        """A running sequence has computed more tokens."""
        self._tree.extend(id, tokens)

    def make_room(self, count: int) -> None:
        """Evicts kept sequences until so many cells are free, or none is left."""
        while self._kept and self._tree.used + count > self._engine.info.cells:
            self._evict(next(iter(self._kept)))

    def finish(self, id: int, salt: str, tokens: list[int]) -> None:
        """A sequence that was not shifted has ended; it is kept for others."""
        if self._memory is None or not tokens:
            self.remove(id)
            return
        self._memory.keep(id)
        self._live -= 1
        self._trimmed = 0
        self._tidied.clear()
        self._tree.rest(id)
        for other in self._tree.within(id) & self._kept.keys():
            self._forget(other)
        self._kept[id] = _Kept(salt, tokens)

    def remove(self, id: int) -> None:
        """Forgets a sequence and frees what it alone holds."""
        self._engine.remove(id)
        self._live -= 1
        self._trimmed = 0
        self._tidied.clear()
        if self._tree.holds(id):
            self._tree.release(id)

    def forget_kept(self) -> None:
        """After an engine has failed, nothing that it has kept is to be trusted."""
        for id in list(self._kept):
            self._forget(id)

    def put_aside(self, id: int, computed: int, savable: bool) -> bytearray | None:
        """Takes a running sequence's cells away. Gives its state, which counts as a snapshot until `take_back`.

        None where nothing was saved, which is so as well if most of it was shared: that is copied again.
        """
        worth = savable and computed >= self._engine.info.worth_saving and 2 * self._tree.own(id) > computed
        state = self._save(id) if worth else None
        if state is not None:
            self._states.put_aside(len(state))
        self.clear(id)
        return state

    def take_back(self, state: bytearray) -> None:
        """A state that was put aside is needed no more."""
        self._states.take_back(len(state))

    def clear(self, id: int) -> None:
        """Takes a running sequence's cells away."""
        self._engine.clear(id)
        self._tree.release(id)

    def shift(self, id: int, salt: str, tokens: list[int], keep: int, discard: int, *, shifted: bool) -> bool:
        """Forgets `discard` cells of a running sequence after its first `keep`; `tokens` are all it has.

        From then on nobody can share what it has after them. False if it has lost all cells instead: those of others
        would have moved with its own, and there was no room for a copy.
        """
        for other in self._tree.sharers(id, keep) & self._kept.keys():
            self._evict(other)
        if self._tree.sharers(id, keep):
            state = self._save(id)
            self.clear(id)
            if state is None or not self.restore(id, salt, tokens, state, shifted=shifted):
                return False
        self._engine.shift(id, keep, discard)
        self._tree.shift(id, salt, keep, tokens[keep + discard :])
        return True

    def snapshot(self, id: int, salt: str, tokens: list[int]) -> bool:
        """Saves the state of a sequence for those that begin with the same `tokens`; whether they can now."""
        if len(tokens) < WORTHWHILE or IMAGE in tokens:
            return False
        if self._saved(salt, tokens, len(tokens))[1] == len(tokens):
            return True
        if self.shares and self._can_save(id):
            # A longer state of the same stands for them.
            self._states.drop_within(salt, tokens)
        state = self._save(id)
        if state is None:
            return False
        self._states.add(salt, tokens, state)
        return True

    def why_missed(self, salt: str, tokens: list[int], limit: int, cached: int) -> str:
        """Why no more than the first `cached` of a prompt's tokens were known, for the log."""
        if cached == limit:
            return "all that can be" if limit == len(tokens) - 1 else "an image is next"
        if self._memory is None:
            return "this engine shares nothing"
        if self.match(salt, tokens, limit).length > cached:
            return "the memory of this model cannot be taken there"
        if self._tree.longest(tokens, limit) > cached:
            return "the rest belongs to another cache_salt"
        lost = (common(item.tokens, tokens, 0, limit) for item in self._evicted if item.salt == salt)
        return "the rest was evicted" if max(lost, default=0) > cached else "no prompt began like the rest"

    def _save(self, id: int) -> bytearray | None:
        if self._memory is None or not self._can_save(id):
            return None
        self._states.make_room(self._memory.state_size(id))
        return self._memory.save(id)

    def _can_save(self, id: int) -> bool:
        """Whether there is room for a sequence's state, once others have gone."""
        if self._memory is None or not self._states.limit:
            return False
        return 0 < self._memory.state_size(id) <= self._states.room

    def _evict(self, id: int) -> None:
        kept = self._kept[id]
        if log.isEnabledFor(logging.DEBUG):
            self._evicted.append(kept)
        # Of one that others hold too, little is lost.
        worth = (len(kept.tokens) if self.saves else self._tree.own(id)) >= self._engine.info.worth_saving
        saved = worth and self.snapshot(id, kept.salt, kept.tokens)
        before = self._tree.used
        self._forget(id)
        if not saved:
            self.evicted_tokens += before - self._tree.used

    def _forget(self, id: int) -> None:
        del self._kept[id]
        self._engine.remove(id)
        self._tree.release(id)

"""The tree of cells against a model that knows every single cell."""

from __future__ import annotations

import itertools

from hypothesis import settings
from hypothesis import strategies as st
from hypothesis.stateful import RuleBasedStateMachine, invariant, precondition, rule

from corectl.runner.prefix import PrefixTree, common

SALTS = ("", "salt")
TOKENS = st.lists(st.integers(0, 1), min_size=1, max_size=6)


def _common(first: list[int], second: list[int]) -> int:
    pairs = itertools.takewhile(lambda pair: pair[0] == pair[1], zip(first, second, strict=False))
    return sum(1 for _ in pairs)


class Cells(RuleBasedStateMachine):
    """Each sequence is a list of (cell, token); a cell that two lists have is shared."""

    def __init__(self) -> None:
        super().__init__()
        self.tree = PrefixTree()
        self.held: dict[int, list[tuple[int, int]]] = {}
        self.salts: dict[int, str] = {}
        # How many of a sequence's cells others can begin with.
        self.public: dict[int, int] = {}
        self.running: set[int] = set()
        self.cells = itertools.count()
        self.ids = itertools.count(1)

    def _tokens(self, id: int) -> list[int]:
        return [token for _, token in self.held[id][: self.public[id]]]

    @rule(salt=st.sampled_from(SALTS))
    def start(self, salt: str) -> None:
        id = next(self.ids)
        self.tree.start(id, salt)
        self.held[id], self.salts[id], self.public[id] = [], salt, 1000
        self.running.add(id)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def fork(self, data: st.DataObject) -> None:
        source = data.draw(st.sampled_from(sorted(self.held)))
        length = data.draw(st.integers(0, min(len(self.held[source]), self.public[source])))
        id = next(self.ids)
        self.tree.start(id, self.salts[source], source, length)
        self.held[id], self.salts[id] = self.held[source][:length], self.salts[source]
        self.public[id] = 1000
        self.running.add(id)

    @precondition(lambda self: self.running)
    @rule(data=st.data(), tokens=TOKENS)
    def extend(self, data: st.DataObject, tokens: list[int]) -> None:
        id = data.draw(st.sampled_from(sorted(self.running)))
        self.tree.extend(id, tokens)
        self.held[id] += [(next(self.cells), token) for token in tokens]

    @precondition(lambda self: self.running)
    @rule(data=st.data(), tokens=TOKENS)
    def shift(self, data: st.DataObject, tokens: list[int]) -> None:
        id = data.draw(st.sampled_from(sorted(self.running)))
        others = {cell for other, cells in self.held.items() if other != id for cell in cells}
        shared = sum(1 for cell in self.held[id] if cell in others)
        keep = data.draw(st.integers(shared, len(self.held[id])))
        self.tree.shift(id, self.salts[id], keep, tokens)
        self.held[id] = self.held[id][:keep] + [(next(self.cells), token) for token in tokens]
        self.public[id] = min(self.public[id], keep)

    @precondition(lambda self: self.running)
    @rule(data=st.data())
    def rest(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.running)))
        self.tree.rest(id)
        self.running.remove(id)

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def release(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.held)))
        self.tree.release(id)
        del self.held[id], self.salts[id]
        self.running.discard(id)

    @rule(salt=st.sampled_from(SALTS), tokens=TOKENS, spare=st.integers(0, 3))
    def match(self, salt: str, tokens: list[int], spare: int) -> None:
        limit = max(len(tokens) - spare, 0)
        wanted = tokens[:limit]
        lengths = {id: _common(self._tokens(id), wanted) for id in self.held if self.salts[id] == salt}
        found = self.tree.match(salt, tokens, limit)
        assert found.length == max(lengths.values(), default=0)
        if found.length:
            cells = {tuple(self.held[id][: found.length]) for id in found.holders}
            assert len(cells) == 1, "holders of other cells"
            run = next(iter(cells))
            assert set(found.holders) == {id for id in self.held if tuple(self.held[id][: len(run)]) == run}
            live = {cell for id in self.running for cell, _ in self.held[id]}
            assert found.running == sum(1 for cell, _ in run if cell in live)
        assert self.tree.longest(tokens, limit) == max(
            (_common(self._tokens(id), wanted) for id in self.held), default=0
        )

    @precondition(lambda self: self.held)
    @rule(data=st.data())
    def relations(self, data: st.DataObject) -> None:
        id = data.draw(st.sampled_from(sorted(self.held)))
        start = data.draw(st.integers(0, 8))
        mine = [cell for cell, _ in self.held[id]]
        others = {other: [cell for cell, _ in cells] for other, cells in self.held.items() if other != id}
        assert self.tree.sharers(id, start) == {
            other for other, cells in others.items() if set(cells) & set(mine[start:])
        }
        assert self.tree.within(id) == {
            other
            for other, cells in others.items()
            if self.salts[other] == self.salts[id] and cells == mine[: len(cells)]
        }
        shared = set(itertools.chain.from_iterable(others.values()))
        assert self.tree.own(id) == sum(1 for cell in mine if cell not in shared)

    @invariant()
    def every_cell_counts_once(self) -> None:
        assert self.tree.used == len({cell for cells in self.held.values() for cell, _ in cells})
        assert self.tree.running == len({cell for id in self.running for cell, _ in self.held[id]})

    @invariant()
    def nothing_is_left_of_what_was_released(self) -> None:
        nodes = list(self.tree._roots.values())
        for node in nodes:
            nodes += node.children
        # Every run but the roots ends where a sequence ends, or where two part, or where one cannot be shared any more.
        inner = [node for node in nodes if node.parent is not None and not node.ends]
        assert all(len(node.children) > 1 or node.children[0].private != node.private for node in inner)
        assert {id for node in nodes for id in node.ends} == set(self.held)


TestCells = Cells.TestCase
TestCells.settings = settings(max_examples=60, stateful_step_count=40)


def test_a_long_prompt_is_compared_by_slices() -> None:
    run = list(range(100_000))
    for differs in (0, 1, 2, 777, 99_998, 99_999):
        tokens = [*run[:differs], -5, *run[differs + 1 :]]
        assert common(run, [9, *tokens], 1, len(tokens) + 1) == differs
    assert common(run, run, 0, 500) == 500
    assert common(run[:300], run, 0, 500) == 300
    assert common(run, run, 0, 0) == 0

"""Which sequences hold which cells of the key-value pool: a radix tree over tokens.

A node is a run of cells that the same sequences hold, so that a cell that several sequences share is counted once. What
was computed twice is there twice: of two children, both may begin with the same tokens. Nothing here takes a step for
each token; runs are compared by slices.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence

import msgspec

_NOBODY = -1
"""No sequence's id."""


class _Node:
    """A run of cells. `ends` are the sequences whose last cell is its last, `running` counts those at or below it.

    What is in `private` cells is not what their tokens alone would give.
    """

    __slots__ = ("children", "ends", "parent", "private", "running", "tokens")

    def __init__(self, parent: _Node | None, tokens: list[int], *, private: bool = False) -> None:
        self.parent = parent
        self.tokens = tokens
        self.private = private
        self.children: list[_Node] = []
        self.ends: set[int] = set()
        self.running = 0

    def below(self) -> Iterator[int]:
        """The sequences that hold this run."""
        nodes = [self]
        while nodes:
            node = nodes.pop()
            yield from node.ends
            nodes += node.children


class Match(msgspec.Struct, frozen=True):
    """The longest beginning of a prompt that is in the pool: its `length` in tokens, and who holds all of it.

    `running` are the tokens of it that sequences hold which run.
    """

    length: int
    holders: tuple[int, ...]
    running: int


class PrefixTree:
    """The cells of all sequences. `used` is how many there are, `running` how many of them sequences hold that run.

    Sequences share with those of the same salt only.
    """

    def __init__(self) -> None:
        self._roots: dict[str, _Node] = {}
        self._leaves: dict[int, _Node] = {}
        self._running: set[int] = set()
        self.used = 0
        self.running = 0

    def holds(self, id: int) -> bool:
        """Whether a sequence is known."""
        return id in self._leaves

    def start(self, id: int, salt: str, source: int = _NOBODY, length: int = 0) -> None:
        """Adds a running sequence that holds the first `length` cells of another one, which has the same salt."""
        root = self._roots.setdefault(salt, _Node(None, []))
        node = self._cut(self._leaves[source], length) if length else root
        node.ends.add(id)
        self._leaves[id] = node
        self._running.add(id)
        self._count(node, 1)

    def extend(self, id: int, tokens: Sequence[int]) -> None:
        """Adds cells to the end of a running sequence."""
        leaf = self._leaves[id]
        if leaf.parent is None or leaf.children or len(leaf.ends) > 1:
            leaf = self._grow(id)
        leaf.tokens += tokens
        self.used += len(tokens)
        self.running += len(tokens)

    def shift(self, id: int, salt: str, keep: int, tokens: Sequence[int]) -> None:
        """Replaces all cells of a running sequence but its first `keep` by others, which nobody can share."""
        self.start(_NOBODY, salt, id, keep)
        self.release(id)
        self.start(id, salt, _NOBODY, keep)
        self.release(_NOBODY)
        self._grow(id, private=True)
        self.extend(id, tokens)
        self._join(self._leaves[id].parent)

    def rest(self, id: int) -> None:
        """A sequence runs no more, but keeps its cells."""
        self._running.remove(id)
        self._count(self._leaves[id], -1)

    def release(self, id: int) -> None:
        """Forgets a sequence; its cells are free where nobody else holds them."""
        node = self._leaves.pop(id)
        if id in self._running:
            self._running.remove(id)
            self._count(node, -1)
        node.ends.remove(id)
        while node.parent is not None and not node.ends and not node.children:
            self.used -= len(node.tokens)
            node.parent.children.remove(node)
            node = node.parent
        self._join(node)
        if node.parent is None and not node.children and not node.ends:
            self._roots = {salt: root for salt, root in self._roots.items() if root is not node}

    def match(self, salt: str, tokens: Sequence[int], limit: int) -> Match:
        """The longest common beginning of a sequence and the first `limit` of `tokens`."""
        root = self._roots.get(salt)
        best: tuple[int, _Node | None, int] = (0, None, 0)
        nodes = [(root, 0, 0)] if root is not None else []
        while nodes:
            node, depth, running = nodes.pop()
            for child in node.children:
                if child.private:
                    continue
                found = common(child.tokens, tokens, depth, limit)
                held = running + (found if child.running else 0)
                if depth + found > best[0]:
                    best = (depth + found, child, held)
                if found and found == len(child.tokens):
                    nodes.append((child, depth + found, held))
        length, last, running = best
        return Match(length, tuple(last.below()) if last is not None else (), running)

    def longest(self, tokens: Sequence[int], limit: int) -> int:
        """The length of the longest match under any salt."""
        return max((self.match(salt, tokens, limit).length for salt in self._roots), default=0)

    def sharers(self, id: int, start: int) -> set[int]:
        """The other sequences that hold a cell of this one from `start` on."""
        path = self._path(self._leaves[id])
        depth = 0
        for node in path:
            depth += len(node.tokens)
            if depth > start:
                return {other for other in node.below() if other != id}
        return set()

    def within(self, id: int) -> set[int]:
        """The other sequences all of whose cells this one holds as well."""
        return {other for node in self._path(self._leaves[id]) for other in node.ends if other != id}

    def own(self, id: int) -> int:
        """How many cells a sequence shares with nobody."""
        count = 0
        for node in reversed(self._path(self._leaves[id])):
            if len(node.ends) + len(node.children) > 1:
                break
            count += len(node.tokens)
        return count

    def _grow(self, id: int, *, private: bool = False) -> _Node:
        """Gives a running sequence a run of its own at its end."""
        leaf = self._leaves[id]
        leaf.ends.discard(id)
        child = _Node(leaf, [], private=private)
        child.running = 1
        child.ends.add(id)
        leaf.children.append(child)
        self._leaves[id] = child
        return child

    def _count(self, node: _Node, change: int) -> None:
        for item in self._path(node):
            before, item.running = item.running, item.running + change
            if bool(before) != bool(item.running):
                self.running += change * len(item.tokens)

    def _path(self, node: _Node) -> list[_Node]:
        path = [node]
        while (parent := path[-1].parent) is not None:
            path.append(parent)
        return path[::-1]

    def _cut(self, leaf: _Node, length: int) -> _Node:
        """The node on the way to `leaf` that ends after `length` cells; it is made if there is none."""
        depth = 0
        for node in self._path(leaf):
            depth += len(node.tokens)
            if depth >= length:
                break
        keep = len(node.tokens) - (depth - length)
        if keep == len(node.tokens):
            return node
        rest = _Node(node, node.tokens[keep:], private=node.private)
        rest.children, rest.ends, rest.running = node.children, node.ends, node.running
        self._adopt(rest)
        node.tokens, node.children, node.ends = node.tokens[:keep], [rest], set()
        return node

    def _join(self, node: _Node | None) -> None:
        """Makes one run of two that the same sequences hold."""
        if node is None or node.parent is None or node.ends or len(node.children) != 1:
            return
        child = node.children[0]
        if child.private and not node.private:
            return
        node.tokens = node.tokens + child.tokens
        node.children, node.ends = child.children, child.ends
        self._adopt(node)

    def _adopt(self, node: _Node) -> None:
        for child in node.children:
            child.parent = node
        for id in node.ends:
            self._leaves[id] = node


def common(run: Sequence[int], tokens: Sequence[int], offset: int, limit: int) -> int:
    """How many tokens at the beginning of `run` equal those of `tokens` from `offset` on and before `limit`."""
    length = min(len(run), limit - offset)
    if length <= 0 or run[0] != tokens[offset]:
        return 0
    if run[:length] == tokens[offset : offset + length]:
        return length
    # The first `low` are equal, the first `length` are not.
    low = 1
    while length - low > 1:
        middle = (low + length) // 2
        if run[low:middle] == tokens[offset + low : offset + middle]:
            low = middle
        else:
            length = middle
    return low

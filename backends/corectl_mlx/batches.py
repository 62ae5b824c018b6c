"""Which sequences are computed together: all of them, unless padding them to one length takes more than is left."""

from __future__ import annotations

from collections.abc import Collection, Mapping, Sequence

from corectl_mlx.caches import Caches, Rows


def divided(lengths: Mapping[int, int], spare: int) -> list[list[int]]:
    """Sequences by their lengths in as few groups as `spare` cells of padding allow; each is padded to its longest.

    None needs any padding when each is alone, so there is always a way.
    """
    groups = [sorted(lengths, key=lengths.__getitem__, reverse=True)]

    def saved(group: Sequence[int], place: int) -> int:
        """Cells of padding that it takes less if all from `place` on are a group of their own."""
        return (lengths[group[0]] - lengths[group[place]]) * (len(group) - place)

    padding = sum(lengths[groups[0][0]] - length for length in lengths.values()) if lengths else 0
    while padding > max(spare, 0):
        saving, group, place = max(
            (saved(group, place), group, place) for group in groups for place in range(1, len(group))
        )
        padding -= saving
        groups.remove(group)
        groups += [group[:place], group[place:]]
    return groups


class Batches:
    """The sequences that are computed together with others."""

    def __init__(self) -> None:
        self._rows: list[Rows] = []

    @property
    def rows(self) -> Sequence[Rows]:
        """The batches."""
        return self._rows

    def leave(self, id: int) -> Caches:
        """Takes a sequence out; gives its own caches."""
        return self._with(id).leave([id])[id]

    def drop(self, id: int) -> None:
        """Takes a sequence out, and forgets it. After a failure it may be in none of them."""
        for rows in self._rows:
            rows.drop([id])

    def arrange(self, groups: Collection[Collection[int]], own: Mapping[int, Caches]) -> dict[int, Caches]:
        """Makes batches of these sequences, and of no others. As many as possible stay where they are.

        `own` has the caches of those that come from outside, and is used up; gives the caches of those that go there.
        """
        before, batches = self._rows, list[tuple[Rows, Collection[int]]]()
        for group in groups:
            # Moving a sequence from one batch to another copies its cache.
            rows = max(before, key=lambda rows: len(set(rows.ids) & set(group)), default=Rows())
            if set(rows.ids).isdisjoint(group):
                rows = Rows()
            before = [other for other in before if other is not rows]
            batches.append((rows, group))
        outside = dict(own)
        for rows in before:
            outside |= rows.leave(tuple(rows.ids))
        for rows, group in batches:
            outside |= rows.leave([id for id in rows.ids if id not in group])
        for rows, group in batches:
            rows.join({id: outside.pop(id) for id in group if id not in rows.ids})
        self._rows = [rows for rows, _ in batches]
        return outside

    def _with(self, id: int) -> Rows:
        return next(rows for rows in self._rows if id in rows.ids)

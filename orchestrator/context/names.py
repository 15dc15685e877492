"""The map of names: what the parts that did not go in define and where, so that a reader knows what to open. Pure."""

from __future__ import annotations

from bisect import bisect_right
from collections.abc import Iterable, Sequence
from itertools import chain

from orchestrator.context.budget import Ranges, Selection
from orchestrator.context.excerpts import View

#: The map's bytes, counted as names and line numbers: this share of the budget, and no more than so many.
_SHARE = 0.05
_MOST_BYTES = 16 << 10
#: Names of one file at most: the map tells of many files rather than all of one.
_MOST_NAMES = 30
#: What a name costs beside its letters: its line number and what stands around both in JSON.
_EACH_BYTES = 10

#: ``[line, name]``, lines 1-based and rising.
Names = list[list[int | str]]


def name_map(selection: Selection, budget: int) -> dict[str, Names]:
    """By path the names that are not shown: of the files shown in part, then of the best files not shown, as far as a
    twentieth of ``budget`` (bytes of content) goes. Files that define nothing are left out."""
    left = min(int(budget * _SHARE), _MOST_BYTES)
    found: dict[str, Names] = {}
    parts = ((chosen.ranked.facts.path, chosen.view, chosen.ranges) for chosen in selection.chosen if chosen.ranges)
    rest: Iterable[tuple[str, View, Ranges]] = ((path, view, ()) for path, view in selection.unshown.items())
    for path, view, ranges in chain(parts, rest):
        if left < 3 * _EACH_BYTES:
            break
        # a file takes a third of what is left at most, so that one of many names leaves room for others
        names, cost = _within(_names(view, ranges), left // 3)
        if names:
            found[path] = names
            left -= cost
    return found


def _within(names: Names, room: int) -> tuple[Names, int]:
    """The first names that fit into ``room`` bytes, and what they take."""
    cost = 0
    for place, (_, name) in enumerate(names):
        size = len(str(name).encode("utf-8", "replace")) + _EACH_BYTES
        if cost + size > room:
            return names[:place], cost
        cost += size
    return names, cost


def _names(view: View, ranges: Sequence[tuple[int, int]]) -> Names:
    starts = [first for first, _ in ranges]
    found: dict[str, int] = {}
    for block in view.blocks:
        if not block.name or block.name in found:
            continue
        place = bisect_right(starts, block.first) - 1
        if place < 0 or ranges[place][1] < block.first:
            found[block.name] = block.first
            if len(found) == _MOST_NAMES:
                break
    return [[line, name] for name, line in found.items()]

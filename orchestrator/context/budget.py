"""Budget: which files go in whole, which as excerpts, and what is left out and why. Pure.

The blocks of the best files compete for the budget. A block's worth is the chance that the task's change lies
in it: the chance of its file (falling with the file's score) times its share in the file (by how well it
matches, and its size). Blocks are taken by worth per byte, the classic greedy answer to the knapsack problem
(Dantzig 1957), so that the sum of the chances within the budget is near its maximum.
"""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Callable, Mapping, Sequence
from itertools import chain, count, repeat
from operator import mul

import msgspec

from orchestrator.context.excerpts import View
from orchestrator.context.ranking import Ranked, Ranking
from orchestrator.context.scopes import scopes

Ranges = tuple[tuple[int, int], ...]
#: An opened file with the scores of its blocks, or why it cannot be shown.
Candidate = tuple[View, list[float]] | str


class Chosen(msgspec.Struct, frozen=True):
    """A file that goes in: ``ranges`` None means whole. ``size`` counts its shown bytes; ``tier`` is ``priority``'s."""

    ranked: Ranked
    view: View
    ranges: Ranges | None
    size: int
    tier: int = 0


class Selection(msgspec.Struct, frozen=True):
    """What was chosen, best first, and what was left out: ``(path, reason)``, and how many files beyond those that are
    ranked at all.

    ``unshown``: by path the views of the best files of which nothing went in, best first.
    """

    chosen: list[Chosen]
    omitted: list[tuple[str, str]]
    is_truncated: bool
    unshown: dict[str, View] = {}
    unranked: int = 0


class Packing(msgspec.Struct, frozen=True, kw_only=True):
    """How blocks are valued; see ``docs/discussion/context.md`` for what each is worth.

    Attributes:
        sharpness: exponent on a file's score relative to the best one's.
        contrast: exponent on a block's score relative to its file's best block.
        floor: worth of a block that matches nothing, relative to the file's best block.
        least_bytes: a block counts with at least so many bytes, lest crumbs win.
    """

    sharpness: float = 5.0
    contrast: float = 1.3
    floor: float = 0.1
    least_bytes: int = 200


class Pick(msgspec.Struct):
    """What goes in of one file: numbers of blocks, and the lines (1-based) that open the scopes around them."""

    blocks: list[int] = []
    openings: set[int] = set()


PACKING = Packing()
#: A file of whose bytes this share was chosen goes in whole when it fits.
_NEARLY_WHOLE = 0.8
_CRUMB = 64


def select(
    ranked: Ranking,
    candidates: Mapping[str, Candidate],
    budget: int,
    open_file: Callable[[Ranked], View | str],
    packing: Packing = PACKING,
    tier_of: Callable[[Ranked], int] = lambda _: 0,
) -> Selection:
    """Fill ``budget`` bytes with the most promising blocks and files, files in the order of ``ranked``.

    ``candidates``: by path the files whose blocks compete; ``open_file`` gives a further file's view, or the
    reason why it cannot be shown. ``tier_of``: a file's tier; a lower one is filled before a higher one gets what is
    left.
    """
    paths = ranked.paths()
    competing = {number: candidates[path] for number, path in enumerate(paths) if path in candidates}
    views = {n: entry for n, entry in competing.items() if not isinstance(entry, str)}
    refused = {n: entry for n, entry in competing.items() if isinstance(entry, str)}
    tiers = {n: tier_of(ranked[n]) for n in views}
    picks, left = _pick(ranked, views, budget, packing, tiers)
    chosen: dict[int, Chosen] = {}
    for number, (view, _) in views.items():
        pick = picks.get(number, Pick())
        if not pick.blocks and view.lines.count:
            continue
        chosen[number], left = _joined(ranked[number], view, pick, left)
    if left >= _CRUMB:
        # before anything is told of their tiers: little is left as a rule, and few of the 2,000 files fit into that
        further = [number for number, size in enumerate(ranked.sizes()) if size <= left and number not in competing]
        tiers |= {number: tier_of(ranked[number]) for number in further}
        for number in sorted(further, key=tiers.__getitem__):
            if left < _CRUMB:
                break
            left = _whole(ranked, number, left, open_file, chosen, refused)
    omitted = [(path, refused.get(number, "budget")) for number, path in enumerate(paths) if number not in chosen]
    is_cut = any(pick.ranges is not None for pick in chosen.values())
    return Selection(
        [msgspec.structs.replace(chosen[number], tier=tiers[number]) for number in sorted(chosen)],
        omitted,
        is_cut or any(reason == "budget" for _, reason in omitted),
        {paths[number]: view for number, (view, _) in views.items() if number not in chosen},
    )


def _pick(
    ranked: Sequence[Ranked],
    views: Mapping[int, tuple[View, list[float]]],
    budget: int,
    packing: Packing,
    tiers: Mapping[int, int],
) -> tuple[dict[int, Pick], int]:
    """What goes in by file as tier and worth per byte have it, and the bytes left."""
    best = max((ranked[number].score for number in views), default=0.0) or 1.0
    candidates: defaultdict[int, list[tuple[float, int, int]]] = defaultdict(list)
    for number, (view, scores) in views.items():
        chance = max(ranked[number].score / best, 1e-6) ** packing.sharpness
        most = max(scores, default=0.0) or 1.0
        contrast, floor, least = packing.contrast, packing.floor, packing.least_bytes
        worth = [(score / most) ** contrast + floor if score else floor for score in scores]
        scale = -chance / (sum(map(mul, worth, view.sizes)) or 1.0)
        densities = [
            scale * value if size >= least else scale * value * size / least
            for value, size in zip(worth, view.sizes, strict=True)
        ]
        candidates[tiers[number]] += zip(densities, repeat(number), count())
    picked: dict[int, Pick] = {}
    left = budget
    for _, number, index in chain.from_iterable(sorted(candidates[tier]) for tier in sorted(candidates)):
        view = views[number][0]
        size = view.sizes[index]
        if size > left:
            continue
        pick = picked.get(number) or Pick()
        around = view.openings.get(index)
        if around is None:
            around = scopes(view.lines, view.blocks[index].first, ranked[number].facts.language)
            view.openings[index] = around
        if around:
            size += sum(view.lines.size(line, line) for line in around if line not in pick.openings)
            if size > left:
                continue
            pick.openings.update(around)
        left -= size
        pick.blocks.append(index)
        picked[number] = pick
        if left < _CRUMB:
            break
    return picked, left


def _joined(item: Ranked, view: View, pick: Pick, left: int) -> tuple[Chosen, int]:
    """One file's blocks as ranges, or the whole file when nearly all of it was picked; and the bytes left."""
    lines = view.lines
    size = sum(view.sizes[index] for index in pick.blocks)
    counted = size + sum(lines.size(line, line) for line in pick.openings)
    total = sum(view.sizes)
    if size == total or (size >= _NEARLY_WHOLE * total and total - counted <= left):
        return Chosen(item, view, None, total), left - (total - counted)
    parts = [(view.blocks[index].first, view.blocks[index].last) for index in pick.blocks]
    ranges = merge([*parts, *((line, line) for line in pick.openings)])
    size = sum(lines.size(first, last) for first, last in ranges)
    return Chosen(item, view, ranges, size), left + counted - size


def _whole(
    ranked: Sequence[Ranked],
    number: int,
    left: int,
    open_file: Callable[[Ranked], View | str],
    chosen: dict[int, Chosen],
    refused: dict[int, str],
) -> int:
    """Take a file beyond those that competed when it fits whole; the bytes left."""
    item = ranked[number]
    if item.facts.stamp.size > left:
        return left
    view = open_file(item)
    if isinstance(view, str):
        refused[number] = view
        return left
    size = sum(view.sizes)
    if size <= left:
        chosen[number] = Chosen(item, view, None, size)
        return left - size
    return left


def merge(ranges: Sequence[tuple[int, int]]) -> Ranges:
    """Sorted ranges; neighbours joined."""
    result: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return tuple(result)

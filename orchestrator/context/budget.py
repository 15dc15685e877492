"""Budget: which files go in whole, which as excerpts, and what is left out and why. Pure."""

from __future__ import annotations

from collections.abc import Callable, Iterable

import msgspec

from orchestrator.context.excerpts import View, score_blocks
from orchestrator.context.rank import Ranked

Ranges = tuple[tuple[int, int], ...]


class Chosen(msgspec.Struct, frozen=True):
    """A file that goes in: ``ranges`` None means whole. ``size`` counts its shown bytes."""

    ranked: Ranked
    view: View
    ranges: Ranges | None
    size: int


class Selection(msgspec.Struct, frozen=True):
    """What was chosen, best first, and what was left out: ``(path, reason)``."""

    chosen: list[Chosen]
    omitted: list[tuple[str, str]]
    is_truncated: bool


#: A file larger than this share of the budget is given as excerpts.
_WHOLE_SHARE = 8


def select(
    ranked: Iterable[Ranked],
    budget: int,
    terms: list[tuple[bytes, float]],
    open_file: Callable[[Ranked], View | str],
) -> Selection:
    """Fill ``budget`` bytes with the best files.

    ``open_file`` gives a file's view, or the reason why it cannot be shown. Files that do not fit are passed
    over and later ones tried (dense packing).
    """
    chosen: list[Chosen] = []
    omitted: list[tuple[str, str]] = []
    left = budget
    is_truncated = False
    failures = 0
    for item in ranked:
        if left < 64 or failures > 200:
            omitted.append((item.facts.path, "budget"))
            is_truncated = True
            continue
        view = open_file(item)
        if isinstance(view, str):
            omitted.append((item.facts.path, view))
            continue
        pick = _fit(item, view, min(left, budget), budget // _WHOLE_SHARE, terms)
        if pick is None:
            failures += 1
            omitted.append((item.facts.path, "budget"))
            is_truncated = True
            continue
        left -= pick.size
        is_truncated |= pick.ranges is not None
        chosen.append(pick)
    return Selection(chosen, omitted, is_truncated)


def _fit(item: Ranked, view: View, left: int, share: int, terms: list[tuple[bytes, float]]) -> Chosen | None:
    total = view.lines.size(1, view.lines.count) if view.lines.count else 0
    if total <= min(left, max(share, 1)):
        return Chosen(item, view, None, total)
    room = min(left, share)
    scores = score_blocks(view, terms)
    order = sorted(range(len(scores)), key=lambda i: (-scores[i], i))
    picked: list[int] = []
    size = 0
    for index in order:
        block = view.blocks[index]
        if size + block.size <= room and (scores[index] > 0 or not picked):
            size += block.size
            picked.append(index)
    if not picked:
        return None
    return Chosen(item, view, merge((view.blocks[i].first, view.blocks[i].last) for i in picked), size)


def merge(ranges: Iterable[tuple[int, int]]) -> Ranges:
    """Sorted ranges; neighbours joined."""
    result: list[tuple[int, int]] = []
    for first, last in sorted(ranges):
        if result and first <= result[-1][1] + 1:
            result[-1] = (result[-1][0], max(last, result[-1][1]))
        else:
            result.append((first, last))
    return tuple(result)

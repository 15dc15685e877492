"""Scopes: the definitions that a part of a text lies in, told by indentation, as the signatures to read it by. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

from orchestrator.context.outline import Lines, definitions

#: So far back (bytes) enclosing definitions are looked for, first in the nearest part, and over so many levels.
_REACH = 64 << 10
_NEAREST = 1 << 10
_MOST_LEVELS = 32
#: What closes something, stands alone at its opening, or is a comment or decorator, says nothing of a scope.
_OPENING = rb"\n[ \t]{0,%d}+(?=[^\s)\]}{#@/*-])"
_SOLID = re.compile(rb"\S")


def scopes(lines: Lines, first: int, language: str) -> tuple[int, ...]:
    """The lines (1-based, rising) that open the definitions around line ``first``: its class, its function.

    The work is bounded whatever the text: what is looked at together is a few times ``_REACH``.
    """
    found: list[int] = []
    place = lines.start(first)
    least = max(0, place - _REACH)
    indent = _indent(lines.data, place)
    for _ in range(_MOST_LEVELS):
        opening = _before(lines.data, least, place, indent) if indent else None
        if opening is None:
            break
        indent, place = _indent(lines.data, opening), opening
        number = lines.number(opening)
        if definitions(lines.text(number, number), language):
            found.append(number)
    return tuple(reversed(found))


def _indent(data: bytes, place: int) -> int:
    """How far the first line from ``place`` on that is not blank is indented, in characters; 0 when none is near."""
    solid = _SOLID.search(data, place, place + _NEAREST)
    if solid is None:
        return 0
    return solid.start() - max(place, data.rfind(b"\n", place, solid.start()) + 1)


def _before(data: bytes, least: int, end: int, indent: int) -> int | None:
    """Where the last line before ``end`` begins that is indented by less; None when there is none from ``least`` on."""
    pattern = _pattern(indent)
    reach, begin = _NEAREST, end
    while begin > least:
        begin, reach = max(least, end - reach), reach * 4
        last = None
        for match in pattern.finditer(data, begin, end):
            last = match
        if last is not None:
            return last.start() + 1
    # no line end leads to the first line
    return 0 if begin == 0 < end and pattern.match(b"\n" + data[: min(indent, end)]) else None


@lru_cache(maxsize=64)
def _pattern(indent: int) -> re.Pattern[bytes]:
    return re.compile(_OPENING % (indent - 1))

"""Scopes: the definitions that a part of a text lies in, told by indentation, as the signatures to read it by. Pure."""

from __future__ import annotations

import re
from functools import lru_cache

from orchestrator.context.outline import Lines, definitions

#: So far back (bytes) an enclosing definition is looked for.
_REACH = 64 << 10
#: What closes something, stands alone at its opening, or is a comment or decorator, says nothing of a scope.
_OPENING = rb"\n[ \t]{0,%d}(?=[^\s)\]}{#@/*-])"


def scopes(lines: Lines, first: int, language: str) -> tuple[int, ...]:
    """The lines (1-based, rising) that open the definitions around line ``first``: its class, its function."""
    found: list[int] = []
    place = lines.start(first)
    indent = _indent(lines, first)
    while indent:
        opening = _before(lines.data, place, indent)
        if opening is None:
            break
        number = lines.number(opening)
        indent, place = _indent(lines, number), opening
        if definitions(lines.text(number, number), language):
            found.append(number)
    return tuple(reversed(found))


def _indent(lines: Lines, number: int) -> int:
    """How far the first line from ``number`` on that is not blank is indented, in characters."""
    while number <= lines.count:
        text = lines.text(number, number)
        bare = text.lstrip()
        if bare:
            return len(text) - len(bare)
        number += 1
    return 0


def _before(data: bytes, end: int, indent: int) -> int | None:
    """Where the last line before ``end`` begins that is indented by less; None when there is none."""
    begin = max(0, end - _REACH)
    last = None
    for match in _pattern(indent).finditer(data, begin, end):
        last = match
    if last is not None:
        return last.start() + 1
    # no line end leads to the first line
    return 0 if begin == 0 < end and _pattern(indent).match(b"\n" + data[:indent]) else None


@lru_cache(maxsize=64)
def _pattern(indent: int) -> re.Pattern[bytes]:
    return re.compile(_OPENING % (indent - 1))

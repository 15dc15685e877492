"""Globs as in ``.gitignore``, several at once as one pattern, ignoring case."""

from __future__ import annotations

import re
from collections.abc import Sequence
from functools import lru_cache


@lru_cache(maxsize=512)
def compile_globs(globs: Sequence[str]) -> re.Pattern[str] | None:
    """A pattern whose ``match`` tells whether a relative path is chosen by any of ``globs`` (a tuple); None for none.

    A glob without ``/`` (except at its end) matches at any depth, one with ``/`` from the root; a matched
    directory brings all below it; ``**`` spans directories. See gitignore(5).
    """
    known = [glob for glob in globs if glob.strip("/")]
    if not known:
        return None
    # names at any depth share the way to them, else it is gone once for each
    names = [_named(glob.strip("/"), glob) for glob in known if _is_name(glob)]
    alternatives = [_translate(glob) for glob in known if not _is_name(glob)]
    if names:
        alternatives.append("(?:.*/)?(?:" + "|".join(names) + ")")
    return re.compile("(?:" + "|".join(alternatives) + r")(?:/.*)?\Z", re.IGNORECASE | re.DOTALL)


#: Of the last two stars all ways are tried: they are few, and found faster than the nearest.
_FREE = 2


def _translate(glob: str) -> str:
    """A glob as a pattern that never tries more than some ways to match: globs come with projects, and a pattern that
    tries all of them (``*a*a*a*a``) would stop every thread of the process.

    Of a star, or ``**``, that another one follows the nearest match is as good as any, so of many no other is tried.
    """
    *folders, last = glob.strip("/").split("/")
    groups = [""]
    for name in folders:
        if name != "**":
            groups[-1] += _segment(name) + "/"
        elif groups[-1] or len(groups) == 1:
            groups.append("")
    first, *between = groups
    out = first + "".join(f"(?>(?:.*?/)??{group})" for group in between[:-_FREE])
    out += "".join(f"(?:.*/)?{group}" for group in between[-_FREE:])
    return out + _named(last, glob)


def _is_name(glob: str) -> bool:
    """Whether a glob is of names at any depth."""
    return "/" not in glob.rstrip("/")


def _named(last: str, glob: str) -> str:
    """The pattern of the last name of ``glob``."""
    return (".*" if last == "**" else _segment(last)) + "(?=/)" * glob.endswith("/")


def _segment(text: str) -> str:
    """The pattern of a name without ``/``."""
    runs = [""]
    index = 0
    while index < len(text):
        if text[index] != "*":
            token, length = _piece(text[index:])
            runs[-1] += token
            index += length
            continue
        if runs[-1] or len(runs) == 1:
            runs.append("")
        index += 1
    first, *between = runs
    nearest = "".join(f"(?>[^/]*?{run})" for run in between[:-_FREE])
    return first + nearest + "".join(f"[^/]*{run}" for run in between[-_FREE:])


def _piece(rest: str) -> tuple[str, int]:
    """The pattern of one character of a path at the beginning of ``rest``, and its length there."""
    if rest[0] == "?":
        return "[^/]", 1
    if rest[0] == "[":
        is_negated = rest[1:2] in ("!", "^")
        end = rest.find("]", 2 + is_negated)
        found = f"[{'^/' * is_negated}{re.escape(rest[1 + is_negated : end]).replace(chr(92) + '-', '-')}]"
        if end > 0 and _is_set(found):
            return found, end + 1
    if rest[0] == "\\" and len(rest) > 1:
        return re.escape(rest[1]), 2
    return re.escape(rest[0]), 1


def _is_set(pattern: str) -> bool:
    """Whether this is a set of characters; one that is not (``[z-a]``) stands for itself."""
    try:
        re.compile(pattern)
    except re.error:
        return False
    return True

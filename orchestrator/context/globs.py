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
    alternatives = [_translate(glob) for glob in globs if glob.strip("/")]
    if not alternatives:
        return None
    return re.compile("(?:" + "|".join(alternatives) + r")(?:/.*)?\Z", re.IGNORECASE | re.DOTALL)


def _translate(glob: str) -> str:
    is_directory = glob.endswith("/")
    body = glob.strip("/")
    is_anchored = "/" in glob.rstrip("/")
    out = "" if is_anchored else "(?:.*/)?"
    index = 0
    while index < len(body):
        rest = body[index:]
        if rest.startswith("**/"):
            out += "(?:.*/)?"
            index += 3
        elif rest == "**":
            out += ".*"
            index += 2
        else:
            token, length = _piece(rest)
            out += token
            index += length
    return out + ("(?=/)" if is_directory else "")


def _piece(rest: str) -> tuple[str, int]:
    if rest[0] == "*":
        return "[^/]*", 1
    if rest[0] == "?":
        return "[^/]", 1
    if rest[0] == "[":
        is_negated = rest[1:2] in ("!", "^")
        end = rest.find("]", 2 + is_negated)
        found = f"[{'^' * is_negated}{re.escape(rest[1 + is_negated : end]).replace(chr(92) + '-', '-')}]"
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

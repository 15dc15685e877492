"""Cursors of pages: the ordinal of the last row that was given."""

from __future__ import annotations

from orchestrator.errors import BadRequest

#: Larger numbers do not fit SQLite's integers.
_LARGEST = 2**63 - 1


def parse_page_cursor(text: str) -> int:
    """The ordinal in a page's cursor. Raises BadRequest when it is not one that a page gave."""
    if not (text.isascii() and text.isdigit() and len(text) <= 19) or int(text) > _LARGEST:
        raise BadRequest("cursor must be the next_cursor of an earlier page", details={"field": "cursor"})
    return int(text)

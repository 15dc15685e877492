"""Reading a list page by page until there is enough of it."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from typing import Any

#: The largest page that the API gives.
LARGEST_PAGE = 1000


def collect(fetch: Callable[[int, str | None], Mapping[str, Any]], key: str, limit: int) -> list[Any]:
    """Up to ``limit`` items of the pages that ``fetch(size, cursor)`` gives under ``key``, in their order."""
    items: list[Any] = []
    cursor: str | None = None
    while len(items) < limit:
        page = fetch(min(LARGEST_PAGE, limit - len(items)), cursor)
        items += page.get(key, [])
        cursor = page.get("next_cursor")
        if not cursor or not page.get(key):
            break
    return items[:limit]

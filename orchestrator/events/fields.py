"""Fields of an event by name, as readers see them (the contract's names)."""

from __future__ import annotations

from collections.abc import Callable, Mapping
from operator import attrgetter
from typing import Any

from orchestrator.clock import rfc3339
from orchestrator.models import Event

#: The envelope's fields; everything else is looked up in ``data``.
ENVELOPE: Mapping[str, Callable[[Event], Any]] = {
    "event_id": attrgetter("event_id"),
    "event_type": attrgetter("event_type"),
    "publisher": attrgetter("publisher"),
    "topic": attrgetter("topic"),
    "data": attrgetter("data"),
    "timestamp": lambda event: rfc3339(event.published_at),
    "correlation_id": attrgetter("correlation_id"),
    "cursor": attrgetter("cursor"),
    "ttl_seconds": attrgetter("ttl_seconds"),
    "priority": attrgetter("priority"),
    "references": attrgetter("references"),
    "round": attrgetter("round"),
}

#: Envelope fields that always hold one text or number, so that nothing of ``data`` can stand for them.
NEVER_NULL = frozenset({"event_id", "event_type", "publisher", "topic", "priority", "ttl_seconds"})


def lookup(event: Event, path: tuple[str, ...]) -> Any:
    """The value at ``path``: in the envelope, else (null or absent there) in ``data``; None when in neither."""
    head = path[0]
    if len(path) == 1:
        if head in ENVELOPE:
            value = ENVELOPE[head](event)
            if value is not None:
                return value
        return event.data.get(head)
    if head in ENVELOPE:
        value = _walk(ENVELOPE[head](event), path[1:])
        if value is not None:
            return value
    return _walk(event.data, path)


def _walk(value: Any, path: tuple[str, ...]) -> Any:
    for part in path:
        if isinstance(value, dict):
            value = value.get(part)
        elif isinstance(value, (list, tuple)) and part.isdecimal() and len(part) < 7 and int(part) < len(value):
            value = value[int(part)]
        else:
            return None
    return value

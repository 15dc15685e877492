"""An event as the contract shows it, made once and given to all of its readers."""

from __future__ import annotations

from collections import OrderedDict
from typing import Any

import msgspec

from orchestrator.clock import rfc3339
from orchestrator.models import Event

#: What an entry takes beside its JSON, in bytes: its event with an object of a few fields, and the dictionary's place
#: (measured as growth of the process with small events).
ENTRY_BYTES = 1500


class WireEvent(msgspec.Struct, frozen=True):
    """The contract's form of an event; field order is that of the JSON."""

    event_id: str
    event_type: str
    publisher: str
    topic: str
    data: dict[str, Any]
    timestamp: str
    correlation_id: str | None
    cursor: str
    ttl_seconds: int
    priority: str
    references: tuple[str, ...]
    round: int | None


def wire_event(event: Event) -> WireEvent:
    """``event`` in the contract's form."""
    return WireEvent(
        event.event_id,
        event.event_type,
        event.publisher,
        event.topic,
        event.data,
        rfc3339(event.published_at),
        event.correlation_id,
        str(event.seq),
        event.ttl_seconds,
        event.priority,
        event.references,
        event.round,
    )


class EncodedEvents:
    """JSON of events by identity, bounded in the memory that it takes (bytes); the oldest entries go first.

    An entry holds its event, so that the identity cannot be another object's while the entry lives.
    """

    def __init__(self, max_bytes: int = 16 << 20) -> None:
        self._max_bytes = max_bytes
        self._size = 0
        self._entries: OrderedDict[int, tuple[Event, bytes]] = OrderedDict()
        self._encoder = msgspec.json.Encoder()

    def get(self, event: Event) -> bytes:
        """The event's JSON, made at the first call."""
        entry = self._entries.get(id(event))
        if entry is not None:
            return entry[1]
        raw = self._encoder.encode(wire_event(event))
        self._entries[id(event)] = (event, raw)
        self._size += len(raw) + ENTRY_BYTES
        while self._size > self._max_bytes and len(self._entries) > 1:
            _, (_, gone) = self._entries.popitem(last=False)
            self._size -= len(gone) + ENTRY_BYTES
        return raw

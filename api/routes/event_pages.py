"""How events are written into answers; each event's own JSON is made once, by the bus, and passed through."""

from __future__ import annotations

from typing import Any, Protocol

import msgspec

from orchestrator.clock import rfc3339
from orchestrator.errors import BadRequest
from orchestrator.events.query import EventPage
from orchestrator.identifiers import check_identifier
from orchestrator.models import Event

#: Media type of several CloudEvents (github.com/cloudevents/spec, JSON batch format).
CLOUDEVENTS_BATCH = "application/cloudevents-batch+json"
#: Most types of one query.
MAX_TYPES = 100


class Encoder(Protocol):
    """Whoever keeps the events' JSON."""

    def encoded(self, event: Event) -> bytes:
        """The event as the contract shows it."""


def parse_types(text: str, field: str) -> tuple[str, ...] | None:
    """The event types of ``a``, ``a,b`` or ``*`` (then None). Raises BadRequest."""
    if text == "*":
        return None
    parts = text.split(",")
    if len(parts) > MAX_TYPES:
        raise BadRequest(f"{field} may list {MAX_TYPES} types at most", details={"field": field})
    types = tuple(check_identifier(part, field) for part in parts if part != "*")
    return None if len(types) < len(parts) else types


def render_page(page: EventPage, bus: Encoder, now: str) -> bytes:
    """A page as JSON."""
    tail: dict[str, Any] = {
        "more_available": page.more_available,
        "next_cursor": page.next_cursor,
        "timeout": page.timeout,
        "gap": page.gap,
        "timestamp": now,
    }
    if page.oldest_cursor is not None:
        tail["oldest_cursor"] = page.oldest_cursor
    events = b",".join([bus.encoded(event) for event in page.events])
    return b'{"events":[' + events + b"]," + msgspec.json.encode(tail)[1:]


def render_cloudevents(page: EventPage, project_id: str) -> bytes:
    """A page's events as a CloudEvents batch."""
    return msgspec.json.encode([to_cloudevent(event, project_id) for event in page.events])


def to_cloudevent(event: Event, project_id: str) -> dict[str, Any]:
    """An event as CloudEvents 1.0: the topic is the ``subject``, the cursor the extension ``sequence``."""
    cloud: dict[str, Any] = {
        "specversion": "1.0",
        "id": event.event_id,
        "source": f"/projects/{project_id}/agents/{event.publisher}",
        "type": event.event_type,
        "subject": event.topic,
        "time": rfc3339(event.published_at),
        "datacontenttype": "application/json",
        "sequence": event.cursor,
        "priority": event.priority,
        "ttlseconds": event.ttl_seconds,
        "data": event.data,
    }
    if event.correlation_id is not None:
        cloud["correlationid"] = event.correlation_id
    if event.round is not None:
        cloud["round"] = event.round
    if event.references:
        # Attributes of a CloudEvent are single values.
        cloud["references"] = ",".join(event.references)
    return cloud


def wants_cloudevents(accept: str | None) -> bool:
    """Whether an ``Accept`` header asks for a CloudEvents batch."""
    return accept is not None and CLOUDEVENTS_BATCH in accept.lower()

"""Events as a stream."""

from __future__ import annotations

from collections.abc import AsyncIterator
from contextlib import aclosing

import msgspec

from api.routes.base import Call, Reply, Route
from api.routes.event_pages import parse_types
from api.routes.events import topic_role
from api.routes.sse import EVENT_STREAM, HEARTBEAT, message, stream_reply
from api.schemas.events import (
    StreamQuery,
)
from orchestrator.errors import BadRequest
from orchestrator.events.bus import EventBus
from orchestrator.events.query import EventQuery
from orchestrator.events.stream import EventStream, Gap
from orchestrator.models import Event
from orchestrator.profiles.permissions import SUBSCRIBE_EVENTS

#: Events are sent together up to about so many bytes (one event at least).
PIECE_BYTES = 32 << 10


async def stream(call: Call) -> Reply:
    """``GET /api/events/stream``."""
    query = call.query(StreamQuery)
    project = call.project(query.project_id)
    last_id = call.header(b"last-event-id")
    if last_id is not None and not (last_id.isascii() and last_id.isdigit() and len(last_id) <= 18):
        raise BadRequest("Last-Event-ID must be a cursor", details={"header": "Last-Event-ID"})
    asked = EventQuery(
        types=parse_types(query.type, "type"),
        topic=query.topic,
        filter=query.filter,
        since=last_id or query.since,
        role=topic_role(call),
    )
    events = call.services.bus.stream(project.project_id, asked, subscriber=call.principal.agent_id)
    try:
        # Where it begins is fixed before the client learns that it listens: what it publishes next is in the stream.
        await events.ready()
    except BaseException:
        await events.aclose()
        raise
    return stream_reply(call, _messages(call, events))


async def _messages(call: Call, events: EventStream) -> AsyncIterator[bytes]:
    bus = call.services.bus
    async with aclosing(events):
        async for event in events:
            if event is None:
                yield HEARTBEAT
            elif isinstance(event, Gap):
                told = {"gap": True, "oldest_cursor": event.oldest_cursor}
                yield message(msgspec.json.encode(told), event="gap", id=event.oldest_cursor)
            else:
                yield _together(bus, event, events)


def _together(bus: EventBus, event: Event, events: EventStream) -> bytes:
    """One piece of what was read ahead: a turn through the server for each event would cost far more than it."""
    messages: list[bytes] = []
    size = 0
    following: Event | None = event
    while following is not None:
        messages.append(message(bus.encoded(following), event=following.event_type, id=following.cursor))
        size += len(messages[-1])
        following = events.ahead() if size < PIECE_BYTES else None
    return b"".join(messages)


ROUTES = (
    Route(
        method="GET",
        path="/api/events/stream",
        permission=SUBSCRIBE_EVENTS,
        handler=stream,
        summary="Events as they come (server-sent events; Last-Event-ID resumes)",
        tag="events",
        query=StreamQuery,
        media=EVENT_STREAM,
        codes=("EVT_003",),
        is_waiting=True,
    ),
)

"""Events as a stream, and the deliveries that were given up."""

from __future__ import annotations

from collections.abc import AsyncIterator

import msgspec

from api.routes.base import Call, Reply, Route, json_reply
from api.routes.event_pages import parse_types
from api.routes.events import reader_role
from api.routes.sse import EVENT_STREAM, HEARTBEAT, message, stream_reply
from api.schemas.base import Query
from api.schemas.events import (
    DeadLetterPageAnswer,
    DeadLettersQuery,
    PurgedAnswer,
    RedrivenAnswer,
    StreamQuery,
)
from orchestrator.clock import rfc3339
from orchestrator.errors import BadRequest
from orchestrator.events.query import EventQuery, compile_query
from orchestrator.models import DeadLetter
from orchestrator.profiles.permissions import MANAGE_AGENTS, SUBSCRIBE_EVENTS


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
        since=last_id or query.since or "earliest",
        role=reader_role(call),
    )
    compile_query(asked)  # a bad filter is told as such, not by a stream that breaks off
    events = call.services.bus.stream(project.project_id, asked, subscriber=call.principal.agent_id)
    return stream_reply(call, _messages(call, events))


async def _messages(call: Call, events: AsyncIterator[object]) -> AsyncIterator[bytes]:
    bus = call.services.bus
    async for event in events:
        if event is None:
            yield HEARTBEAT
        else:
            yield message(bus.encoded(event), event=event.event_type, id=event.cursor)  # type: ignore[attr-defined]


async def list_dead_letters(call: Call) -> Reply:
    """``GET /api/events/dead-letters``."""
    query = call.query(DeadLettersQuery)
    project = call.project(query.project_id)
    letters = await call.services.bus.dead_letters(project.project_id, after=query.cursor, limit=query.limit)
    views = [_view(call, letter) for letter in letters]
    next_cursor = letters[-1].id if len(letters) == query.limit else None
    return json_reply({"dead_letters": views, "next_cursor": next_cursor})


def _view(call: Call, letter: DeadLetter) -> dict[str, object]:
    return {
        "id": letter.id,
        "target": letter.target,
        "reason": letter.reason,
        "attempts": letter.attempts,
        "last_error": letter.last_error,
        "timestamp": rfc3339(letter.created_at),
        "event": msgspec.Raw(call.services.bus.encoded(letter.event)),
    }


async def redrive(call: Call) -> Reply:
    """``POST /api/events/dead-letters/{id}/redrive``."""
    project = call.project(call.query(Query).project_id)
    letter_id = call.names["letter_id"]
    await call.services.bus.redrive(project.project_id, letter_id)
    return json_reply(RedrivenAnswer(id=letter_id, redriven=True, timestamp=call.now()), status=202)


async def purge(call: Call) -> Reply:
    """``DELETE /api/events/dead-letters/{id}``."""
    project = call.project(call.query(Query).project_id)
    letter_id = call.names["letter_id"]
    await call.services.bus.purge(project.project_id, letter_id)
    return json_reply(PurgedAnswer(id=letter_id, purged=True, timestamp=call.now()))


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
    Route(
        method="GET",
        path="/api/events/dead-letters",
        permission=SUBSCRIBE_EVENTS,
        handler=list_dead_letters,
        summary="Deliveries that were given up, oldest first",
        tag="events",
        query=DeadLettersQuery,
        answer=DeadLetterPageAnswer,
    ),
    Route(
        method="POST",
        path="/api/events/dead-letters/<letter_id>/redrive",
        permission=MANAGE_AGENTS,
        handler=redrive,
        summary="Deliver a dead letter again",
        tag="events",
        answer=RedrivenAnswer,
        status=202,
        codes=("REQ_003",),
    ),
    Route(
        method="DELETE",
        path="/api/events/dead-letters/<letter_id>",
        permission=MANAGE_AGENTS,
        handler=purge,
        summary="Remove a dead letter",
        tag="events",
        answer=PurgedAnswer,
        codes=("REQ_003",),
    ),
)

"""Deliveries that were given up, and the durable readers of the log."""

from __future__ import annotations

import msgspec

from api.routes.base import Call, Reply, Route, json_reply
from api.routes.event_pages import parse_types
from api.routes.events import topic_role
from api.schemas.base import Query
from api.schemas.events import (
    ConsumerQuery,
    ConsumersAnswer,
    ConsumersRemovedAnswer,
    DeadLetterAnswer,
    DeadLetterPageAnswer,
    DeadLettersQuery,
    FilterQuery,
    PurgedAnswer,
    RedrivenAnswer,
    SeveralAnswer,
)
from orchestrator.clock import rfc3339
from orchestrator.errors import NotFound
from orchestrator.events.query import types_key
from orchestrator.models import DeadLetter
from orchestrator.profiles.permissions import MANAGE_AGENTS, SUBSCRIBE_EVENTS


async def list_dead_letters(call: Call) -> Reply:
    """``GET /api/events/dead-letters``."""
    query = call.query(DeadLettersQuery)
    project = call.project(query.project_id)
    letters = await call.services.bus.dead_letters(project.project_id, after=query.cursor, limit=query.limit)
    views = [_view(call, letter) for letter in letters if _may_see(call, project.project_id, letter)]
    next_cursor = letters[-1].id if len(letters) == query.limit else None
    return json_reply({"dead_letters": views, "next_cursor": next_cursor})


def _may_see(call: Call, project_id: str, letter: DeadLetter) -> bool:
    """A letter holds its event: it is for those who may read the event's topic."""
    return call.services.bus.may_read(project_id, letter.event.topic, topic_role(call))


async def _letter(call: Call, project_id: str) -> DeadLetter:
    """The one that the path names. Raises NotFound, also for one that the caller may not see."""
    letter_id = call.names["letter_id"]
    letter = await call.services.bus.letters.get(project_id, letter_id)
    if not _may_see(call, project_id, letter):
        raise NotFound(f"no dead letter {letter_id}", details={"id": letter_id})
    return letter


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
    letter_id = (await _letter(call, project.project_id)).id
    await call.services.bus.redrive(project.project_id, letter_id)
    return json_reply(RedrivenAnswer(id=letter_id, redriven=True, timestamp=call.now()), status=202)


async def purge(call: Call) -> Reply:
    """``DELETE /api/events/dead-letters/{id}``."""
    project = call.project(call.query(Query).project_id)
    letter_id = (await _letter(call, project.project_id)).id
    await call.services.bus.purge(project.project_id, letter_id)
    return json_reply(PurgedAnswer(id=letter_id, purged=True, timestamp=call.now()))


async def show_dead_letter(call: Call) -> Reply:
    """``GET /api/events/dead-letters/{id}``."""
    project = call.project(call.query(Query).project_id)
    return json_reply(_view(call, await _letter(call, project.project_id)))


async def redrive_matching(call: Call) -> Reply:
    """``POST /api/events/dead-letters/redrive``: those whose event matches a filter, or all."""
    query = call.query(FilterQuery)
    project = call.project(query.project_id)
    bus = call.services.bus
    redriven = await bus.letters.redrive_matching(
        project.project_id, query.filter or None, may_see=lambda letter: _may_see(call, project.project_id, letter)
    )
    bus.on_redrive()
    return json_reply(SeveralAnswer(count=len(redriven), timestamp=call.now()), status=202)


async def purge_matching(call: Call) -> Reply:
    """``DELETE /api/events/dead-letters``: those whose event matches a filter, or all."""
    query = call.query(FilterQuery)
    project = call.project(query.project_id)
    count = await call.services.bus.letters.purge_matching(
        project.project_id, query.filter or None, may_see=lambda letter: _may_see(call, project.project_id, letter)
    )
    return json_reply(SeveralAnswer(count=count, timestamp=call.now()))


async def list_consumers(call: Call) -> Reply:
    """``GET /api/events/consumers``: durable readers with their lag."""
    project = call.project(call.query(Query).project_id)
    consumers = []
    for state in await call.services.bus.consumers(project.project_id):
        consumer = state.consumer
        consumers.append(
            {
                "consumer": consumer.name,
                "event_type": consumer.event_type,
                "acked_cursor": str(consumer.acked),
                "delivered_cursor": str(consumer.delivered),
                "redeliveries": consumer.redeliveries,
                "lag": state.lag,
                "outstanding": state.outstanding,
                "overdue": state.is_overdue,
                "updated_at": rfc3339(consumer.updated_at),
            }
        )
    return json_reply({"consumers": consumers, "timestamp": call.now()})


async def remove_consumer(call: Call) -> Reply:
    """``DELETE /api/events/consumers/{consumer}``: by the agent that made it, or by an operator."""
    query = call.query(ConsumerQuery)
    project = call.project(query.project_id)
    principal = call.principal
    count = await call.services.bus.remove_consumer(
        project.project_id,
        call.names["consumer"],
        types_key(parse_types(query.event_type, "event_type")) if query.event_type else None,
        None if principal.is_admin else principal.agent_id,
    )
    return json_reply(ConsumersRemovedAnswer(consumer=call.names["consumer"], count=count, timestamp=call.now()))


ROUTES = (
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
        is_audited=True,
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
        is_audited=True,
        summary="Remove a dead letter",
        tag="events",
        answer=PurgedAnswer,
        codes=("REQ_003",),
    ),
    Route(
        method="GET",
        path="/api/events/dead-letters/<letter_id>",
        permission=SUBSCRIBE_EVENTS,
        handler=show_dead_letter,
        summary="One dead letter",
        tag="events",
        answer=DeadLetterAnswer,
        codes=("REQ_003",),
    ),
    Route(
        method="POST",
        path="/api/events/dead-letters/redrive",
        permission=MANAGE_AGENTS,
        handler=redrive_matching,
        is_audited=True,
        summary="Deliver all dead letters again, or those whose event matches a filter",
        tag="events",
        query=FilterQuery,
        answer=SeveralAnswer,
        status=202,
        codes=("EVT_003",),
    ),
    Route(
        method="DELETE",
        path="/api/events/dead-letters",
        permission=MANAGE_AGENTS,
        handler=purge_matching,
        is_audited=True,
        summary="Remove all dead letters, or those whose event matches a filter",
        tag="events",
        query=FilterQuery,
        answer=SeveralAnswer,
        codes=("EVT_003",),
    ),
    Route(
        method="GET",
        path="/api/events/consumers",
        permission=SUBSCRIBE_EVENTS,
        handler=list_consumers,
        summary="Durable readers with their lag",
        tag="events",
        answer=ConsumersAnswer,
    ),
    Route(
        method="DELETE",
        path="/api/events/consumers/<consumer>",
        permission=SUBSCRIBE_EVENTS,
        handler=remove_consumer,
        is_audited=True,
        summary="Forget a durable reader; only the agent that made it, or an operator",
        tag="events",
        query=ConsumerQuery,
        answer=ConsumersRemovedAnswer,
        codes=("REQ_003",),
    ),
)

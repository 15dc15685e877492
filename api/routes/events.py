"""Events: publish, wait, replay."""

from __future__ import annotations

from api.asgi_body import CLOUDEVENT_TYPE, media_type
from api.errors import Stopping
from api.routes.base import Call, Reply, Route, json_reply
from api.routes.event_pages import (
    CLOUDEVENTS_BATCH,
    parse_types,
    render_cloudevents,
    render_page,
    wants_cloudevents,
)
from api.routes.waiters import Released
from api.schemas.base import Query
from api.schemas.events import CloudEvent, EventBody, EventPageAnswer, PublishedAnswer, ReplayQuery, WaitQuery
from orchestrator.clock import rfc3339
from orchestrator.errors import BadEvent, BadRequest, NotPermitted
from orchestrator.events.query import EventPage, EventQuery
from orchestrator.models import EventDraft
from orchestrator.profiles.permissions import PUBLISH_EVENTS, SUBSCRIBE_EVENTS


async def publish(call: Call) -> Reply:
    """``POST /api/events/{event_type}``."""
    event_type = call.names["event_type"]
    is_cloudevent = media_type(call.info.headers.get(b"content-type")) == CLOUDEVENT_TYPE
    body = _from_cloudevent(call.body(CloudEvent)) if is_cloudevent else call.body(EventBody)
    if body.event_type is not None and body.event_type != event_type:
        raise BadEvent("event_type of the body must equal that of the path", details={"field": "event_type"})
    project = call.project(body.project_id or call.query(Query).project_id)
    principal = call.principal
    publisher = body.publisher or principal.agent_id
    if publisher != principal.agent_id and not principal.is_admin:
        raise NotPermitted("publisher must be the token's agent; leave it out", details={"field": "publisher"})
    call.services.room.check_data()
    published = await call.services.bus.publish(
        project.project_id,
        EventDraft(
            event_type=event_type,
            publisher=publisher,
            topic=body.topic,
            data=body.data,
            event_id=body.event_id,
            correlation_id=body.correlation_id,
            ttl_seconds=body.ttl_seconds,
            priority=body.priority,
            references=tuple(body.references),
            round=body.round,
        ),
        role=topic_role(call),
    )
    event = published.event
    return json_reply(
        PublishedAnswer(
            event_id=event.event_id,
            published=True,
            subscribers_notified=list(published.subscribers),
            subscriber_count=len(published.subscribers),
            cursor=event.cursor,
            timestamp=rfc3339(event.published_at),
            topic=event.topic,
            ttl_seconds=event.ttl_seconds,
            duplicate=published.is_duplicate,
        ),
        status=202,
    )


def _from_cloudevent(cloud: CloudEvent) -> EventBody:
    topic = cloud.topic or cloud.subject
    if topic is None:
        raise BadRequest("a CloudEvent needs its topic as subject", details={"field": "subject"})
    return EventBody(
        topic=topic,
        data=cloud.data,
        event_type=cloud.type,
        event_id=cloud.id,
        correlation_id=cloud.correlationid,
        ttl_seconds=cloud.ttlseconds,
        priority=cloud.priority,
        references=[part for part in cloud.references.split(",") if part],
        round=cloud.round,
    )


async def wait(call: Call) -> Reply:
    """``GET /api/events/wait/{event_type}``: a long poll."""
    query = call.query(WaitQuery)
    types = parse_types(call.names["event_type"], "event_type")
    project = call.project(query.project_id)
    asked = EventQuery(
        types=types,
        topic=query.topic,
        filter=query.filter,
        since=query.since,
        limit=query.limit,
        timeout_s=query.timeout / 1000,
        consumer=query.consumer,
        ack=query.ack,
        role=topic_role(call),
    )
    try:
        with call.waiters.hold():
            page = await call.services.bus.wait(project.project_id, asked, subscriber=call.principal.agent_id)
    except Released as released:
        raise Stopping("the sidecar is stopping; wait again when it is back", retry_after_s=5) from released
    return _page_reply(call, page, project.project_id)


def topic_role(call: Call) -> str | None:
    """The role that a project's topic rules are applied to; an operator reads every topic."""
    return None if call.principal.is_admin else call.principal.agent_type


async def replay(call: Call) -> Reply:
    """``GET /api/events``."""
    query = call.query(ReplayQuery)
    project = call.project(query.project_id)
    asked = EventQuery(
        types=parse_types(query.type, "type"),
        topic=query.topic,
        filter=query.filter,
        since=query.since,
        limit=query.limit,
        timeout_s=0.0,
        role=topic_role(call),
    )
    return _page_reply(call, await call.services.bus.replay(project.project_id, asked), project.project_id)


def _page_reply(call: Call, page: EventPage, project_id: str) -> Reply:
    if wants_cloudevents(call.header(b"accept")):
        more = "true" if page.more_available else "false"
        headers = [("X-Next-Cursor", page.next_cursor), ("X-More-Available", more)]
        if page.oldest_cursor is not None:
            headers += [("X-Gap", "true"), ("X-Oldest-Cursor", page.oldest_cursor)]
        return Reply(render_cloudevents(page, project_id), content_type=CLOUDEVENTS_BATCH, headers=tuple(headers))
    return Reply(render_page(page, call.services.bus, call.now()))


ROUTES = (
    Route(
        method="POST",
        path="/api/events/<event_type>",
        permission=PUBLISH_EVENTS,
        handler=publish,
        is_hot=True,
        summary="Publish an event; answered when it is durable",
        tag="events",
        body=EventBody,
        answer=PublishedAnswer,
        status=202,
        codes=("EVT_001", "EVT_002", "STR_001"),
        takes_cloudevents=True,
    ),
    Route(
        method="GET",
        path="/api/events/wait/<event_type>",
        permission=SUBSCRIBE_EVENTS,
        handler=wait,
        summary="Retained matches at once, else wait for new ones",
        tag="events",
        query=WaitQuery,
        answer=EventPageAnswer,
        codes=("EVT_001", "EVT_003"),
        free_names=("event_type",),
        is_waiting=True,
    ),
    Route(
        method="GET",
        path="/api/events",
        permission=SUBSCRIBE_EVENTS,
        handler=replay,
        summary="Replay retained events",
        tag="events",
        query=ReplayQuery,
        answer=EventPageAnswer,
        codes=("EVT_001", "EVT_003"),
    ),
)

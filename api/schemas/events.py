"""Forms of the events endpoints."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from api.schemas.base import Form, Identifier, Limit, Query, Timestamp

Ttl = Annotated[int, Meta(ge=1, le=86400, description="seconds")]
Filter = Annotated[str, Meta(max_length=4096, description="field:value terms, ',' and, '|' or, '!' not, '*' glob")]
Text = Annotated[str, Meta(min_length=1, max_length=256)]
References = Annotated[list[Text], Meta(max_length=64)]
Cursor = Annotated[str, Meta(max_length=64, description="a cursor, 'earliest' or 'latest'")]


class EventBody(Form, frozen=True, kw_only=True):
    """An event to publish; ``publisher`` may only be the token's own agent."""

    topic: Identifier
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    event_type: Identifier | None = None
    publisher: Identifier | None = None
    event_id: Text | None = None
    correlation_id: Text | None = None
    ttl_seconds: Ttl = 86400
    priority: Literal["low", "normal", "high"] = "normal"
    references: Annotated[list[Text], Meta(max_length=64)] = msgspec.field(default_factory=list)
    round: Annotated[int, Meta(ge=0, le=2**31)] | None = None
    project_id: Identifier | None = None


class PublishedAnswer(Form, frozen=True, kw_only=True):
    """The durable event; ``duplicate`` says that its ``event_id`` was published before."""

    event_id: str
    published: bool
    subscribers_notified: list[str]
    subscriber_count: int
    cursor: str
    timestamp: Timestamp
    topic: str
    ttl_seconds: int
    duplicate: bool = False


class WaitQuery(Query, frozen=True, kw_only=True):
    """Parameters of a long poll."""

    timeout: Annotated[int, Meta(ge=0, le=300_000, description="milliseconds")] = 30_000
    filter: Filter = ""
    since: Cursor | None = None
    limit: Limit = 100
    consumer: Identifier | None = None
    ack: Cursor | None = None
    topic: Identifier | None = None


class ReplayQuery(Query, frozen=True, kw_only=True):
    """Parameters of a replay."""

    type: Annotated[str, Meta(max_length=2048, description="one type, a list a,b or *")] = "*"
    topic: Identifier | None = None
    filter: Filter = ""
    since: Cursor | None = None
    limit: Limit = 100


class StreamQuery(Query, frozen=True, kw_only=True):
    """Parameters of a stream; ``Last-Event-ID`` takes the place of ``since``."""

    type: Annotated[str, Meta(max_length=2048, description="one type, a list a,b or *")] = "*"
    topic: Identifier | None = None
    filter: Filter = ""
    since: Cursor | None = None


class EventAnswer(Form, frozen=True, kw_only=True):
    """One event."""

    event_id: str
    event_type: str
    publisher: str
    topic: str
    data: dict[str, Any]
    timestamp: Timestamp
    cursor: str
    correlation_id: str | None
    ttl_seconds: int
    priority: str


class EventPageAnswer(Form, frozen=True, kw_only=True):
    """Events in order; ``gap`` says that older ones than asked for are no longer retained."""

    events: list[EventAnswer]
    more_available: bool
    next_cursor: str
    timestamp: Timestamp
    timeout: bool = False
    gap: bool = False
    oldest_cursor: str | None = None


class DeadLettersQuery(Query, frozen=True, kw_only=True):
    """Which dead letters, oldest first."""

    limit: Limit = 100
    cursor: str | None = None


class DeadLetterAnswer(Form, frozen=True, kw_only=True):
    """A delivery that was given up."""

    id: str
    target: str
    reason: str
    attempts: int
    last_error: str
    timestamp: Timestamp
    event: EventAnswer


class DeadLetterPageAnswer(Form, frozen=True, kw_only=True):
    """One page; ``next_cursor`` is null at the end."""

    dead_letters: list[DeadLetterAnswer]
    next_cursor: str | None


class RedrivenAnswer(Form, frozen=True, kw_only=True):
    """A dead letter was handed to delivery again."""

    id: str
    redriven: bool
    timestamp: Timestamp


class PurgedAnswer(Form, frozen=True, kw_only=True):
    """A dead letter was removed."""

    id: str
    purged: bool
    timestamp: Timestamp


class FilterQuery(Query, frozen=True, kw_only=True):
    """Which dead letters, by their event; empty is all."""

    filter: Filter = ""


class SeveralAnswer(Form, frozen=True, kw_only=True):
    """How many dead letters it concerned."""

    count: int
    timestamp: Timestamp


class ConsumersAnswer(Form, frozen=True, kw_only=True):
    """Durable readers; ``lag`` counts the events that they have not acknowledged."""

    consumers: list[dict[str, Any]]
    timestamp: Timestamp


class ConsumerQuery(Query, frozen=True, kw_only=True):
    """Which of a name's readers: that of one list of types (``a,b`` or ``*``); empty is all."""

    event_type: str = ""


class ConsumersRemovedAnswer(Form, frozen=True, kw_only=True):
    """How many readers went: a name has one for each list of types that it asked for."""

    consumer: str
    count: int
    timestamp: Timestamp


class CloudEvent(Form, frozen=True, kw_only=True):
    """CloudEvents 1.0 in JSON (github.com/cloudevents/spec); ``subject`` or the extension ``topic`` is the topic.

    The extensions are those that are produced too; ``references`` are joined by commas.
    """

    specversion: Literal["1.0"]
    id: Text
    source: str
    type: Identifier
    subject: Identifier | None = None
    topic: Identifier | None = None
    time: str | None = None
    datacontenttype: str | None = None
    data: dict[str, Any] = msgspec.field(default_factory=dict)
    correlationid: Text | None = None
    ttlseconds: Ttl = 86400
    priority: Literal["low", "normal", "high"] = "normal"
    references: Annotated[str, Meta(max_length=8192)] = ""
    round: Annotated[int, Meta(ge=0, le=2**31)] | None = None

"""What a reader asks for, checked and compiled, and what it is answered."""

from __future__ import annotations

from collections.abc import Callable

import msgspec

from orchestrator.errors import BadRequest
from orchestrator.events.filters import compile_filter
from orchestrator.events.terms import Predicate
from orchestrator.identifiers import check_identifier
from orchestrator.models import Event

MAX_LIMIT = 1000
MAX_TIMEOUT_S = 300.0
MAX_TYPES = 64


class EventQuery(msgspec.Struct, frozen=True, kw_only=True):
    """Which events, from where, and how long to wait for them.

    Attributes:
        types: event types; None is every type.
        topic: only this topic.
        filter: text of the contract's filter grammar.
        since: ``earliest``, ``latest``, a cursor, or None (the call's own default).
        limit: 1 to 1000 events in an answer.
        timeout_s: 0 to 300 seconds that ``wait`` may take.
        consumer: name of a durable reader (``wait`` only).
        ack: for a durable reader: a cursor, ``none`` or None (see docs/discussion/delivery.md).
        role: agent type that reads, for the project's topic rules; None may read every topic.
    """

    types: tuple[str, ...] | None = None
    topic: str | None = None
    filter: str | None = None
    since: str | None = None
    limit: int = 100
    timeout_s: float = 30.0
    consumer: str | None = None
    ack: str | None = None
    role: str | None = None


class EventPage(msgspec.Struct, frozen=True, kw_only=True):
    """An answer: events in order, and where to go on (past those that the filter left out, too).

    ``gap`` says that events after the asked cursor are not retained any more (or never were of this log);
    ``oldest_cursor`` is then where reading goes on without missing a retained one.
    """

    events: list[Event]
    more_available: bool
    next_cursor: str
    timeout: bool = False
    gap: bool = False
    oldest_cursor: str | None = None


class Matcher:
    """A compiled query: decides whether an event is one of those asked for."""

    __slots__ = ("_predicate", "_readable", "_topic", "types")

    def __init__(
        self,
        types: frozenset[str] | None,
        topic: str | None,
        predicate: Predicate | None,
        readable: Callable[[str], bool] | None = None,
    ) -> None:
        self.types = types
        self._topic = topic
        self._predicate = predicate
        self._readable = readable

    def __call__(self, event: Event) -> bool:
        if self.types is not None and event.event_type not in self.types:
            return False
        if self._topic is not None and event.topic != self._topic:
            return False
        if self._predicate is not None and not self._predicate(event):
            return False
        return self._readable is None or self._readable(event.topic)

    def select(self, events: list[Event]) -> list[Event]:
        """Those that match; as ``__call__`` on each, at a third of the cost."""
        types, topic, readable = self.types, self._topic, self._readable
        if types is not None:
            events = [event for event in events if event.event_type in types]
        if topic is not None:
            events = [event for event in events if event.topic == topic]
        if self._predicate is not None:
            events = self._predicate.select(events)
        return events if readable is None else [event for event in events if readable(event.topic)]


def compile_query(query: EventQuery, readable: Callable[[str], bool] | None = None) -> Matcher:
    """Check every field and compile. Raises BadRequest (``details["field"]``) or BadFilter."""
    if query.types is not None:
        if not 1 <= len(query.types) <= MAX_TYPES:
            raise _bad("event_type", f"1 to {MAX_TYPES} types, or *")
        for event_type in query.types:
            check_identifier(event_type, "event_type")
    if query.topic is not None:
        check_identifier(query.topic, "topic")
    if query.consumer is not None:
        check_identifier(query.consumer, "consumer")
    elif query.ack is not None:
        raise _bad("ack", "a consumer beside it")
    if not 1 <= query.limit <= MAX_LIMIT:
        raise _bad("limit", f"1 to {MAX_LIMIT}")
    if not 0 <= query.timeout_s <= MAX_TIMEOUT_S:
        raise _bad("timeout", f"0 to {int(MAX_TIMEOUT_S * 1000)} milliseconds")
    if query.since not in (None, "earliest", "latest"):
        parse_cursor(query.since, "since")
    if query.ack not in (None, "none"):
        parse_cursor(query.ack, "ack")
    types = None if query.types is None else frozenset(query.types)
    return Matcher(types, query.topic, compile_filter(query.filter), readable)


def parse_cursor(text: str | None, field: str) -> int:
    """The sequence number of a cursor. Raises BadRequest naming ``field``."""
    if text is None or not (text.isascii() and text.isdigit() and len(text) <= 18):
        raise _bad(field, "a cursor that an earlier answer gave" + (", earliest or latest" if field == "since" else ""))
    return int(text)


def types_key(types: tuple[str, ...] | None) -> str:
    """One text for a set of types: ``*``, or their sorted names joined by commas."""
    return "*" if types is None else ",".join(sorted(set(types)))


def _bad(field: str, expected: str) -> BadRequest:
    return BadRequest(f"{field} must be {expected}", details={"field": field, "expected": expected})

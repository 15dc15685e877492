"""Durable readers: positions that survive, acknowledgement, redelivery, lag."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable
from weakref import WeakValueDictionary

import msgspec
import structlog

from orchestrator.clock import Clock
from orchestrator.config import EventSettings
from orchestrator.errors import BadRequest, Conflict, NotFound, NotPermitted, SidecarError
from orchestrator.events.query import EventPage, EventQuery, Matcher, compile_query, parse_cursor, types_key
from orchestrator.events.reader import Slice
from orchestrator.events.subscribers import Subscribers
from orchestrator.events.tail import Tail
from orchestrator.identifiers import is_identifier
from orchestrator.models import Consumer
from orchestrator.storage.base import EventLog

log = structlog.get_logger(__name__)

#: Names of a project's durable readers are bounded: each is checked at every publish.
MAX_CONSUMERS = 1000
#: So many of them one agent may make, so that none can use up its project's; operators are not bounded by it.
MAX_CONSUMERS_OF_AN_AGENT = MAX_CONSUMERS // 2

#: (project, tail, matcher, start, limit, timeout_s, answer at once) -> (found, whether the time was up)
Await = Callable[[str, Tail, Matcher, int, int, float, bool], Awaitable[tuple[Slice, bool]]]


class ConsumerLag(msgspec.Struct, frozen=True, kw_only=True):
    """A durable reader's state: ``lag`` counts retained matches not yet acknowledged.

    ``is_overdue``: an answer was given and not acknowledged for longer than ``ack_wait_s``.
    """

    consumer: Consumer
    lag: int
    outstanding: bool
    is_overdue: bool


class DurableReaders:
    """The durable readers of all projects."""

    def __init__(self, events: EventLog, clock: Clock, settings: EventSettings) -> None:
        self._log = events
        self._clock = clock
        self._settings = settings
        # A lock lives for as long as a call has it or waits for it.
        self._turns: WeakValueDictionary[tuple[str, str, str], asyncio.Lock] = WeakValueDictionary()

    async def load(self, project_id: str, subscribers: Subscribers) -> None:
        """Count the stored readers as subscribers."""
        for consumer in await self._log.list_consumers(project_id):
            self._register(subscribers, consumer)

    async def wait(
        self,
        project_id: str,
        tail: Tail,
        query: EventQuery,
        matcher: Matcher,
        subscribers: Subscribers,
        wait_for: Await,
        caller: str,
    ) -> EventPage:
        """As ``EventBus.wait`` for ``query.consumer``, asked by agent ``caller``. Calls of one reader take turns."""
        key = (project_id, query.consumer or "", types_key(query.types))
        deadline = self._clock.monotonic() + query.timeout_s
        turn = self._turns.setdefault(key, asyncio.Lock())
        try:
            async with asyncio.timeout(query.timeout_s if turn.locked() else None):
                await turn.acquire()
        except TimeoutError:
            consumer = await self._log.get_consumer(*key)
            position = consumer.delivered if consumer else tail.newest
            return EventPage(events=[], more_available=False, next_cursor=str(position), timeout=True)
        try:
            consumer, is_new = await self._begin(key, tail, query, subscribers, caller)
            self._register(subscribers, consumer)
            return await self._answer(key, tail, query, matcher, consumer, is_new, wait_for, deadline)
        finally:
            turn.release()

    async def _begin(
        self, key: tuple[str, str, str], tail: Tail, query: EventQuery, subscribers: Subscribers, caller: str
    ) -> tuple[Consumer, bool]:
        """The reader with ``query.ack`` applied and durable."""
        project_id, name, event_type = key
        stored = await self._log.get_consumer(project_id, name, event_type)
        if stored is None:
            await self._make_room(project_id, subscribers, None if query.role is None else caller)
            return await self._create(key, tail, query, caller), True
        acked = stored.acked
        if query.ack is None:
            acked = stored.delivered
        elif query.ack != "none":
            acknowledged = parse_cursor(query.ack, "ack")
            if acknowledged > stored.delivered:
                raise BadRequest(
                    "ack must be a cursor that this consumer was given", details={"field": "ack"}, slug="bad_ack"
                )
            acked = max(acked, acknowledged)
        consumer = msgspec.structs.replace(
            stored, acked=acked, topic=query.topic, filter=query.filter, updated_at=self._clock.now()
        )
        if query.ack not in (None, "none") and acked != stored.acked:
            # An explicit acknowledgement holds from now on, whatever becomes of this wait.
            await self._log.put_consumer(project_id, consumer)
        return consumer, False

    async def _make_room(self, project_id: str, subscribers: Subscribers, agent_id: str | None) -> None:
        """See to a place for one more reader, of this agent where one is named. Raises Conflict.

        A reader makes room once it was idle for as long as events are kept, since all that it had not read is gone.
        Until then its position stays, for with it goes the word of what was missed (``gap``).
        """
        readers = [consumer for consumer in await self._log.list_consumers(project_id) if is_identifier(consumer.name)]
        own = [consumer for consumer in readers if consumer.created_by == agent_id]
        for group, bound in ((own, MAX_CONSUMERS_OF_AN_AGENT), (readers, MAX_CONSUMERS)):
            if len(group) < bound:
                continue
            longest_idle = min(group, key=lambda consumer: consumer.updated_at)
            if longest_idle.updated_at >= self._clock.now() - self._settings.retention_s:
                raise Conflict(
                    f"a project has at most {MAX_CONSUMERS} durable consumers, of which an agent makes at most "
                    f"{MAX_CONSUMERS_OF_AN_AGENT}; use an existing name, or delete one that is not needed any more"
                )
            await self._drop(project_id, longest_idle, subscribers)
            break

    async def remove(
        self, project_id: str, name: str, event_type: str | None, agent_id: str | None, subscribers: Subscribers
    ) -> int:
        """Forget the readers of a name, or its one of ``event_type`` (as listed); how many.

        With ``agent_id`` only what that agent made. Raises NotFound, NotPermitted (it is another's).
        """
        found = [
            consumer
            for consumer in await self._log.list_consumers(project_id)
            if consumer.name == name and event_type in (None, consumer.event_type)
        ]
        if not found:
            raise NotFound(f"no durable consumer {name!r} in this project", slug="no_such_consumer")
        if agent_id is not None and any(consumer.created_by != agent_id for consumer in found):
            raise NotPermitted(
                "a durable consumer is removed by the agent that made it, or by an operator", details={"consumer": name}
            )
        for consumer in found:
            await self._drop(project_id, consumer, subscribers)
        return len(found)

    async def _drop(self, project_id: str, consumer: Consumer, subscribers: Subscribers) -> None:
        await self._log.drop_consumer(project_id, consumer.name, consumer.event_type)
        subscribers.drop_durable(consumer.name, consumer.event_type)

    async def _create(self, key: tuple[str, str, str], tail: Tail, query: EventQuery, caller: str) -> Consumer:
        project_id, name, event_type = key
        if query.since in (None, "earliest"):
            start = tail.oldest - 1
        elif query.since == "latest":
            start = tail.newest
        else:
            start = min(parse_cursor(query.since, "since"), tail.newest)
        consumer = Consumer(
            name=name,
            event_type=event_type,
            acked=start,
            delivered=start,
            redeliveries=0,
            updated_at=self._clock.now(),
            topic=query.topic,
            filter=query.filter,
            created_by=caller,
        )
        await self._log.put_consumer(project_id, consumer)
        return consumer

    async def _answer(
        self,
        key: tuple[str, str, str],
        tail: Tail,
        query: EventQuery,
        matcher: Matcher,
        consumer: Consumer,
        is_new: bool,
        wait_for: Await,
        deadline: float,
    ) -> EventPage:
        project_id = key[0]
        start = min(consumer.acked, tail.newest)
        has_gap = start + 1 < tail.oldest or consumer.acked > tail.newest
        if is_new and query.ack not in (None, "none") and parse_cursor(query.ack, "ack") != start:
            has_gap = True  # it was given a cursor, but it is not known any more: a backup is older, or it made room
        limit = query.limit
        if query.ack == "none" and consumer.delivered > start:
            # The last answer again, and nothing newer with it.
            found, _ = await wait_for(project_id, tail, matcher, start, limit, 0.0, True)
            repeated = [event for event in found.events if event.seq <= consumer.delivered]
            if repeated:
                has_more = found.has_more or len(repeated) < len(found.events)
                end = repeated[-1].seq if len(repeated) == limit else consumer.delivered
                found = Slice(events=repeated, position=end, has_more=has_more, has_gap=found.has_gap)
                return await self._give(key, tail, consumer, found, False, has_gap)
        left = max(0.0, deadline - self._clock.monotonic())
        found, is_late = await wait_for(project_id, tail, matcher, start, limit, left, has_gap)
        return await self._give(key, tail, consumer, found, is_late, has_gap)

    async def _give(
        self, key: tuple[str, str, str], tail: Tail, consumer: Consumer, found: Slice, is_late: bool, has_gap: bool
    ) -> EventPage:
        """Keep what is answered before it is answered."""
        has_repeats = bool(found.events) and found.events[0].seq <= consumer.delivered
        is_nothing = not found.events
        updated = msgspec.structs.replace(
            consumer,
            acked=found.position if is_nothing else consumer.acked,
            delivered=found.position,
            redeliveries=consumer.redeliveries + has_repeats,
            updated_at=self._clock.now(),
        )
        if (updated.acked, updated.delivered) != (consumer.acked, consumer.delivered) or has_repeats or is_nothing:
            await self._log.put_consumer(key[0], updated)
        gap = has_gap or found.has_gap
        return EventPage(
            events=found.events,
            more_available=found.has_more,
            next_cursor=str(found.position),
            timeout=is_late,
            gap=gap,
            oldest_cursor=str(tail.oldest - 1) if gap else None,
        )

    async def lags(self, project_id: str, tail: Tail) -> list[ConsumerLag]:
        """State of every durable reader of a project."""
        now = self._clock.now()
        lags = []
        for consumer in await self._log.list_consumers(project_id):
            if not is_identifier(consumer.name):
                continue  # the supervisor's own position
            matcher = _matcher(consumer)
            types = None if consumer.event_type == "*" else frozenset(consumer.event_type.split(","))
            waiting = len(matcher.select(tail.after(consumer.acked, types, tail.newest)))
            is_outstanding = consumer.delivered > consumer.acked
            lags.append(
                ConsumerLag(
                    consumer=consumer,
                    lag=waiting,
                    outstanding=is_outstanding,
                    is_overdue=is_outstanding and now - consumer.updated_at > self._settings.ack_wait_s,
                )
            )
        return lags

    async def forget_idle(self, project_id: str, subscribers: Subscribers) -> None:
        """Readers not seen for as long as events are kept are no subscribers any more; their position stays."""
        limit = self._clock.now() - self._settings.retention_s
        for consumer in await self._log.list_consumers(project_id):
            if consumer.updated_at < limit:
                subscribers.drop_durable(consumer.name, consumer.event_type)

    def _register(self, subscribers: Subscribers, consumer: Consumer) -> None:
        if is_identifier(consumer.name) and self._clock.now() - consumer.updated_at < self._settings.retention_s:
            subscribers.set_durable(consumer.name, consumer.event_type, _matcher(consumer))


def _matcher(consumer: Consumer) -> Matcher:
    types = None if consumer.event_type == "*" else tuple(consumer.event_type.split(","))
    try:
        return compile_query(EventQuery(types=types, topic=consumer.topic, filter=consumer.filter))
    except SidecarError as error:
        log.warning("consumer_query_dropped", consumer=consumer.name, error=error.message)
        return compile_query(EventQuery(types=types))

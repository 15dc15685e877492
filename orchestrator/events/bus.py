"""The event bus: durable publishing, long polls, replay and streams over one log."""

from __future__ import annotations

import asyncio
from collections import defaultdict
from collections.abc import Callable, Coroutine, Iterable
from functools import partial
from typing import Any

import structlog

from orchestrator.clock import Clock, SystemClock
from orchestrator.config import EventSettings
from orchestrator.errors import BadEvent, BusUnavailable, NotPermitted, SidecarError
from orchestrator.events.dead_letters import DeadLetters
from orchestrator.events.drafts import check_draft
from orchestrator.events.durable import ConsumerLag, DurableReaders
from orchestrator.events.mirror import LogMirror
from orchestrator.events.published import EventStats, Published
from orchestrator.events.query import EventPage, EventQuery, Matcher, compile_query
from orchestrator.events.reader import LogReader, Slice, page_of, start_of
from orchestrator.events.stream import EventStream
from orchestrator.events.subscribers import Subscriber, Subscribers
from orchestrator.events.subscriptions import Subscription
from orchestrator.events.tail import Tail
from orchestrator.events.tails import Tails
from orchestrator.events.topics import OpenTopics, TopicSource
from orchestrator.events.wire import EncodedEvents
from orchestrator.models import DeadLetter, Event, EventDraft
from orchestrator.storage.base import EventStore

log = structlog.get_logger(__name__)

#: Seconds between two sweeps of what is not retained any more.
SWEEP_S = 60.0


def _nobody(event: Event) -> Iterable[str]:
    return ()


def _nothing() -> None:
    return None


class EventBus:
    """One bus for all projects of a sidecar.

    Args:
        log: where events are kept.
        settings: retention and bounds.
        clock: wall and monotonic time.
        mirror: gets every published event for ``events/event-log.jsonl``.
        rules: where a project's topic rules are; by default every topic is open.
    """

    def __init__(
        self,
        log: EventStore,
        settings: EventSettings,
        *,
        clock: Clock | None = None,
        mirror: LogMirror | None = None,
        rules: TopicSource | None = None,
    ) -> None:
        self.log = log
        self.settings = settings
        self._clock = clock or SystemClock()
        self._mirror = mirror
        self._rules: TopicSource = rules or OpenTopics()
        self._tails = Tails(log, settings)
        self._reader = LogReader(log, self._clock, retention_s=settings.retention_s)
        self._encoded = EncodedEvents()
        self._subscribers: defaultdict[str, Subscribers] = defaultdict(Subscribers)
        self._durable = DurableReaders(log, self._clock, settings)
        self._tasks: set[asyncio.Task[None]] = set()
        self._sweep_wanted = asyncio.Event()
        self._is_open = False
        self._in_flight = 0
        self._published = 0
        self._delivered = 0
        self._deliveries_timed = 0
        self._delivery_s = 0.0
        self.letters = DeadLetters(log, self._clock, keep=settings.dead_letters)
        self.on_redrive: Callable[[], None] = _nothing

    # -- life ----------------------------------------------------------------------------------

    async def start(self) -> None:
        """Begin to take events and to sweep old ones."""
        self._is_open = True
        await self.letters.refresh()
        if self._mirror is not None:
            self._mirror.start()
        self._spawn(self._sweep_forever())

    async def stop(self) -> None:
        """Wake every waiter (they answer as if their time were up), then end; idempotent."""
        self._is_open = False
        for subscribers in self._subscribers.values():
            subscribers.wake_all(self._clock.monotonic())
        for task in self._tasks:
            task.cancel()
        await asyncio.gather(*self._tasks, return_exceptions=True)
        if self._mirror is not None:
            await self._mirror.stop()

    # -- publishing ----------------------------------------------------------------------------

    async def publish(self, project_id: str, draft: EventDraft, *, role: str | None = None) -> Published:
        """Append durably, then wake whom it concerns. A known ``event_id`` gives the first one's event.

        Args:
            role: the publishing agent's type, for the project's topic rules; None may use every topic.

        Raises BadEvent (also for the ``event_id`` of another's event that ``role`` may not read), BadRequest,
        NotPermitted, BusUnavailable, StorageWriteFailed.
        """
        self._check_open()
        draft, size = check_draft(draft, max_data_bytes=self.settings.max_data_bytes, is_trusted=role is None)
        tail = await self._tail(project_id)
        if role is not None and not self._rules.topics(project_id).may_publish(draft.topic, role):
            raise NotPermitted(
                f"{role} may not publish to topic {draft.topic} in this project",
                details={"topic": draft.topic},
            )
        self._in_flight += 1
        try:
            appended = await self.log.append(project_id, draft)
        except asyncio.CancelledError:
            # The event may be stored all the same: then its readers must not wait for the next one.
            self._spawn(self._catch_up(project_id, tail))
            raise
        finally:
            self._in_flight -= 1
        event = appended.event
        if appended.is_duplicate:
            if event.publisher != draft.publisher and not self.may_read(project_id, event.topic, role):
                # Where and when the other was published is none of this role's business.
                raise BadEvent("event_id is taken; choose another", details={"field": "event_id"})
            return Published(event=event, is_duplicate=True, subscribers=())
        names = self._show(project_id, tail.add(event, size), event)
        if names is None:
            names = self._subscribers[project_id].wake(event, self._clock.monotonic())
        return Published(event=event, is_duplicate=False, subscribers=names)

    def _show(self, project_id: str, events: list[Event], asked: Event | None = None) -> tuple[str, ...] | None:
        """Let readers see ``events``; the names of those whom ``asked`` concerns (None: it is not among them)."""
        names = None
        now = self._clock.monotonic()
        subscribers = self._subscribers[project_id]
        for event in events:
            reached = subscribers.wake(event, now)
            if event is asked:
                names = reached
            self._published += 1
            if self._mirror is not None:
                self._mirror.append(project_id, self._encoded.get(event))
        if events and self._tails.wants_trim(project_id, events[-1].seq):
            self._sweep_wanted.set()
        return names

    async def _catch_up(self, project_id: str, tail: Tail) -> None:
        try:
            await self.log.flush()
        except SidecarError as error:
            log.warning("event_catch_up_failed", error=error.message)
            return
        self._show(project_id, await self._tails.catch_up(project_id, tail))

    # -- reading -------------------------------------------------------------------------------

    async def wait(self, project_id: str, query: EventQuery, *, subscriber: str) -> EventPage:
        """Matching events at once, else the first ones within ``query.timeout_s``.

        Without ``since`` the retained ones count. ``subscriber`` is shown to publishers.
        Raises BadRequest, BadFilter, BusUnavailable, StorageReadFailed.
        """
        self._check_open()
        matcher = self._compile(project_id, query)
        tail = await self._tail(project_id)
        listener = Subscriber(query.consumer or subscriber, matcher)
        subscribers = self._subscribers[project_id]
        subscribers.add(listener)
        try:
            if query.consumer is not None:
                read = partial(self._await, listener=listener)
                page = await self._durable.wait(project_id, tail, query, matcher, subscribers, read, subscriber)
            else:
                start, has_gap = start_of(tail, query.since, "earliest")
                found, is_late = await self._await(
                    project_id, tail, matcher, start, query.limit, query.timeout_s, has_gap, listener=listener
                )
                page = page_of(tail, found, timeout=is_late, has_gap=has_gap)
        finally:
            subscribers.remove(listener)
        self._delivered += len(page.events)
        return page

    async def replay(self, project_id: str, query: EventQuery) -> EventPage:
        """Retained matches from ``since`` (default ``earliest``) on, at once. Raises as ``wait``."""
        self._check_open()
        matcher = self._compile(project_id, query)
        tail = await self._tail(project_id)
        start, has_gap = start_of(tail, query.since, "earliest")
        found = await self._reader.read(project_id, tail, matcher, start, query.limit)
        self._delivered += len(found.events)
        return page_of(tail, found, timeout=False, has_gap=has_gap)

    def stream(self, project_id: str, query: EventQuery, *, subscriber: str) -> EventStream:
        """An endless iterator from ``since`` (default ``latest``) on; see ``EventStream``. Raises as ``wait``.

        Await its ``ready()`` before telling the reader that it listens.
        """
        self._check_open()
        matcher = self._compile(project_id, query)
        listener = Subscriber(subscriber, matcher)
        subscribers = self._subscribers[project_id]
        subscribers.add(listener)

        async def start() -> tuple[int, bool]:
            tail = await self._tail(project_id)
            position, has_gap = start_of(tail, query.since, "latest")
            # After a gap a stream goes on by itself, so from the oldest that is there, also where the cursor was of
            # another log.
            return (min(position, tail.oldest - 1) if has_gap else position), has_gap

        async def read(position: int, limit: int) -> Slice:
            found = await self._reader.read(project_id, await self._tail(project_id), matcher, position, limit)
            self._delivered += len(found.events)
            return found

        def oldest() -> int:
            tail = self._tails.get(project_id)
            return tail.oldest if tail is not None else 1

        return EventStream(
            read=read,
            start=start,
            oldest=oldest,
            is_closed=lambda: not self._is_open,
            subscriber=listener,
            heartbeat_s=self.settings.heartbeat_s,
            release=lambda: subscribers.remove(listener),
        )

    def subscribe(
        self, project_id: str, *, names: Callable[[Event], Iterable[str]] = _nobody, query: EventQuery | None = None
    ) -> Subscription:
        """Wakes for a reader inside the supervisor. Raises BadRequest, BadFilter.

        Args:
            names: whom an event reaches through it, shown to publishers; by default nobody.
            query: which events; by default all of the project.
        """
        listener = Subscriber(names, self._compile(project_id, query or EventQuery()))
        subscribers = self._subscribers[project_id]
        subscribers.add(listener)
        return Subscription(listener, lambda: subscribers.remove(listener), lambda: not self._is_open)

    async def consumers(self, project_id: str) -> list[ConsumerLag]:
        """Every durable reader of the project with its lag."""
        return await self._durable.lags(project_id, await self._tail(project_id))

    async def remove_consumer(self, project_id: str, name: str, event_type: str | None, agent_id: str | None) -> int:
        """As ``DurableReaders.remove``."""
        return await self._durable.remove(project_id, name, event_type, agent_id, self._subscribers[project_id])

    # -- dead letters --------------------------------------------------------------------------

    async def dead_letters(self, project_id: str, *, after: str | None = None, limit: int = 100) -> list[DeadLetter]:
        """Oldest first, after the id ``after``."""
        return await self.letters.page(project_id, after=after, limit=limit)

    async def redrive(self, project_id: str, letter_id: str) -> None:
        """Try one again. Raises NotFound."""
        await self.letters.redrive(project_id, letter_id)
        self.on_redrive()

    async def purge(self, project_id: str, letter_id: str) -> None:
        """Throw one away. Raises NotFound."""
        await self.letters.purge(project_id, letter_id)

    def may_read(self, project_id: str, topic: str, role: str | None) -> bool:
        """Whether the project's rules let an agent type read a topic; None may read every one."""
        return role is None or self._rules.topics(project_id).may_read(topic, role)

    def is_open(self, project_id: str, topic: str) -> bool:
        """Whether the project's rules let every agent type read a topic."""
        return self._rules.topics(project_id).is_open(topic)

    def encoded(self, event: Event) -> bytes:
        """The event's JSON in the contract's form, made once for all of its readers."""
        return self._encoded.get(event)

    async def position(self, project_id: str) -> str:
        """The newest cursor of a project."""
        tail = await self._tail(project_id)
        return str(tail.newest)

    def stats(self) -> EventStats:
        """Figures for ``/status`` and ``/health``."""
        timed = self._deliveries_timed
        return EventStats(
            total_published=self._published,
            total_delivered=self._delivered,
            active_subscriptions=sum(len(subscribers) for subscribers in self._subscribers.values()),
            queue_depth=self._in_flight,
            avg_delivery_time_ms=round(self._delivery_s / timed * 1000, 3) if timed else 0.0,
            dead_letter_queue_size=self.letters.count,
        )

    # -- retention -----------------------------------------------------------------------------

    async def sweep(self) -> int:
        """Remove what is not retained any more from memory and log; how many events went."""
        now = self._clock.now()
        dropped = 0
        for project_id in await self.log.event_projects():
            dropped += await self.log.trim(
                project_id, keep=self.settings.keep, older_than=now - self.settings.retention_s, now=now
            )
            bounds = await self.log.bounds(project_id)
            self._tails.trimmed(project_id, bounds)
            await self._durable.forget_idle(project_id, self._subscribers[project_id])
        await self.letters.refresh()
        return dropped

    async def _sweep_forever(self) -> None:
        while True:
            try:
                async with asyncio.timeout(SWEEP_S):
                    await self._sweep_wanted.wait()
            except TimeoutError:
                pass
            self._sweep_wanted.clear()
            try:
                await self.sweep()
            except Exception as error:  # noqa: BLE001 - the edge of a task: a full disk now must not end sweeping
                log.warning("event_sweep_failed", error=str(error))

    # -- inside --------------------------------------------------------------------------------

    async def _await(
        self,
        project_id: str,
        tail: Tail,
        matcher: Matcher,
        start: int,
        limit: int,
        timeout_s: float,
        at_once: bool = False,
        *,
        listener: Subscriber,
    ) -> tuple[Slice, bool]:
        """What is found after ``start``, waiting for it; and whether the time was up."""
        deadline = self._clock.monotonic() + timeout_s
        while True:
            listener.clear()
            found = await self._reader.read(project_id, tail, matcher, start, limit)
            start = found.position
            if found.events or found.has_gap or at_once:
                if listener.woken_at and found.events:
                    self._deliveries_timed += 1
                    self._delivery_s += self._clock.monotonic() - listener.woken_at
                return found, False
            left = deadline - self._clock.monotonic()
            if left <= 0 or not self._is_open or not await listener.woken(left):
                return found, True

    async def _tail(self, project_id: str) -> Tail:
        tail = self._tails.get(project_id)
        if tail is None:
            await self._rules.prepare(project_id)
            tail = await self._tails.load(project_id)
            await self._durable.load(project_id, self._subscribers[project_id])
        return tail

    def _compile(self, project_id: str, query: EventQuery) -> Matcher:
        role = query.role
        if role is None:
            return compile_query(query)
        # Asked anew for each event: rules may be loaded, or changed, while a reader waits.
        return compile_query(query, lambda topic: self._rules.topics(project_id).may_read(topic, role))

    def _check_open(self) -> None:
        if not self._is_open:
            raise BusUnavailable("the event bus is not running", retry_after_s=1.0)

    def _spawn(self, work: Coroutine[Any, Any, None]) -> None:
        task = asyncio.create_task(work)
        self._tasks.add(task)
        task.add_done_callback(self._tasks.discard)

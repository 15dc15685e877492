"""The courier: carries events to webhooks and triggers, again and again until they are taken or given up.

Two tasks: the router reads the log by a durable position and writes what is to be pushed into the outbox, in
one transaction with its position; the carrier works the outbox off. A crash between the two repeats nothing
and loses nothing.
"""

from __future__ import annotations

import asyncio
import random
from collections.abc import Awaitable, Callable, Iterable

import msgspec
import structlog

from orchestrator.clock import Clock, SystemClock
from orchestrator.errors import NotFound, SidecarError
from orchestrator.events.bus import EventBus
from orchestrator.events.query import EventQuery
from orchestrator.events.rules import RELOAD_S, RuleBook
from orchestrator.models import Consumer, Delivery
from orchestrator.storage.base import EventStore

log = structlog.get_logger(__name__)

#: The router's position; no reader can be called so, for "~" is not part of an identifier.
ROUTER = "~router"
#: First and longest pause between two attempts, in seconds.
BACKOFF_S = 1.0
LONGEST_BACKOFF_S = 300.0
_PAGE = 200
_AT_ONCE = 8


class DeliveryFailed(Exception):
    """A push did not succeed.

    Attributes:
        reason: a stable word for the dead letter.
        is_permanent: trying again cannot help.
    """

    def __init__(self, reason: str, message: str, *, is_permanent: bool = False) -> None:
        super().__init__(message)
        self.reason = reason
        self.is_permanent = is_permanent


#: Pushes one delivery; raises DeliveryFailed.
Handler = Callable[[Delivery], Awaitable[None]]


def backoff_s(attempts: int, chance: float) -> float:
    """Pause after ``attempts`` (from 1) failed ones: doubling, of which a random half is taken off.

    The jitter is "equal jitter" (Brooker, "Exponential Backoff And Jitter", AWS Architecture Blog, 2015);
    ``chance`` is uniform in [0, 1).
    """
    longest = min(LONGEST_BACKOFF_S, BACKOFF_S * 2.0 ** min(attempts - 1, 30))
    return float(longest * (0.5 + chance / 2))


class Courier:
    """Pushes events as the projects' rules say.

    Args:
        handlers: by the kind of target, the part before its ``:``.
        chance: gives uniform numbers in [0, 1) for the jitter.
    """

    def __init__(
        self,
        bus: EventBus,
        store: EventStore,
        rules: RuleBook,
        handlers: dict[str, Handler],
        *,
        clock: Clock | None = None,
        chance: Callable[[], float] = random.random,
    ) -> None:
        self._bus = bus
        self._store = store
        self._rules = rules
        self._handlers = dict(handlers)
        self._clock = clock or SystemClock()
        self._chance = chance
        self._routers: dict[str, asyncio.Task[None]] = {}
        self._starts: dict[str, str] = {}
        self._carried: dict[str, asyncio.Task[None]] = {}
        self._due = asyncio.Event()
        self._tasks: list[asyncio.Task[None]] = []
        self.delivered = 0
        self.failed = 0

    async def start(self, project_ids: Iterable[str] = ()) -> None:
        """Begin to route and to carry for these projects; what an earlier process left in the outbox comes first.

        Their rules are read before: a delivery whose rule is not known yet would count as one whose rule is gone.
        """
        self._bus.on_redrive = self._due.set
        known = list(project_ids)
        for project_id in known:
            await self._rules.prepare(project_id)
        self._tasks = [
            asyncio.create_task(self._carry_forever(), name="courier"),
            asyncio.create_task(self._watch_rules(), name="courier-rules"),
        ]
        for project_id in known:
            await self._begin(project_id)

    async def stop(self) -> None:
        """End; a push that is under way is done again at the next start. Idempotent."""
        tasks = [*self._tasks, *self._routers.values(), *self._carried.values()]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        self._tasks, self._routers, self._carried = [], {}, {}

    async def add_project(self, project_id: str) -> None:
        """Route this project's events from now on, if it has rules that push."""
        await self._rules.prepare(project_id)
        await self._begin(project_id)

    # -- routing -------------------------------------------------------------------------------

    async def _begin(self, project_id: str) -> None:
        """Route from here on: what is published after this returns is pushed, whatever becomes of the sidecar."""
        if self._rules.rules(project_id).selections():
            try:
                await self._position(project_id)
            except SidecarError as error:
                log.warning("event_routing_failed", project_id=project_id, error=error.message)
        self._ensure_router(project_id)

    def _ensure_router(self, project_id: str) -> None:
        task = self._routers.get(project_id)
        if self._rules.rules(project_id).selections() and (task is None or task.done()):
            self._routers[project_id] = asyncio.create_task(self._route(project_id), name=f"route {project_id}")

    async def _watch_rules(self) -> None:
        while True:
            try:
                await self._rules.refresh()
                for project_id in self._rules.projects():
                    self._ensure_router(project_id)
            except Exception as error:  # noqa: BLE001 - the edge of a task
                log.error("event_rules_failed", error=str(error))
            await asyncio.sleep(RELOAD_S)

    async def _route(self, project_id: str) -> None:
        subscription = self._bus.subscribe(project_id)
        position = None
        try:
            while True:
                try:
                    if position is None:
                        position = await self._position(project_id)
                    position, has_more = await self._route_page(project_id, position)
                except SidecarError as error:
                    log.warning("event_routing_failed", project_id=project_id, error=error.message)
                    await asyncio.sleep(error.retry_after_s or 1.0)
                    continue
                if not has_more and not await subscription.changed():
                    return
        finally:
            subscription.close()

    async def _position(self, project_id: str) -> str:
        """The durable position, made where there is none. Raises StorageReadFailed, StorageWriteFailed."""
        stored = await self._store.get_consumer(project_id, ROUTER, "*")
        if stored is not None:
            return str(stored.acked)
        # A project that had no rules until now starts with what comes: the past was not asked for. Where that began
        # is kept until it is durable: had only the first page told it, the events of that page could be lost.
        start = self._starts.get(project_id) or await self._bus.position(project_id)
        self._starts[project_id] = start
        await self._store.enqueue_deliveries(project_id, _mark(start, self._clock.now()), [])
        return start

    async def _route_page(self, project_id: str, position: str) -> tuple[str, bool]:
        page = await self._bus.replay(project_id, EventQuery(since=position, limit=_PAGE))
        if page.gap:
            log.error("events_not_routed", project_id=project_id, after=position, oldest=page.oldest_cursor)
        now = self._clock.now()
        selections = self._rules.rules(project_id).selections()
        deliveries = [
            Delivery(
                id=f"{target}:{event.event_id}",
                project_id=project_id,
                event=event,
                target=target,
                created_at=now,
                next_at=now,
            )
            for event in page.events
            for target, matches in selections
            if matches(event)
        ]
        if page.next_cursor != position or deliveries:
            await self._store.enqueue_deliveries(project_id, _mark(page.next_cursor, now), deliveries)
        if deliveries:
            self._due.set()
        return page.next_cursor, page.more_available

    # -- carrying ------------------------------------------------------------------------------

    async def _carry_forever(self) -> None:
        while True:
            self._due.clear()
            pause = 1.0
            try:
                free = _AT_ONCE - len(self._carried)
                # What ends while the outbox is read may be among what is read, and would be pushed again.
                carried = set(self._carried)
                due = await self._store.due_deliveries(self._clock.now(), _AT_ONCE * 2) if free > 0 else []
                fresh = [item for item in due if self._key(item) not in carried | self._carried.keys()]
                for delivery in fresh[: max(0, free)]:
                    self._carry(delivery)
                upcoming = await self._store.next_delivery_at()
                if upcoming is not None:
                    pause = min(pause, max(0.02, upcoming - self._clock.now()))
            except Exception as error:  # noqa: BLE001 - the edge of a task: an unreadable storage may recover
                log.warning("courier_failed", error=str(error))
            try:
                async with asyncio.timeout(pause):
                    await self._due.wait()
            except TimeoutError:
                pass

    def _carry(self, delivery: Delivery) -> None:
        key = self._key(delivery)
        task = asyncio.create_task(self.attempt(delivery), name=f"carry {key}")
        self._carried[key] = task

        def done(finished: asyncio.Task[None]) -> None:
            self._carried.pop(key, None)
            if not finished.cancelled() and finished.exception() is not None:
                log.error("delivery_bookkeeping_failed", delivery=key, error=str(finished.exception()))
            self._due.set()

        task.add_done_callback(done)

    async def attempt(self, delivery: Delivery) -> None:
        """Push once; then drop it, put it off, or give it up."""
        kind = delivery.target.partition(":")[0]
        try:
            handler = self._handlers.get(kind)
            if handler is None:
                raise DeliveryFailed("no_handler", f"nothing delivers to {kind}", is_permanent=True)
            await handler(delivery)
        except DeliveryFailed as failure:
            await self._failed(delivery, failure.reason, str(failure), failure.is_permanent)
        except NotFound as error:
            await self._failed(delivery, "gone", error.message, True)
        except Exception as error:  # noqa: BLE001 - a handler is foreign code; its failure is kept and shown
            await self._failed(delivery, "error", f"{type(error).__name__}: {error}", False)
        else:
            self.delivered += 1
            await self._store.drop_delivery(delivery.project_id, delivery.id)

    async def _failed(self, delivery: Delivery, reason: str, message: str, is_permanent: bool) -> None:
        self.failed += 1
        attempts = delivery.attempts + 1
        updated = msgspec.structs.replace(
            delivery,
            attempts=attempts,
            last_error=message[:500],
            next_at=self._clock.now() + backoff_s(attempts, self._chance()),
        )
        if is_permanent or attempts >= self._bus.settings.max_deliveries:
            await self._bus.letters.give_up(updated, reason, message)
        else:
            await self._store.put_delivery(updated)

    @staticmethod
    def _key(delivery: Delivery) -> str:
        return f"{delivery.project_id}/{delivery.id}"


def _mark(position: str, now: float) -> Consumer:
    """The router's row."""
    seq = int(position)
    return Consumer(name=ROUTER, event_type="*", acked=seq, delivered=seq, redeliveries=0, updated_at=now)

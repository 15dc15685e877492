"""Feeds: events of an agent's topics, written to its stdin while it runs."""

from __future__ import annotations

import asyncio
import random
from collections.abc import Callable, Iterable

import structlog

from agentpool.base import Pool
from agentpool.errors import UnknownAgent
from agentpool.messages import FeedLine, FeedState, InputState
from agentpool.runtimes import get_runtime
from orchestrator.agents.feedlines import event_line, gap_line
from orchestrator.agents.launch import command_of
from orchestrator.agents.registry import AgentRegistry, LiveAgent
from orchestrator.agents.stalls import TARGET, Stall, StallReader
from orchestrator.errors import StorageReadFailed
from orchestrator.events.bus import EventBus
from orchestrator.events.delivery import DeliveryFailed
from orchestrator.events.query import EventPage, EventQuery
from orchestrator.models import Delivery, Event

#: Events read from the log at a time.
PAGE = 200
#: Seconds after which a reader tries again when storage cannot be read.
RETRY_S = 1.0
log = structlog.get_logger(__name__)


class Fed:
    """One attempt of an agent that is fed. ``position`` is the sequence number after which its events begin."""

    __slots__ = ("live", "position", "stall", "task")

    def __init__(self, live: LiveAgent, position: int) -> None:
        self.live = live
        self.position = position
        self.stall: Stall | None = None
        self.task: asyncio.Task[None] | None = None


class EventFeeds:
    """One reader of the log for each project that has agents to feed; each agent is fed from its own start on.

    The reader goes by cursor, so no event is skipped or given twice to the same attempt. An agent whose stdin is
    full leaves it and reads by a cursor of its own (``StallReader``) until it has caught up.

    Args:
        chance: gives uniform numbers in [0, 1) for the jitter between tries.
    """

    def __init__(
        self, bus: EventBus, pool: Pool, registry: AgentRegistry, *, chance: Callable[[], float] = random.random
    ) -> None:
        self._bus = bus
        self._pool = pool
        self._registry = registry
        self._stalls = StallReader(bus, pool, self._concerns, chance=chance)
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._cursors: dict[str, int] = {}
        self._fed: dict[str, dict[str, Fed]] = {}
        self._redriven: dict[tuple[str, str], asyncio.Future[InputState]] = {}

    async def attach(self, live: LiveAgent) -> None:
        """Feed this agent from now on, if it reads and its role subscribes to anything."""
        record, profile = live.record, live.profile
        runtime, _ = command_of(record.request, profile)
        if not profile.subscribes or not get_runtime(runtime).has_stdin:
            return
        project_id = record.project_id
        position = int(await self._bus.position(project_id))
        self._fed.setdefault(project_id, {})[record.agent_id] = Fed(live, position)
        if project_id not in self._readers:
            self._cursors[project_id] = position
            self._readers[project_id] = asyncio.create_task(self._read(project_id), name=f"feed {project_id}")

    def detach(self, live: LiveAgent) -> None:
        """Feed this agent no more: its attempt is over, or it has closed its stdin. Harmless when not attached."""
        agent_id = live.record.agent_id
        fed = self._fed.get(live.record.project_id, {}).pop(agent_id, None)
        if fed is not None and fed.task is not None:
            fed.task.cancel()
        for key, waiting in list(self._redriven.items()):
            if key[0] == agent_id and not waiting.done():
                waiting.set_result(InputState(agent_id=agent_id, message_id=key[1], state="dead", reason="agent_ended"))

    # -- the reader of a project -----------------------------------------------------------------

    async def _read(self, project_id: str) -> None:
        subscription = self._bus.subscribe(project_id, names=lambda event: self._reached(project_id, event))
        try:
            while self._fed.get(project_id):
                cursor = str(self._cursors[project_id])
                try:
                    page = await self._bus.replay(project_id, EventQuery(since=cursor, limit=PAGE))
                except StorageReadFailed as error:
                    log.warning("feed_cannot_read", project_id=project_id, reason=error.message)
                    await asyncio.sleep(RETRY_S)
                    continue
                # No await from here on until the cursor is kept: who joins meanwhile would skip or repeat.
                self._deliver(project_id, page)
                self._cursors[project_id] = int(page.next_cursor)
                if not page.more_available:
                    await subscription.changed()
        finally:
            subscription.close()
            if self._readers.get(project_id) is asyncio.current_task():
                del self._readers[project_id]

    def _deliver(self, project_id: str, page: EventPage) -> None:
        flowing = [fed for fed in self._fed.get(project_id, {}).values() if fed.stall is None]
        if page.gap and page.oldest_cursor is not None:
            log.warning("feed_fell_behind", project_id=project_id, oldest=page.oldest_cursor)
            missing = [fed.live.record.agent_id for fed in flowing if fed.position < int(page.oldest_cursor)]
            told = FeedLine(self._cursors[project_id] + 1, gap_line(page.oldest_cursor))
            self._pool.feed(missing, (told,))
        for event in page.events:
            concerned = self._told(project_id, event, [fed.live for fed in flowing if event.seq > fed.position])
            if concerned:
                self._pool.feed(concerned, (FeedLine(event.seq, event_line(self._bus.encoded(event))),))

    def _reached(self, project_id: str, event: Event) -> list[str]:
        """Agents whose stdin an event goes to, for ``subscribers_notified``."""
        return self._told(project_id, event, [fed.live for fed in self._fed.get(project_id, {}).values()])

    def _concerns(self, event: Event, live: LiveAgent) -> bool:
        return bool(self._told(live.record.project_id, event, (live,)))

    def _told(self, project_id: str, event: Event, agents: Iterable[LiveAgent]) -> list[str]:
        """Who of ``agents`` is told: of its topics that it may read, but not what it said itself or is about itself."""
        topic, silent = event.topic, (event.publisher, event.data.get("agent_id"))
        everyone = self._bus.is_open(project_id, topic)  # asked once: each event is looked at for each agent
        return [
            live.record.agent_id
            for live in agents
            if topic in live.profile.subscribes
            and live.record.agent_id not in silent
            and (everyone or self._bus.may_read(project_id, topic, live.record.agent_type))
        ]

    # -- agents whose stdin is full --------------------------------------------------------------

    def note(self, live: LiveAgent, fact: FeedState) -> None:
        """Take what the pool says of an agent's feed."""
        fed = self._fed.get(live.record.project_id, {}).get(live.record.agent_id)
        if fed is None or fact.attempt != live.record.attempt:
            return
        if fact.state == "closed":
            self.detach(live)
        elif fed.stall is not None:
            fed.stall.note(fact)
        elif fact.state == "full":
            log.info("agent_stdin_full", agent_id=live.record.agent_id, cursor=fact.sequence - 1)
            fed.stall = Stall(live, fact.sequence - 1)
            fed.task = asyncio.create_task(self._work_off(fed, fed.stall), name=f"feed {live.record.agent_id}")

    async def _work_off(self, fed: Fed, stall: Stall) -> None:
        project_id = fed.live.record.project_id
        await self._stalls.catch_up(stall, lambda position: position >= self._cursors[project_id])
        # No await in between: from here on the project's reader goes on for it, behind its position.
        fed.position, fed.stall, fed.task = stall.position, None, None

    # -- redriven dead letters -------------------------------------------------------------------

    def note_input(self, fact: InputState) -> bool:
        """Take what became of a redriven event's line; False when the line was none."""
        waiting = self._redriven.get((fact.agent_id, fact.message_id))
        if waiting is None:
            return False
        if not waiting.done():
            waiting.set_result(fact)
        return True

    async def deliver(self, delivery: Delivery) -> None:
        """Write a redriven event to its agent again. Raises DeliveryFailed."""
        agent_id = delivery.target.removeprefix(f"{TARGET}:")
        live = self._registry.live.get(agent_id)
        key = (agent_id, delivery.event.event_id)
        waiting: asyncio.Future[InputState] = asyncio.get_running_loop().create_future()
        self._redriven[key] = waiting
        try:
            if live is None or live.record.project_id != delivery.project_id:
                raise UnknownAgent(agent_id)
            self._pool.send(agent_id, delivery.event.event_id, event_line(self._bus.encoded(delivery.event)))
            state = await waiting
        except UnknownAgent as error:
            raise DeliveryFailed("agent_ended", str(error), is_permanent=True) from error
        finally:
            self._redriven.pop(key, None)
        if state.state == "dead":
            is_full = state.reason == "stdin_full"
            raise DeliveryFailed(state.reason, f"stdin of agent {agent_id}: {state.reason}", is_permanent=not is_full)

    async def stop(self) -> None:
        """Stop all readers."""
        tasks = list(self._readers.values())
        tasks += [fed.task for agents in self._fed.values() for fed in agents.values() if fed.task is not None]
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

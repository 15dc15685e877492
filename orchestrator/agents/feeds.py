"""Feeds: events of an agent's topics, written to its stdin while it runs."""

from __future__ import annotations

import asyncio

import structlog

from agentpool.base import Pool
from agentpool.errors import UnknownAgent
from agentpool.messages import InputState
from agentpool.runtimes import get_runtime
from orchestrator.agents.launch import command_of
from orchestrator.agents.registry import AgentRegistry, LiveAgent
from orchestrator.errors import StorageReadFailed, StorageWriteFailed
from orchestrator.events.bus import EventBus
from orchestrator.events.delivery import DeliveryFailed
from orchestrator.events.query import EventQuery
from orchestrator.models import Delivery, Event

#: Events read from the log at a time.
PAGE = 200
#: Seconds after which a reader tries again when storage cannot be read.
RETRY_S = 1.0
#: The kind of target under which dead letters name an agent's stdin.
TARGET = "stdin"
EVENT_LINE = b'{"type":"event",'
log = structlog.get_logger(__name__)


class EventFeeds:
    """One reader of the log for each project that has agents to feed; each agent is fed from its own start on.

    A reader goes by cursor, so no event is skipped or given twice to the same attempt.
    """

    def __init__(self, bus: EventBus, pool: Pool, registry: AgentRegistry) -> None:
        self._bus = bus
        self._pool = pool
        self._registry = registry
        self._readers: dict[str, asyncio.Task[None]] = {}
        self._fed: dict[str, set[str]] = {}

    async def attach(self, live: LiveAgent) -> None:
        """Feed this agent from now on, if it reads and its role subscribes to anything."""
        record, profile = live.record, live.profile
        runtime, _ = command_of(record.request, profile)
        if not profile.subscribes or not get_runtime(runtime).has_stdin:
            return
        self._fed.setdefault(record.project_id, set()).add(record.agent_id)
        if record.project_id not in self._readers:
            page = await self._bus.replay(record.project_id, EventQuery(since="latest", limit=1))
            task = asyncio.create_task(
                self._read(record.project_id, page.next_cursor), name=f"feed {record.project_id}"
            )
            self._readers.setdefault(record.project_id, task)
            if self._readers[record.project_id] is not task:
                task.cancel()

    async def _read(self, project_id: str, cursor: str) -> None:
        subscription = self._bus.subscribe(project_id, names=lambda event: self._reached(project_id, event))
        try:
            while self._fed.get(project_id):
                try:
                    page = await self._bus.replay(project_id, EventQuery(since=cursor, limit=PAGE))
                except StorageReadFailed as error:
                    log.warning("feed_cannot_read", project_id=project_id, reason=error.message)
                    await asyncio.sleep(RETRY_S)
                    continue
                if page.gap:
                    log.warning("feed_fell_behind", project_id=project_id, oldest=page.oldest_cursor)
                for event in page.events:
                    self._deliver(project_id, event)
                cursor = page.next_cursor
                if not page.more_available:
                    await subscription.changed()
        finally:
            subscription.close()
            self._readers.pop(project_id, None)

    def _reached(self, project_id: str, event: Event) -> list[str]:
        """Agents whose stdin an event goes to, for ``subscribers_notified``."""
        live = self._registry.live
        fed = (live[agent_id] for agent_id in self._fed.get(project_id, ()) if agent_id in live)
        return [agent.record.agent_id for agent in fed if self._concerns(event, agent)]

    def _concerns(self, event: Event, live: LiveAgent) -> bool:
        """Whether an agent is told: of its topics that it may read, but not what it said itself or is about itself."""
        record = live.record
        if event.publisher == record.agent_id or event.data.get("agent_id") == record.agent_id:
            return False
        if event.topic not in live.profile.subscribes:
            return False
        return self._bus.may_read(record.project_id, event.topic, record.agent_type)

    def _deliver(self, project_id: str, event: Event) -> None:
        for agent_id in tuple(self._fed.get(project_id, ())):
            live = self._registry.live.get(agent_id)
            if live is None:
                self._fed[project_id].discard(agent_id)
                continue
            if not self._concerns(event, live):
                continue
            try:
                self._send(live, event)
            except UnknownAgent:
                self._fed[project_id].discard(agent_id)

    def _send(self, live: LiveAgent, event: Event) -> None:
        live.fed[event.event_id] = event
        try:
            self._pool.send(live.record.agent_id, event.event_id, EVENT_LINE + self._bus.encoded(event)[1:])
        except UnknownAgent:
            del live.fed[event.event_id]
            raise

    async def note(self, live: LiveAgent, fact: InputState) -> bool:
        """Take what became of an event's line; False when the line was none. One that a running agent did not
        take becomes a dead letter, one that its end overtook does not.
        """
        event = live.fed.get(fact.message_id)
        if event is None:
            return False
        if fact.state != "queued":
            del live.fed[fact.message_id]
        if fact.state == "dead" and fact.reason == "stdin_full":
            try:
                await self._bus.letters.add(
                    live.record.project_id,
                    event,
                    target=f"{TARGET}:{live.record.agent_id}",
                    reason=fact.reason,
                    attempts=1,
                    last_error="the agent does not read its stdin",
                )
            except StorageWriteFailed as error:
                log.error("dead_letter_lost", agent_id=live.record.agent_id, reason=error.message)
        return True

    async def deliver(self, delivery: Delivery) -> None:
        """Write a redriven event to its agent again. Raises DeliveryFailed when the agent has ended."""
        agent_id = delivery.target.removeprefix(f"{TARGET}:")
        live = self._registry.live.get(agent_id)
        try:
            if live is None or live.record.project_id != delivery.project_id:
                raise UnknownAgent(agent_id)
            self._send(live, delivery.event)
        except UnknownAgent as error:
            raise DeliveryFailed("agent_ended", str(error), is_permanent=True) from error

    async def stop(self) -> None:
        """Stop all readers."""
        tasks = list(self._readers.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)

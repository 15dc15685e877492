"""Feeds: events of an agent's topics, written to its stdin while it runs."""

from __future__ import annotations

import asyncio

import structlog

from agentpool.base import Pool
from agentpool.errors import UnknownAgent
from agentpool.runtimes import get_runtime
from orchestrator.agents.launch import command_of
from orchestrator.agents.registry import AgentRegistry, LiveAgent
from orchestrator.events.bus import EventBus
from orchestrator.events.query import EventQuery
from orchestrator.models import Event

#: Events read from the log at a time.
PAGE = 200
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
        subscription = self._bus.subscribe(project_id)
        try:
            while self._fed.get(project_id):
                page = await self._bus.replay(project_id, EventQuery(since=cursor, limit=PAGE))
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

    def _deliver(self, project_id: str, event: Event) -> None:
        line: bytes | None = None
        for agent_id in tuple(self._fed.get(project_id, ())):
            live = self._registry.live.get(agent_id)
            if live is None:
                self._fed[project_id].discard(agent_id)
                continue
            if not _concerns(event, live):
                continue
            line = line or b'{"type":"event",' + self._bus.encoded(event)[1:]
            try:
                self._pool.send(agent_id, event.event_id, line)
            except UnknownAgent:
                self._fed[project_id].discard(agent_id)

    async def stop(self) -> None:
        """Stop all readers."""
        tasks = list(self._readers.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _concerns(event: Event, live: LiveAgent) -> bool:
    """Whether an agent is told: of its topics, but not what it said itself or what is about itself."""
    if event.publisher == live.record.agent_id or event.data.get("agent_id") == live.record.agent_id:
        return False
    return event.topic in live.profile.subscribes

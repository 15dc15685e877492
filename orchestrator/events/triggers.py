"""Triggers: on an event, spawn an agent; once per event, however often the sidecar crashes in between."""

from __future__ import annotations

import re
from collections import defaultdict, deque
from collections.abc import Awaitable, Callable
from typing import Any

from orchestrator.clock import Clock
from orchestrator.config import EventSettings
from orchestrator.errors import BadRequest, NotPermitted, UnknownAgentType
from orchestrator.events.delivery import DeliveryFailed
from orchestrator.events.fields import lookup
from orchestrator.events.rules import RuleBook, Trigger
from orchestrator.identifiers import is_identifier
from orchestrator.models import Delivery, Event, SpawnRequest
from orchestrator.storage.base import AgentStore, RunStore

#: Spawns an agent; must keep the agent's record (with ``spawned_by``) before it starts anything.
Spawn = Callable[[SpawnRequest], Awaitable[Any]]

MAX_TASK = 16_000
_FIELD = re.compile(r"\{([A-Za-z0-9_.-]{1,200})\}")
_PREFIX = "trigger:"
#: A chain of parents is followed so far; a longer one counts as too deep.
_LONGEST_CHAIN = 64


class TriggerRunner:
    """Delivers to targets ``trigger:<name>``; a handler of the Courier.

    What was spawned for an event is known by the agent's ``spawned_by`` (``trigger:<name>:<depth>:<event>``),
    which is looked up before spawning: a crash after the spawn repeats nothing.
    """

    def __init__(
        self,
        rules: RuleBook,
        agents: AgentStore,
        runs: RunStore,
        spawn: Spawn,
        settings: EventSettings,
        clock: Clock,
    ) -> None:
        self._rules = rules
        self._agents = agents
        self._runs = runs
        self._spawn = spawn
        self._settings = settings
        self._clock = clock
        self._recent: defaultdict[str, deque[float]] = defaultdict(deque)

    async def deliver(self, delivery: Delivery) -> None:
        """Spawn the agent unless it was spawned already. Raises DeliveryFailed."""
        name = delivery.target.removeprefix(_PREFIX)
        trigger = self._rules.rules(delivery.project_id).triggers.get(name)
        if trigger is None:
            raise DeliveryFailed("no_trigger", f"the project has no trigger {name} any more", is_permanent=True)
        depth = await self._depth(delivery.project_id, delivery.event) + 1
        key = f"{_PREFIX}{name}:{depth}:{delivery.event.event_id}"
        if await self._agents.find_spawned_by(delivery.project_id, key) is not None:
            return
        if depth > self._settings.trigger_depth:
            raise DeliveryFailed(
                "depth", f"agents started one another {depth} times in a row: a cycle?", is_permanent=True
            )
        self._take_turn(delivery.project_id)
        try:
            await self._spawn(spawn_request(trigger, delivery, key))
        except (UnknownAgentType, BadRequest, NotPermitted) as error:
            raise DeliveryFailed("refused", error.message, is_permanent=True) from error

    def _take_turn(self, project_id: str) -> None:
        """Count against the project's rate. Raises DeliveryFailed when it is used up."""
        now = self._clock.monotonic()
        recent = self._recent[project_id]
        while recent and recent[0] <= now - 60.0:
            recent.popleft()
        if len(recent) >= self._settings.triggers_per_minute:
            raise DeliveryFailed("rate", f"more than {self._settings.triggers_per_minute} triggers in a minute")
        recent.append(now)

    async def _depth(self, project_id: str, event: Event) -> int:
        """How many triggers in a row led to ``event``: followed from the agent or run it is of to who began that."""
        subject, run_id = event.data.get("agent_id"), event.data.get("run_id")
        concerned = {event.publisher}
        if isinstance(subject, str):
            concerned.add(subject)
        if isinstance(run_id, str):
            concerned.add(await self._creator(project_id, run_id))
        deepest = 0
        for agent_id in concerned:
            deepest = max(deepest, await self._depth_of_agent(project_id, agent_id))
        return deepest

    async def _depth_of_agent(self, project_id: str, agent_id: str) -> int:
        for _ in range(_LONGEST_CHAIN):
            record = await self._agents.get_agent(project_id, agent_id)
            if record is None:
                return 0
            parent = record.request.spawned_by
            if parent.startswith(_PREFIX):
                depth = parent.split(":", 3)[2]
                return int(depth) if depth.isdecimal() else 0
            run_id = record.request.run_id
            agent_id = await self._creator(project_id, run_id) if run_id else parent
        return self._settings.trigger_depth

    async def _creator(self, project_id: str, run_id: str) -> str:
        """The agent that began a run; empty where that is not known."""
        run = await self._runs.get_run(project_id, run_id)
        return run.created_by if run is not None else ""


def spawn_request(trigger: Trigger, delivery: Delivery, key: str) -> SpawnRequest:
    """The request that a trigger makes of an event."""
    event = delivery.event
    issue = render(trigger.issue, event)
    return SpawnRequest(
        agent_type=trigger.spawn,
        issue_id=issue if is_identifier(issue) else "triggered",
        task=render(trigger.task, event)[:MAX_TASK],
        project_id=delivery.project_id,
        priority=trigger.priority if trigger.priority in ("low", "normal", "high") else "normal",  # type: ignore[arg-type]
        correlation_id=event.correlation_id or event.event_id,
        spawned_by=key,
    )


def render(template: str, event: Event) -> str:
    """``template`` with each ``{path}`` replaced by the event's field (nothing where it is absent), in one pass."""

    def replace(match: re.Match[str]) -> str:
        value = lookup(event, tuple(part for part in match.group(1).split(".") if part) or ("",))
        return "" if value is None else str(value)[:MAX_TASK]

    return _FIELD.sub(replace, template)

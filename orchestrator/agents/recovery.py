"""What a killed sidecar left: every agent it had accepted is accounted for, none runs twice."""

from __future__ import annotations

import asyncio
from pathlib import Path

import structlog

from agentpool.base import Leftover, Pool, Settled
from agentpool.lost import lost_exit
from agentpool.messages import Survivors
from agentpool.states import AgentState, is_final
from orchestrator.agents.registry import AgentRegistry, LiveAgent
from orchestrator.agents.service import AgentService
from orchestrator.errors import SidecarError
from orchestrator.models import AgentRecord, ResultQuery
from orchestrator.profiles.catalogue import Profiles
from orchestrator.profiles.model import Profile
from orchestrator.projects import ProjectService
from orchestrator.storage.base import AgentStore, ResultStore

log = structlog.get_logger(__name__)


class Recovery:
    """Settles the records of an earlier sidecar's agents before new ones are taken."""

    def __init__(
        self,
        *,
        store: AgentStore,
        results: ResultStore,
        pool: Pool,
        registry: AgentRegistry,
        agents: AgentService,
        profiles: Profiles,
        projects: ProjectService,
        agents_dir: Path,
    ) -> None:
        self._store = store
        self._results = results
        self._pool = pool
        self._registry = registry
        self._agents = agents
        self._profiles = profiles
        self._projects = projects
        self._agents_dir = agents_dir

    async def run(self) -> int:
        """Settle all; how many agents it was. What was queued is queued again."""
        unfinished = await self._store.unfinished_agents()
        for record in unfinished:
            if is_final(AgentState(record.status)):
                self._agents.tell_end(record)
        running = [
            record
            for record in unfinished
            if record.status in (AgentState.STARTING, AgentState.RUNNING, AgentState.STOPPING)
        ]
        settled = {found.agent_id: found for found in await self._pool.settle([_leftover(r) for r in running])}
        for record in running:
            await self._end_lost(record, settled.get(record.agent_id))
        for record in sorted(unfinished, key=lambda record: record.created_at):
            if record.status == AgentState.QUEUED:
                self._agents.resume_queued(self._live(record))
        if unfinished:
            log.info("earlier_agents_settled", count=len(unfinished), running=len(running))
        return len(unfinished)

    async def _end_lost(self, record: AgentRecord, found: Settled | None) -> None:
        live = self._live(record)
        if record.status == AgentState.STOPPING:
            live.ask_to_stop("killed", 0.0)  # Somebody wanted it ended: it is not started again.
        self._registry.live[record.agent_id] = live
        page = await self._results.query_results(record.project_id, ResultQuery(agent_id=record.agent_id, limit=1))
        for result in page.results:
            if result.attempt == record.attempt:
                live.result_id, live.result_status = result.id, result.status
        exited = await asyncio.to_thread(
            lost_exit,
            agent_id=record.agent_id,
            attempt=record.attempt,
            record_dir=str(self._agents_dir / record.agent_id),
            output_begins=record.output_begins,
            ended_by="supervisor_lost",
            survivors=Survivors(
                count=found.survivors if found else 0,
                checked_by=("start time and nonce of the earlier sidecar's record",),
                swept=found.ended if found else 0,
            ),
        )
        self._agents.conclude_lost(live, exited)

    def _live(self, record: AgentRecord) -> LiveAgent:
        """The agent with its role of today; where the role or project is gone, with one that may do nothing."""
        try:
            project = self._projects.get(record.project_id)
            profile = self._profiles.get(record.agent_type, project.path)
        except SidecarError as error:
            log.error("earlier_agent_has_no_role", agent_id=record.agent_id, slug=error.slug)
            profile = Profile(
                agent_type=record.agent_type, description="", category="unknown", permission_class="support"
            )
        return LiveAgent(record, profile)


def _leftover(record: AgentRecord) -> Leftover:
    return Leftover(
        agent_id=record.agent_id,
        attempt=record.attempt,
        pid=record.process_id or 0,
        start_ticks=record.start_ticks or 0,
        nonce=record.nonce,
    )

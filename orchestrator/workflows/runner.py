"""Runs: an issue worked on by a team, phase after phase, resumed after a crash."""

from __future__ import annotations

import asyncio
from typing import Any

import msgspec
import structlog

from agentpool.states import AgentState
from orchestrator.agents.base import Publish
from orchestrator.agents.durability import Recorder, Refusal
from orchestrator.agents.service import AgentService
from orchestrator.clock import Clock
from orchestrator.context.engine import ContextEngine
from orchestrator.context.models import ContextRequest
from orchestrator.errors import Conflict, NotFound, PoolSaturated, SidecarError, StorageWriteFailed
from orchestrator.identifiers import check_identifier, new_id
from orchestrator.models import EventDraft, Run, RunStep, SpawnRequest
from orchestrator.profiles.catalogue import Profiles
from orchestrator.projects import ProjectService
from orchestrator.storage.base import RunStore
from orchestrator.workflows.facts import facts_of
from orchestrator.workflows.team import get_workflow, plan
from orchestrator.workspaces import Workspaces

#: What an attempt was ended by when its sidecar stopped or died.
WITH_THE_SIDECAR = ("shutdown", "supervisor_lost")
FINAL = ("completed", "failed", "cancelled")
#: The role whose view of the project decides about the team.
PLANNING_ROLE = "chief-architect"
PUBLISHER = "supervisor"
log = structlog.get_logger(__name__)


class Effort:
    """A run that is being worked on.

    Attributes:
        is_cancelled: set when somebody wants it ended.
        refusal: why what is known of it cannot be recorded now, or None; its agents have their own.
    """

    def __init__(self) -> None:
        self.is_cancelled = asyncio.Event()
        self.refusal: Refusal | None = None


class RunService:
    """Starts, shows, cancels and resumes runs."""

    def __init__(
        self,
        *,
        store: RunStore,
        agents: AgentService,
        context: ContextEngine,
        profiles: Profiles,
        projects: ProjectService,
        workspaces: Workspaces,
        publish: Publish,
        recorder: Recorder,
        clock: Clock,
    ) -> None:
        self._store = store
        self._agents = agents
        self._context = context
        self._profiles = profiles
        self._projects = projects
        self._workspaces = workspaces
        self._publish = publish
        self._recorder = recorder
        self._clock = clock
        self._running: dict[str, asyncio.Task[None]] = {}
        self._runs: dict[str, Run] = {}
        self._efforts: dict[str, Effort] = {}

    async def create(
        self,
        project_id: str,
        *,
        issue_id: str,
        task: str,
        workflow: str = "team",
        runtime: str | None = None,
        created_by: str = "",
    ) -> Run:
        """Plan a run, make it durable and begin it. Raises BadRequest, NotFound."""
        check_identifier(issue_id, "issue_id")
        chosen = get_workflow(workflow)
        project = self._projects.get(project_id)
        built = await self._context.build(
            project, ContextRequest(issue_id=issue_id, agent_type=PLANNING_ROLE, task=task)
        )
        known = {profile.agent_type for profile in self._profiles.list(project.path)}
        steps = plan(chosen, facts_of(built.document), task, known)
        now = self._clock.now()
        run = Run(
            run_id=new_id("run"),
            project_id=project_id,
            issue_id=issue_id,
            task=task,
            workflow=workflow,
            status="running",
            steps=steps,
            created_at=now,
            updated_at=now,
            runtime=runtime,
            created_by=created_by,
        )
        for step in steps:
            await self._agents.check(_request(run, step))
        await self._store.put_run(run)
        self._begin(run)
        return run

    def _begin(self, run: Run) -> None:
        self._runs[run.run_id] = run
        self._efforts[run.run_id] = Effort()
        task = asyncio.create_task(self._execute(run.run_id), name=f"run {run.run_id}")
        self._running[run.run_id] = task
        task.add_done_callback(lambda done: self._ended(run.run_id, done))

    def _ended(self, run_id: str, task: asyncio.Task[None]) -> None:
        self._running.pop(run_id, None)
        self._efforts.pop(run_id, None)
        if not task.cancelled() and task.exception() is not None:
            log.error("run_task_failed", run_id=run_id, exc_info=task.exception())

    async def resume(self) -> int:
        """Go on with what an earlier sidecar had begun; how many runs."""
        unfinished = await self._store.unfinished_runs()
        for run in unfinished:
            self._begin(run)
        return len(unfinished)

    async def get(self, project_id: str, run_id: str) -> Run:
        """The run. Raises NotFound."""
        run = self._runs.get(run_id) or await self._store.get_run(project_id, check_identifier(run_id, "run_id"))
        if run is None or run.project_id != project_id:
            raise NotFound(f"no run {run_id!r} in this project", slug="no_such_run")
        return run

    async def list(self, project_id: str, *, limit: int = 100) -> list[Run]:
        """Newest first."""
        return await self._store.list_runs(project_id, limit=limit)

    async def cancel(self, project_id: str, run_id: str) -> Run:
        """End a run's agents, then the run; returns when nothing of it is left.

        Raises NotFound, Conflict, and StorageWriteFailed when its end cannot be recorded now; it will be.
        """
        run = await self.get(project_id, run_id)
        if run.status in FINAL:
            raise Conflict(f"run {run_id} is already {run.status}")
        effort = self._efforts.get(run_id)
        if effort is not None:
            effort.is_cancelled.set()
        ends = await asyncio.gather(*(self._terminate(run, step) for step in run.steps if step.status == "running"))
        task = self._running.get(run_id)
        if task is not None and effort is not None:
            if (refused := next(filter(None, ends), None)) is not None:
                raise refused
            await self._recorder.patiently(asyncio.ensure_future(asyncio.wait({task})), effort)
        return await self.get(project_id, run_id)

    async def _terminate(self, run: Run, step: RunStep) -> StorageWriteFailed | None:
        """End a step's agent; what refused to record that, if anything."""
        try:
            await self._agents.terminate(await self._agents.get(run.project_id, step.agent_id or ""))
        except StorageWriteFailed as refused:
            return refused
        except SidecarError as error:
            log.debug("step_not_ended", run_id=run.run_id, step=step.step, slug=error.slug)
        return None

    async def _execute(self, run_id: str) -> None:
        run = self._runs[run_id]
        if all(step.status == "pending" for step in run.steps):
            await self._tell(run, "run_started", "started", {"workflow": run.workflow, "steps": len(run.steps)})
        for phase in sorted({step.phase for step in run.steps}):
            if self._is_cancelled(run_id):
                break
            names = [step.step for step in run.steps if step.phase == phase]
            await asyncio.gather(*(self._work(run_id, name) for name in names))
            done = [step for step in self._runs[run_id].steps if step.phase == phase]
            await self._tell(
                run,
                "phase_complete",
                f"phase-{phase}",
                {"phase": phase, "steps": {step.agent_type: step.status for step in done}},
            )
        await self._finish(run_id)

    async def _work(self, run_id: str, name: str) -> None:
        run = self._runs[run_id]
        step = _step(run, name)
        if step.status in (*FINAL, "killed", "timed_out") or self._is_cancelled(run_id):
            return
        try:
            agent_id = step.agent_id or new_id("agt")
            if await self._agents.find(run.project_id, agent_id) is None:
                agent_id = await self._spawn(run_id, name, agent_id)
            record = await self._agents.wait_ended(run.project_id, agent_id)
            if record.evidence.get("ended_by") in WITH_THE_SIDECAR and not self._is_cancelled(run_id):
                # It ended with an earlier sidecar, not by itself: the step gets a new one.
                agent_id = await self._spawn(run_id, name, new_id("agt"))
                record = await self._agents.wait_ended(run.project_id, agent_id)
            status = record.status
        except SidecarError as error:
            log.warning("step_failed", run_id=run_id, step=name, code=error.code, slug=error.slug)
            status = (AgentState.KILLED if self._is_cancelled(run_id) else AgentState.FAILED).value
        await self._change(run_id, name, status=status)

    async def _spawn(self, run_id: str, name: str, agent_id: str) -> str:
        """Start a step's agent, however long pool or disk are full; its id. Raises what refused it in a cancelled run.

        The id is durable before the agent is, so that a crash in between cannot start a second one.
        """
        while True:
            step = await self._change(run_id, name, agent_id=agent_id, status="running")
            run = self._runs[run_id]
            try:
                request = msgspec.structs.replace(_request(run, step), workspace=await self._workspace(step, run))
                await self._agents.spawn(request, agent_id=agent_id, is_start_awaited=False)
            except (PoolSaturated, StorageWriteFailed) as refused:
                await self._pause(run_id, refused.retry_after_s or 1.0)
                if self._is_cancelled(run_id):
                    raise
                # One that was accepted and could not be recorded on is ended: the next try is another agent.
                if await self._agents.find(run.project_id, agent_id) is not None:
                    agent_id = new_id("agt")
            else:
                if self._is_cancelled(run_id):  # who cancelled could not end an agent that was not there yet
                    await self._agents.terminate(await self._agents.get(run.project_id, agent_id))
                return agent_id

    async def _workspace(self, step: RunStep, run: Run) -> str:
        """Where a step's agent works: in a worktree of its own where its role says so and the project lets us."""
        project = self._projects.get(run.project_id)
        kind = self._profiles.get(step.agent_type, project.path).workspace_in_runs
        possible = await asyncio.to_thread(self._workspaces.possible, kind, project)
        if possible != kind:
            log.info("step_without_worktree", run_id=run.run_id, step=step.step, project_id=run.project_id)
        return possible

    async def _pause(self, run_id: str, seconds: float) -> None:
        """Wait, but no longer than until the run is cancelled."""
        try:
            async with asyncio.timeout(seconds):
                await self._efforts[run_id].is_cancelled.wait()
        except TimeoutError:
            pass

    def _is_cancelled(self, run_id: str) -> bool:
        return self._efforts[run_id].is_cancelled.is_set()

    async def _change(self, run_id: str, name: str, **changes: Any) -> RunStep:
        run = self._runs[run_id]
        step = msgspec.structs.replace(_step(run, name), **changes)
        steps = [step if old.step == name else old for old in run.steps]
        run = self._runs[run_id] = msgspec.structs.replace(run, steps=steps, updated_at=self._clock.now())
        await self._recorder.until_stored(lambda: self._store.put_run(self._runs[run_id]), self._efforts[run_id])
        return step

    async def _finish(self, run_id: str) -> None:
        run = self._runs[run_id]
        failed = [step.agent_type for step in run.steps if step.status != AgentState.COMPLETED]
        if self._is_cancelled(run_id):
            status, error = "cancelled", None
        elif failed:
            status, error = "failed", f"did not complete: {', '.join(failed)}"
        else:
            status, error = "completed", None
        now = self._clock.now()
        run = msgspec.structs.replace(run, status=status, error=error, updated_at=now, ended_at=now)
        await self._recorder.until_stored(lambda: self._store.put_run(run), self._efforts[run_id])
        self._runs[run_id] = run
        await self._tell(run, "run_completed", "completed", {"status": status})
        del self._runs[run_id]

    async def _tell(self, run: Run, event_type: str, key: str, data: dict[str, Any]) -> None:
        draft = EventDraft(
            event_type=event_type,
            publisher=PUBLISHER,
            topic="coordination",
            event_id=f"{run.run_id}.{key}",
            correlation_id=run.run_id,
            data={"run_id": run.run_id, "issue_id": run.issue_id, **data},
        )
        await self._recorder.until_stored(lambda: self._publish(run.project_id, draft), self._efforts[run.run_id])

    async def stop(self) -> None:
        """Let go of all runs; they stay unfinished in storage and are resumed by the next sidecar."""
        tasks = list(self._running.values())
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)


def _request(run: Run, step: RunStep) -> SpawnRequest:
    return SpawnRequest(
        agent_type=step.agent_type,
        issue_id=run.issue_id,
        task=step.task,
        project_id=run.project_id,
        runtime=run.runtime,
        correlation_id=run.run_id,
        spawned_by=run.run_id,
        run_id=run.run_id,
    )


def _step(run: Run, name: str) -> RunStep:
    return next(step for step in run.steps if step.step == name)

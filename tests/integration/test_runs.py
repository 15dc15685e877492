"""Runs: a team works an issue in a real supervisor."""

from __future__ import annotations

import asyncio
import os
import signal
import time
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentpool.admission import DEFAULT_RETRY_S
from orchestrator.agents import durability
from orchestrator.clock import SystemClock
from orchestrator.config import StorageSettings
from orchestrator.errors import BadRequest, Conflict, NotFound, PoolSaturated, StorageWriteFailed
from orchestrator.models import ResultQuery, Run
from orchestrator.retention import Sweeper
from orchestrator.supervisor import Supervisor
from orchestrator.workspaces import Workspaces
from tests.support.repo import git, repository, write_files
from tests.support.supervisors import PATIENCE_S, PROJECT, events, running_supervisor
from tests.support.waiting import until_async

ROLE = """---
name: {name}
description: {name} of this test
category: support
permission_class: coding
runtime: jsonl
workspace: worktree
command: [/bin/sh, -c, '{script}']
hands_over_to: [test-engineer]
---
Do what the test says.
"""

#: A script that gives a result with one decision (quotes as a shell in single-quoted YAML needs them).
DECIDE = r'echo "{\"type\":\"result\",\"result\":{\"status\":\"success\",\"decisions\":[\"use tea\"]}}"'


def write_roles(tmp_path: Path, **scripts: str) -> None:
    """Lay roles of this test over the shipped ones; a script is what the role's agents run."""
    profiles = tmp_path / "project" / ".orchestrator" / "profiles"
    profiles.mkdir(parents=True)
    for name, script in scripts.items():
        role = name.replace("_", "-")
        (profiles / f"{role}.md").write_text(ROLE.format(name=role, script=script))


async def finished(supervisor: Supervisor, run_id: str) -> Run:
    """The run once it is over and that has been told."""
    async with asyncio.timeout(PATIENCE_S):
        while (run := await supervisor.runs.get(PROJECT, run_id)).status == "running":
            await asyncio.sleep(0.02)
        while (await events(supervisor))[-1].event_type != "run_completed":
            await asyncio.sleep(0.02)
    return run


async def test_phases_follow_one_another_and_read_what_came_before(tmp_path: Path) -> None:
    """The reviewer started beside the architect and saw nothing of its findings."""
    write_roles(
        tmp_path,
        chief_architect=DECIDE,
        code_reviewer='grep -c "use tea" "$AGENT_CONTEXT_FILE"',
    )
    async with running_supervisor(tmp_path) as supervisor:
        run = await supervisor.runs.create(PROJECT, issue_id="issue-1", task="look", workflow="quick", created_by="me")
        done = await finished(supervisor, run.run_id)
        assert (done.status, [step.status for step in done.steps]) == ("completed", ["completed", "completed"])
        stored = await supervisor.storage.get_run(PROJECT, run.run_id)
        assert stored is not None
        assert stored.created_by == "me"
        told = [event.event_type for event in await events(supervisor)]
        assert told[0] == "run_started"
        assert told[-1] == "run_completed"
        assert told.count("phase_complete") == 2
        assert told.index("phase_complete") > told.index("agent_completed")
        results = (await supervisor.results.query(PROJECT, ResultQuery(issue_id="issue-1"))).results
        assert results[0].result["output"].strip() == "1"


async def test_roles_that_write_get_worktrees(tmp_path: Path) -> None:
    """Specialists of one phase wrote into the project itself, side by side, whatever their profiles said."""
    project = repository(tmp_path / "project", {"main.py": "begun = 1\n"})
    # A change that is not committed: who only reads is to see it.
    write_files(project, {"main.py": "begun = 2\n"})
    write_roles(tmp_path, python_specialist="echo mine > main.py", security_auditor="echo mine > main.py")
    async with running_supervisor(tmp_path) as supervisor:
        run = await supervisor.runs.create(PROJECT, issue_id="issue-1", task="write", workflow="review")
        done = await finished(supervisor, run.run_id)
        records = [await supervisor.agents.get(PROJECT, step.agent_id or "") for step in done.steps]
        assert {record.agent_type: (record.status, record.request.workspace) for record in records} == {
            "python-specialist": ("completed", "worktree"),
            "security-auditor": ("completed", "worktree"),
            "code-reviewer": ("completed", "shared"),
        }
        places = {record.workspace_path: Path(record.workspace_path or "", "main.py").read_text() for record in records}
        assert sorted(places.values()) == ["begun = 2\n", "mine\n", "mine\n"]


async def test_worktrees_go_after_the_files_of_their_agents(tmp_path: Path) -> None:
    """Nothing ever removed the worktrees of runs, nor their branches in the user's repository."""
    project = repository(tmp_path / "project", {"main.py": "begun = 1\n"})
    write_roles(tmp_path, chief_architect="true", code_reviewer="echo mine > main.py")
    async with running_supervisor(tmp_path) as supervisor:
        run = await supervisor.runs.create(PROJECT, issue_id="issue-1", task="write", workflow="quick")
        done = await finished(supervisor, run.run_id)

        async def sweep(storage: StorageSettings) -> list[str]:
            sweeper = Sweeper(
                msgspec.structs.replace(supervisor.settings, storage=storage),
                supervisor.storage,
                supervisor.results,
                tmp_path / "storage" / "agents",
                Workspaces(tmp_path / "storage" / "agents", tmp_path / "storage" / "worktrees"),
                is_live=supervisor.registry.live.__contains__,
                clock=SystemClock(),
            )
            await sweeper.sweep()
            return sorted(path.name for path in (tmp_path / "storage" / "worktrees").iterdir())

        idle, writer = (step.agent_id or "" for step in done.steps)
        assert await sweep(StorageSettings()) == sorted([idle, writer])
        # As old as can be: what these two agents left is past its time.
        assert await sweep(StorageSettings(agents_retention_s=-60.0)) == [writer]
        assert await asyncio.to_thread(git, project, "branch", "--list", f"*{idle}") == ""


async def test_a_failing_step_fails_the_run_but_not_its_report(tmp_path: Path) -> None:
    """One failing agent kept the reviewer from telling what the others had found."""
    write_roles(tmp_path, chief_architect="exit 3", code_reviewer="echo fine")
    async with running_supervisor(tmp_path) as supervisor:
        run = await supervisor.runs.create(PROJECT, issue_id="issue-1", task="look", workflow="quick")
        done = await finished(supervisor, run.run_id)
        assert (done.status, [step.status for step in done.steps]) == ("failed", ["failed", "completed"])
        assert "chief-architect" in (done.error or "")


async def test_a_step_is_started_again_when_its_worker_died_over_the_start(tmp_path: Path) -> None:
    """A worker that died while it started a step's agent failed the step, whatever the role's restart policy said."""
    write_roles(tmp_path, chief_architect="echo fine", code_reviewer="echo fine")
    role = tmp_path / "project" / ".orchestrator" / "profiles" / "chief-architect.md"
    role.write_text(role.read_text().replace("runtime:", "restart: on-failure\nruntime:"))
    async with running_supervisor(tmp_path) as supervisor:
        (worker,) = supervisor.pool.worker_pids()
        os.kill(worker, signal.SIGSTOP)
        run = await supervisor.runs.create(PROJECT, issue_id="issue-1", task="look", workflow="quick")
        lives = supervisor.registry.live
        await until_async(lambda: any(live.has_process for live in lives.values()), what="the worker is to start it")
        os.kill(worker, signal.SIGKILL)
        done = await finished(supervisor, run.run_id)
        assert (done.status, [step.status for step in done.steps]) == ("completed", ["completed", "completed"])
        assert "agent_restarted" in [event.event_type for event in await events(supervisor)]


async def test_cancel_leaves_nothing(tmp_path: Path) -> None:
    """A cancelled run started its next phase, or left its agents running."""
    write_roles(tmp_path, chief_architect="sleep 600", code_reviewer="echo never")
    async with running_supervisor(tmp_path) as supervisor:
        run = await supervisor.runs.create(PROJECT, issue_id="issue-1", task="look", workflow="quick")
        async with asyncio.timeout(PATIENCE_S):
            while supervisor.registry.counts()["running"] == 0:
                await asyncio.sleep(0.02)
            cancelled = await supervisor.runs.cancel(PROJECT, run.run_id)
        assert cancelled.status == "cancelled"
        assert [step.status for step in cancelled.steps] == ["killed", "pending"]
        assert supervisor.pool.stats().running == 0
        with pytest.raises(Conflict):
            await supervisor.runs.cancel(PROJECT, run.run_id)


async def test_cancel_does_not_wait_for_the_pool(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was cancelled while the pool was full tried again later, and its agent ran to its own end."""
    write_roles(tmp_path, chief_architect="sleep 600", code_reviewer="echo never")
    async with running_supervisor(tmp_path) as supervisor:
        spawn, refused = supervisor.agents.spawn, asyncio.Event()

        async def spawn_or_tell(*args: Any, **options: Any) -> Any:
            try:
                return await spawn(*args, **options)
            except PoolSaturated:
                refused.set()
                raise

        monkeypatch.setattr(supervisor.agents, "spawn", spawn_or_tell)
        supervisor.pool.drain()
        run = await supervisor.runs.create(PROJECT, issue_id="issue-1", task="look", workflow="quick")
        async with asyncio.timeout(PATIENCE_S):
            await refused.wait()
        async with asyncio.timeout(DEFAULT_RETRY_S / 2):
            cancelled = await supervisor.runs.cancel(PROJECT, run.run_id)
        supervisor.pool.resume()
        assert cancelled.status == "cancelled"
        assert [step.status for step in cancelled.steps] == ["killed", "pending"]
        assert supervisor.registry.live == {}


async def test_cancel_is_not_told_of_a_record_that_waits_elsewhere(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An agent elsewhere whose end found no room gave a run's cancelling a 503 although the run went on and ended."""
    for name, seconds in (("PATIENCE_S", 0.1), ("LOOK_S", 0.02), ("FIRST_WAIT_S", 0.02), ("LONGEST_WAIT_S", 0.02)):
        monkeypatch.setattr(durability, name, seconds)
    write_roles(tmp_path, chief_architect="sleep 600", code_reviewer="echo never")
    async with running_supervisor(tmp_path) as supervisor:
        recorder, put_run, go_on = supervisor.runs._recorder, supervisor.runs._store.put_run, asyncio.Event()
        run = await supervisor.runs.create(PROJECT, issue_id="issue-1", task="look", workflow="quick")
        await until_async(lambda: supervisor.registry.counts()["running"] == 1, what="the run works")

        async def refuse() -> None:
            raise StorageWriteFailed("no room for that one")

        async def put_slowly(changed: Run) -> None:
            await go_on.wait()
            await put_run(changed)

        monkeypatch.setattr(supervisor.runs._store, "put_run", put_slowly)
        elsewhere = asyncio.create_task(recorder.until_stored(refuse))
        cancelling = asyncio.create_task(supervisor.runs.cancel(PROJECT, run.run_id))
        await until_async(lambda: supervisor.registry.live == {}, what="its agent has ended")
        await until_async(
            lambda: recorder.refusal is not None and time.monotonic() - recorder.refusal.since > 0.5,
            what="storage has refused the other one for long",
        )
        assert not cancelling.done()
        go_on.set()
        assert (await cancelling).status == "cancelled"
        elsewhere.cancel()
        await asyncio.gather(elsewhere, return_exceptions=True)


async def test_cancel_ends_an_agent_that_nobody_knew_yet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A run that was cancelled in the moment of a spawn waited for that agent to end by itself."""
    write_roles(tmp_path, chief_architect="sleep 600", code_reviewer="echo never")
    async with running_supervisor(tmp_path) as supervisor:
        spawn, reached, go_on = supervisor.agents.spawn, asyncio.Event(), asyncio.Event()

        async def spawn_late(*args: Any, **options: Any) -> Any:
            reached.set()
            await go_on.wait()
            return await spawn(*args, **options)

        monkeypatch.setattr(supervisor.agents, "spawn", spawn_late)
        async with asyncio.timeout(PATIENCE_S):
            run = await supervisor.runs.create(PROJECT, issue_id="issue-1", task="look", workflow="quick")
            await reached.wait()
            cancelling = asyncio.create_task(supervisor.runs.cancel(PROJECT, run.run_id))
            await asyncio.sleep(0)
            go_on.set()
            cancelled = await cancelling
        assert [step.status for step in cancelled.steps] == ["killed", "pending"]
        assert supervisor.pool.stats().running == 0


async def test_a_run_goes_on_after_a_restart(tmp_path: Path) -> None:
    """A run that the sidecar's stop interrupted stayed running for ever, or did its first phase again."""
    write_roles(
        tmp_path,
        chief_architect="echo once >> architect.txt",
        code_reviewer="test -e go || sleep 600",
    )
    async with running_supervisor(tmp_path) as supervisor:
        run = await supervisor.runs.create(PROJECT, issue_id="issue-1", task="look", workflow="quick")
        async with asyncio.timeout(PATIENCE_S):
            while (await supervisor.runs.get(PROJECT, run.run_id)).steps[1].status != "running":
                await asyncio.sleep(0.02)
            while supervisor.registry.counts()["running"] == 0:
                await asyncio.sleep(0.02)
    await asyncio.to_thread((tmp_path / "project" / "go").touch)
    async with running_supervisor(tmp_path) as supervisor:
        done = await finished(supervisor, run.run_id)
        assert (done.status, done.error) == ("completed", None)
    assert await asyncio.to_thread((tmp_path / "project" / "architect.txt").read_text) == "once\n"


async def test_52_a_run_keeps_the_definition_it_began_with(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A workflow that was changed while the sidecar was down sent a half-done run to steps of another plan."""
    write_roles(tmp_path, chief_architect="true", code_reviewer="test -e go || sleep 600")
    async with running_supervisor(tmp_path) as supervisor:
        run = await supervisor.runs.create(PROJECT, issue_id="issue-1", task="look", workflow="quick")
        async with asyncio.timeout(PATIENCE_S):
            while (begun := await supervisor.runs.get(PROJECT, run.run_id)).steps[1].status != "running":
                await asyncio.sleep(0.02)
            while supervisor.registry.counts()["running"] == 0:
                await asyncio.sleep(0.02)
    await asyncio.to_thread((tmp_path / "project" / "go").touch)
    monkeypatch.setattr("orchestrator.workflows.runner.plan", lambda *_: [])
    async with running_supervisor(tmp_path) as supervisor:
        done = await finished(supervisor, run.run_id)
        assert [(step.phase, step.agent_type) for step in done.steps] == [
            (step.phase, step.agent_type) for step in begun.steps
        ]
        assert (done.status, done.steps[1].status) == ("completed", "completed")


async def test_refusals(tmp_path: Path) -> None:
    """A run of an unknown workflow or with a useless runtime was begun and failed step by step."""
    async with running_supervisor(tmp_path) as supervisor:
        with pytest.raises(BadRequest):
            await supervisor.runs.create(PROJECT, issue_id="issue-1", task="look", workflow="nope")
        with pytest.raises(BadRequest):
            await supervisor.runs.create(PROJECT, issue_id="../x", task="look")
        with pytest.raises(BadRequest):
            await supervisor.runs.create(PROJECT, issue_id="i", task="look", workflow="quick", runtime="text")
        with pytest.raises(NotFound):
            await supervisor.runs.get(PROJECT, "run_none")
        assert await supervisor.runs.list(PROJECT) == []

"""Agents that are let down: their worker dies, before, while or after it starts them, or has no room to."""

from __future__ import annotations

import asyncio
import os
import resource
import signal
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import pytest

from agentpool.states import AgentState
from orchestrator.agents.base import Spawned
from orchestrator.errors import SpawnFailed, StorageWriteFailed
from orchestrator.identifiers import new_id
from orchestrator.models import AgentQuery, AgentRecord, SpawnRequest
from orchestrator.supervisor import Supervisor
from tests.support.pools import descriptors_of
from tests.support.supervisors import (
    PROJECT,
    ended,
    event_types,
    events,
    request,
    running_supervisor,
    settings,
)
from tests.support.waiting import until_async


async def queued(supervisor: Supervisor, *command: str, **fields: Any) -> Spawned:
    """An accepted agent that waits at the closed door of the pool, so that nobody waits for its start."""
    supervisor.pool.pause()
    spawned = await supervisor.agents.spawn(request(*command, **fields))
    assert spawned.queued
    return spawned


async def lose_worker(supervisor: Supervisor) -> None:
    """Kill the only worker, and return when that is known."""
    (worker,) = supervisor.pool.worker_pids()
    os.kill(worker, signal.SIGKILL)
    await until_async(lambda: supervisor.pool.worker_pids() != (worker,), what="the loss is seen")


@asynccontextmanager
async def losing_the_worker_before_a_launch(
    supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[None]:
    """Kill the only worker while the next agent's files are written, so that its slot is of no use."""
    launcher = supervisor._lives._launcher
    prepare: Callable[..., Awaitable[Any]] = launcher.prepare
    lost = asyncio.Event()

    async def prepare_and_lose(*args: Any) -> Any:
        spec = await prepare(*args)
        if not lost.is_set():
            lost.set()
            await lose_worker(supervisor)
            assert supervisor.pool.worker_pids() == ()
        return spec

    monkeypatch.setattr(launcher, "prepare", prepare_and_lose)
    yield
    assert lost.is_set()


@asynccontextmanager
async def a_worker_without_descriptors(supervisor: Supervisor) -> AsyncIterator[None]:
    """Let the only worker open nothing more."""
    (worker,) = supervisor.pool.worker_pids()
    _, hard = limits = resource.prlimit(worker, resource.RLIMIT_NOFILE)
    resource.prlimit(worker, resource.RLIMIT_NOFILE, (descriptors_of(worker), hard))
    try:
        yield
    finally:
        resource.prlimit(worker, resource.RLIMIT_NOFILE, limits)


async def test_the_queue_waits_while_there_is_no_worker(tmp_path: Path) -> None:
    """Without a worker each slot that came free was granted to an agent that could only fail: the queue drained."""
    async with running_supervisor(tmp_path, settings(max_running=3)) as supervisor:
        running = [await supervisor.agents.spawn(request("/bin/sleep", "600")) for _ in range(3)]
        waiting = [await supervisor.agents.spawn(request("/bin/true")) for _ in range(9)]
        await lose_worker(supervisor)
        records = [await ended(supervisor, spawned.record.agent_id) for spawned in running]
        assert [record.outcome for record in records] == ["lost"] * 3
        records = [await ended(supervisor, spawned.record.agent_id) for spawned in waiting]
        assert [(record.status, record.attempt) for record in records] == [("completed", 1)] * 9


@pytest.mark.parametrize("is_waited_for", [True, False], ids=["spawn", "queued"])
async def test_a_slot_without_a_worker_is_asked_for_again(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_waited_for: bool
) -> None:
    """An agent whose slot was granted just before the last worker died had failed, though nothing of it ever ran."""
    async with running_supervisor(tmp_path) as supervisor:
        if not is_waited_for:
            spawned = await queued(supervisor, "/bin/true")
        async with losing_the_worker_before_a_launch(supervisor, monkeypatch):
            if is_waited_for:
                spawned = await supervisor.agents.spawn(request("/bin/true"))
                assert (spawned.queued, spawned.record.process_id, spawned.record.attempt) == (True, None, 0)
            supervisor.pool.resume()
            record = await ended(supervisor, spawned.record.agent_id)
        assert (record.status, record.attempt) == ("completed", 1)
        types = await event_types(supervisor, record.agent_id)
        assert types[:2] == ["agent_spawned", "agent_started"]


async def test_an_agent_that_waits_again_can_be_ended(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a DELETE that waits for the worker that would start the agent only to end it."""
    async with running_supervisor(tmp_path) as supervisor:
        async with losing_the_worker_before_a_launch(supervisor, monkeypatch):
            spawned = await supervisor.agents.spawn(request("/bin/sleep", "600"))
            supervisor.pool.pause()
            record = await supervisor.agents.terminate(spawned.record)
        assert (record.status, record.attempt) == ("killed", 0)


@pytest.mark.parametrize(
    ("restart", "status", "attempt", "outcome"),
    [("on-failure", "completed", 2, "succeeded"), ("never", "failed", 1, "lost")],
)
async def test_a_worker_that_dies_over_a_start_loses_the_attempt(
    tmp_path: Path, restart: str, status: str, attempt: int, outcome: str
) -> None:
    """An agent whose worker was killed before it could say that it runs was ``failed``, and not started again."""
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await queued(supervisor, "/bin/true", restart=restart)
        agent_id = spawned.record.agent_id
        (worker,) = supervisor.pool.worker_pids()
        os.kill(worker, signal.SIGSTOP)
        supervisor.pool.resume()
        live = supervisor.registry.live[agent_id]
        await until_async(lambda: live.has_process, what="the order is on its way to the worker")
        os.kill(worker, signal.SIGKILL)
        record = await ended(supervisor, agent_id)
        assert (record.status, record.attempt, record.outcome) == (status, attempt, outcome)
        ends = [event.data for event in await events(supervisor, agent_id) if "outcome" in event.data]
        assert (ends[0]["attempt"], ends[0]["outcome"]) == (1, "lost")
        assert len(ends) == attempt


async def test_a_start_without_room_is_tried_again(tmp_path: Path) -> None:
    """A queued agent that met EMFILE had failed for good, although there was room again a moment later."""
    async with running_supervisor(tmp_path, settings(restart_limit=100)) as supervisor:
        spawned = await queued(supervisor, "/bin/true", restart="on-failure")
        live = supervisor.registry.live[spawned.record.agent_id]
        async with a_worker_without_descriptors(supervisor):
            supervisor.pool.resume()
            await until_async(lambda: live.record.losses == 2, what="two starts have failed")
            assert live.record.outcome == "failed"
            assert live.record.survivors["count"] == 0
        record = await ended(supervisor, spawned.record.agent_id)
        assert (record.status, record.losses) == ("completed", 0)
        assert record.attempt > 2
        types = await event_types(supervisor, record.agent_id)
        assert types[:5] == ["agent_spawned", "agent_failed", "agent_restarted", "agent_failed", "agent_restarted"]


async def test_a_caller_who_waits_for_a_start_without_room_is_told(tmp_path: Path) -> None:
    """A caller could not tell a start that may do better in a moment from one that never will."""
    async with running_supervisor(tmp_path) as supervisor:
        async with a_worker_without_descriptors(supervisor):
            with pytest.raises(SpawnFailed) as caught:
                await supervisor.agents.spawn(request("/bin/true", restart="on-failure"))
        assert (caught.value.slug, caught.value.code) == ("resources", "AGT_001")
        assert caught.value.retry_after_s
        (record,) = (await supervisor.agents.query(PROJECT, AgentQuery())).agents
        assert (record.status, record.attempt) == ("failed", 1)
        assert not (tmp_path / "storage" / "agents" / record.agent_id).exists()
        assert supervisor.registry.live == {}


async def test_a_start_that_storage_refuses_for_a_while_is_not_given_up(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An accepted agent had failed for good when the disk was full at the moment that its turn came."""
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await queued(supervisor, "/bin/true")
        put, refused = supervisor.storage.put_agent, asyncio.Event()

        async def refuse_once(record: AgentRecord) -> None:
            if record.status == AgentState.STARTING and not refused.is_set():
                refused.set()
                raise StorageWriteFailed("the disk is full")
            await put(record)

        monkeypatch.setattr(supervisor.storage, "put_agent", refuse_once)
        supervisor.pool.resume()
        record = await ended(supervisor, spawned.record.agent_id)
        assert refused.is_set()
        assert (record.status, record.attempt) == ("completed", 1)


async def test_one_lost_worker_is_no_fault_of_a_role(tmp_path: Path) -> None:
    """One worker died under five agents of a role: two were retried, and the role was in quarantine for the rest."""
    async with running_supervisor(tmp_path, settings(restart_limit=2, restart_window_s=600.0)) as supervisor:
        spawned = [await supervisor.agents.spawn(request("/bin/sleep", "600", restart="on-failure")) for _ in range(5)]
        lives = [supervisor.registry.live[one.record.agent_id] for one in spawned]
        await lose_worker(supervisor)

        def are_running_again() -> bool:
            return all((live.record.status, live.record.attempt) == ("running", 2) for live in lives)

        await until_async(are_running_again, what=lambda: str([(x.record.status, x.record.error) for x in lives]))
        assert [live.record.losses for live in lives] == [1] * 5
        assert supervisor._lives._intensity.quarantined(0.0) == []
        for one in spawned:
            await supervisor.agents.terminate(one.record, force=True)


async def test_a_task_that_takes_its_worker_down_each_time_ends(tmp_path: Path) -> None:
    """Prevents a task that nothing else bounds from taking one worker down after the other."""
    async with running_supervisor(tmp_path, settings(restart_limit=2)) as supervisor:
        spawned = await queued(supervisor, "/bin/sh", "-c", "kill -9 $PPID; sleep 600", restart="on-failure")
        supervisor.pool.resume()
        record = await ended(supervisor, spawned.record.agent_id)
        assert (record.status, record.outcome, record.attempt) == ("failed", "lost", 3)
        assert "not started again: that has happened to it 3 times in a row" in (record.error or "")
        assert "quarantine" not in record.evidence


def running_under_another(attempt: int, losses: int, wanted: SpawnRequest) -> AgentRecord:
    """An agent that ran when its sidecar was killed."""
    return AgentRecord(
        agent_id=new_id("agt"),
        agent_type=wanted.agent_type,
        issue_id=wanted.issue_id,
        project_id=PROJECT,
        status="running",
        request=wanted,
        created_at=1.0,
        updated_at=1.0,
        attempt=attempt,
        losses=losses,
        nonce="0123456789abcdef0123456789abcdef",
    )


async def test_losses_are_counted_over_the_deaths_of_sidecars(tmp_path: Path) -> None:
    """Restarts were counted in memory: a task that took the whole sidecar down each time was started for ever."""
    configured = settings(restart_limit=1)
    wanted = request("/bin/sh", "-c", "exit 3", restart="on-failure")
    worn, fresh = running_under_another(2, 1, wanted), running_under_another(1, 0, wanted)
    async with running_supervisor(tmp_path, configured) as supervisor:
        for record in (worn, fresh):
            await supervisor.storage.put_agent(record)
    async with running_supervisor(tmp_path, configured) as supervisor:
        record = await ended(supervisor, worn.agent_id)
        assert (record.status, record.outcome, record.attempt, record.losses) == ("failed", "lost", 2, 2)
        # What it does by itself after its first loss ends the row, and is counted as ever.
        record = await ended(supervisor, fresh.agent_id)
        assert (record.outcome, record.attempt, record.losses) == ("failed", 3, 0)
        assert "quarantine" in record.evidence

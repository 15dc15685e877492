"""What goes wrong between two steps of an agent's life: callers that go away, storage that refuses, restarts."""

from __future__ import annotations

import asyncio
import contextlib
import subprocess
import time
from pathlib import Path
from typing import Any

import msgspec
import psutil
import pytest
from structlog.testing import capture_logs

from orchestrator.agents import durability
from orchestrator.errors import AgentNotRunning, InvalidToken, SpawnFailed, StorageWriteFailed
from orchestrator.identifiers import new_id
from orchestrator.models import AgentQuery, AgentRecord, ResultDraft, ResultQuery
from orchestrator.supervisor import Supervisor
from tests.support.supervisors import (
    PATIENCE_S,
    PROJECT,
    Gate,
    RecordingMinter,
    ended,
    event_types,
    python_agent,
    request,
    running_supervisor,
    settings,
)


async def cancelled(task: asyncio.Task[Any]) -> None:
    """Do to a task what a client that goes away does."""
    task.cancel()
    with contextlib.suppress(asyncio.CancelledError):
        await task


async def the_only_agent(supervisor: Supervisor) -> AgentRecord:
    """The one agent that the project knows."""
    page = await supervisor.agents.query(PROJECT, AgentQuery())
    assert len(page.agents) == 1
    return page.agents[0]


async def test_a_client_that_goes_away_while_its_spawn_is_stored(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client hung up during a spawn: the agent stayed queued for ever and its slot was gone."""
    async with running_supervisor(tmp_path, settings(max_running=1)) as supervisor:
        gate = Gate(supervisor, monkeypatch, "queued")
        spawning = asyncio.create_task(supervisor.agents.spawn(request("/bin/echo", "hello")))
        await gate.reached.wait()
        await cancelled(spawning)
        gate.opened.set()
        second = await supervisor.agents.spawn(request("/bin/echo", "second"))
        assert (await ended(supervisor, second.record.agent_id)).status == "completed"
        page = await supervisor.agents.query(PROJECT, AgentQuery())
        assert [record.status for record in page.agents] == ["completed", "completed"]


async def test_a_refused_spawn_tells_nobody(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Storage refused an agent; agent_spawned of this agent that never was came when storage was back."""
    async with running_supervisor(tmp_path, settings(max_running=1)) as supervisor:

        async def refuse(*_: object, **__: object) -> None:
            raise StorageWriteFailed("the disk is full")

        with monkeypatch.context() as patch:
            patch.setattr(supervisor.storage, "put_agent", refuse)
            patch.setattr(supervisor.bus, "publish", refuse)
            with pytest.raises(StorageWriteFailed):
                await supervisor.agents.spawn(request("/bin/echo", "never"))
            telling = [task for task in asyncio.all_tasks() if "announce" in repr(task.get_coro())]
            assert telling == []
        spawned = await supervisor.agents.spawn(request("/bin/echo", "hello"))
        assert not spawned.queued
        assert (await ended(supervisor, spawned.record.agent_id)).status == "completed"


async def test_an_end_is_carried_out_though_its_caller_goes_away(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A client hung up during DELETE: the agent was marked to stop, but nobody stopped it."""
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(request("/bin/sleep", "600"))
        gate = Gate(supervisor, monkeypatch, "stopping")
        ending = asyncio.create_task(supervisor.agents.terminate(spawned.record))
        await gate.reached.wait()
        await cancelled(ending)
        gate.opened.set()
        assert (await ended(supervisor, spawned.record.agent_id)).status == "killed"


async def test_a_full_disk_keeps_no_agent_alive(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DELETE failed on a full disk and left the process running."""
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(request("/bin/sleep", "600"))
        process = psutil.Process(spawned.record.process_id)
        gate = Gate(supervisor, monkeypatch, "stopping", "killed")
        gate.is_refusing = True
        ending = asyncio.create_task(supervisor.agents.terminate(spawned.record))
        await asyncio.to_thread(process.wait, PATIENCE_S)
        assert not ending.done()
        gate.opened.set()
        async with asyncio.timeout(PATIENCE_S):
            assert (await ending).status == "killed"


async def test_an_end_does_not_wait_for_the_record_of_the_start(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """On a full disk an agent whose start was not recorded yet had no process to end, and ran on."""
    async with running_supervisor(tmp_path) as supervisor:
        gate = Gate(supervisor, monkeypatch, "running")
        spawning = asyncio.create_task(supervisor.agents.spawn(request("/bin/sleep", "600")))
        await gate.reached.wait()
        (live,) = supervisor.registry.live.values()
        ending = asyncio.create_task(supervisor.agents.terminate(live.record, force=True))
        async with asyncio.timeout(PATIENCE_S):
            while live.has_process:
                await asyncio.sleep(0.01)
        assert live.record.status == "starting"
        gate.opened.set()
        async with asyncio.timeout(PATIENCE_S):
            assert (await ending).status == "killed"
            await spawning


async def test_a_spawn_whose_start_is_not_recorded_is_refused_and_ended(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A spawn whose process ran on a disk that became full was not answered; its client tried again, and two ran."""
    async with running_supervisor(tmp_path) as supervisor:
        gate = Gate(supervisor, monkeypatch, "running")
        gate.is_refusing = True
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(StorageWriteFailed) as caught:
                await supervisor.agents.spawn(request("/bin/sleep", "600"))
            (live,) = supervisor.registry.live.values()
            assert caught.value.details == {"agent_id": live.record.agent_id}
            while live.has_process:
                await asyncio.sleep(0.01)
        gate.opened.set()
        record = await ended(supervisor, live.record.agent_id)
        assert (record.status, record.attempt, record.survivors["count"]) == ("killed", 1, 0)
        assert (await event_types(supervisor, record.agent_id)).count("agent_killed") == 1


async def test_a_spawn_that_is_refused_late_never_runs(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A spawn whose client had been told no was started after all when storage was back."""
    started = tmp_path / "started"
    async with running_supervisor(tmp_path) as supervisor:
        publish = supervisor.bus.publish
        is_full = True

        async def refuse(*args: Any, **options: Any) -> Any:
            if is_full:
                raise StorageWriteFailed("the disk is full")
            return await publish(*args, **options)

        monkeypatch.setattr(supervisor.bus, "publish", refuse)
        async with asyncio.timeout(PATIENCE_S):
            with pytest.raises(StorageWriteFailed):
                await supervisor.agents.spawn(request("/usr/bin/touch", str(started)))
        (live,) = supervisor.registry.live.values()
        is_full = False
        record = await ended(supervisor, live.record.agent_id)
        assert (record.status, record.attempt) == ("killed", 0)
        assert not await asyncio.to_thread(started.exists)
        assert supervisor.pool.stats().running == 0


@pytest.mark.parametrize("said", ["nothing", "result"])
async def test_tries_to_store_a_result_make_one_result(tmp_path: Path, said: str) -> None:
    """Each try to store an attempt's result while its copy found no room left another round in the database."""
    copies = tmp_path / "storage" / "results"
    line = 'import time; print(\'{"type":"result","result":{"status":"success"}}\'); time.sleep(0.2)'
    async with running_supervisor(tmp_path) as supervisor:
        await asyncio.to_thread(copies.write_text, "no directory can be here")
        spawned = await supervisor.agents.spawn(python_agent(line if said == "result" else "pass"))
        live = supervisor.registry.live[spawned.record.agent_id]
        async with asyncio.timeout(PATIENCE_S):
            while live.refusal is None or time.monotonic() - live.refusal.since < 1.0:  # several tries
                await asyncio.sleep(0.02)
        await asyncio.to_thread(copies.unlink)
        record = await ended(supervisor, spawned.record.agent_id)
        page = await supervisor.results.query(PROJECT, ResultQuery(issue_id="issue-1"))
        assert [result.id for result in page.results] == [record.result_id]
        assert record.status == "completed"


async def test_a_start_that_fails_after_the_launch_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """An error that nobody foresaw made a running agent one that had never been started, and it ran on."""
    async with running_supervisor(tmp_path) as supervisor:
        launch, pids = supervisor.pool.launch, []

        async def launch_and_note(*args: Any) -> Any:
            started = await launch(*args)
            pids.append(started.pid)
            return started

        async def fail(*_args: Any) -> None:
            raise RuntimeError("nobody foresaw this")

        monkeypatch.setattr(supervisor.pool, "launch", launch_and_note)
        monkeypatch.setattr(supervisor._lives._starter, "_attach_feed", fail)
        with capture_logs(), pytest.raises(SpawnFailed):
            await supervisor.agents.spawn(request("/bin/sleep", "600"))
        (pid,) = pids
        async with asyncio.timeout(PATIENCE_S):
            while await asyncio.to_thread(psutil.pid_exists, pid):
                await asyncio.sleep(0.02)


async def test_one_agents_refusal_is_not_anothers(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One agent whose result found no place made every spawn with a slow context fail, and end what it had begun."""
    monkeypatch.setattr(durability, "PATIENCE_S", 0.3)
    copies = tmp_path / "storage" / "results"
    async with running_supervisor(tmp_path) as supervisor:
        await asyncio.to_thread(copies.write_text, "no directory can be here")
        stuck = await supervisor.agents.spawn(python_agent("pass"))
        live = supervisor.registry.live[stuck.record.agent_id]
        launcher, recorder = supervisor._lives._launcher, supervisor._recorder
        prepare = launcher.prepare

        async def prepare_late(*args: Any) -> Any:
            # Long enough to be told by somebody else's refusal: as that is seen, and once more.
            for _ in range(2):
                while recorder.refusal is None or time.monotonic() - recorder.refusal.since < 0.3:
                    await asyncio.sleep(0.02)
                await asyncio.sleep(2 * durability.LOOK_S)
            return await prepare(*args)

        monkeypatch.setattr(launcher, "prepare", prepare_late)
        async with asyncio.timeout(PATIENCE_S):
            spawned = await supervisor.agents.spawn(request("/bin/sleep", "600"))
            assert spawned.record.status == "running"
            assert live.refusal is not None
            await asyncio.to_thread(copies.unlink)
            await supervisor.agents.terminate(spawned.record, force=True)
        assert (await ended(supervisor, stuck.record.agent_id)).status == "completed"


async def test_an_end_asked_for_while_the_agent_ends(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """DELETE in the moment of an agent's own end was an internal error (completed -> stopping)."""
    async with running_supervisor(tmp_path) as supervisor:
        gate = Gate(supervisor, monkeypatch, "completed")
        spawned = await supervisor.agents.spawn(request("/bin/echo", "hello"))
        await gate.reached.wait()
        live = supervisor.registry.live[spawned.record.agent_id]
        ending = asyncio.create_task(supervisor.agents.terminate(live.record))
        await asyncio.wait_for(live.stopping.wait(), PATIENCE_S)
        while not live.lock.locked():
            await asyncio.sleep(0)
        for _ in range(5):  # the shielded step gets to the lock, which the ending holds
            await asyncio.sleep(0)
        gate.opened.set()
        async with asyncio.timeout(PATIENCE_S):
            assert (await ending).status == "completed"


class CountingMinter(RecordingMinter):
    """Makes every token another one."""

    def mint(
        self,
        agent_id: str,
        agent_type: str,
        project_id: str,
        permissions: tuple[str, ...],
        ttl_s: float,
        *,
        attempt: int | None = None,
    ) -> str:
        super().mint(agent_id, agent_type, project_id, permissions, ttl_s, attempt=attempt)
        return f"token-{len(self.minted)}"


async def test_each_attempt_has_a_token_of_its_own(tmp_path: Path) -> None:
    """An attempt got the token that the one before had refreshed, and which was thereby revoked."""
    async with running_supervisor(tmp_path, minter=CountingMinter()) as supervisor:
        code = "import os, sys; t = os.environ['JWT_TOKEN']; print(t); sys.exit(t == 'token-1')"
        spawned = await supervisor.agents.spawn(python_agent(code, restart="on-failure", runtime="text"))
        record = await ended(supervisor, spawned.record.agent_id)
        assert (record.status, record.attempt) == ("completed", 2)
        result = await supervisor.results.get(PROJECT, record.result_id or "")
        assert result.result["output"] == "token-2\n"


async def test_between_two_attempts_there_is_no_process(tmp_path: Path) -> None:
    """An agent that waited for its restart was shown with the number of a process that was long gone."""
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(request("/bin/sh", "-c", "exit 3", restart="always"))
        agent_id = spawned.record.agent_id
        async with asyncio.timeout(PATIENCE_S):
            while (record := await supervisor.agents.get(PROJECT, agent_id)).status != "queued":
                await asyncio.sleep(0)
        assert (record.process_id, record.attempt, record.exit_code) == (None, 1, 3)
        assert supervisor.agents.full_view(record)["process_id"] is None
        stored = await supervisor.storage.get_agent(PROJECT, agent_id)
        assert stored is not None
        assert (stored.process_id, stored.start_ticks) == (None, None)
        await supervisor.agents.terminate(record, force=True)


async def test_a_retry_under_the_next_sidecar_knows_the_error_too(tmp_path: Path) -> None:
    """A retry that a restart of the sidecar had put off went at the task as if nothing had gone wrong."""
    flag = tmp_path / "flag"
    script = f"if [ -e {flag} ]; then exit 0; fi; touch {flag}; echo the bridge is out >&2; exit 3"
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(request("/bin/sh", "-c", script, restart="on-failure"))
        agent_id = spawned.record.agent_id
        async with asyncio.timeout(PATIENCE_S):
            while (await supervisor.agents.get(PROJECT, agent_id)).status != "queued":
                await asyncio.sleep(0)
    async with running_supervisor(tmp_path) as supervisor:
        record = await ended(supervisor, agent_id)
        assert (record.status, record.attempt) == ("completed", 2)
        task = await asyncio.to_thread((tmp_path / "storage" / "agents" / agent_id / "task.md").read_text)
        assert "## The attempt before this one failed" in task
        assert "the bridge is out" in task


async def test_a_result_of_an_overtaken_attempt_is_refused(tmp_path: Path) -> None:
    """A result that was on its way while the attempt ended counted as the next attempt's."""
    minter = RecordingMinter()
    async with running_supervisor(tmp_path, minter=minter) as supervisor:
        flag = tmp_path / "flag"
        script = f"if [ -e {flag} ]; then exec sleep 600; fi; touch {flag}; exit 3"
        spawned = await supervisor.agents.spawn(request("/bin/sh", "-c", script, restart="on-failure"))
        agent_id = spawned.record.agent_id
        async with asyncio.timeout(PATIENCE_S):
            while (record := await supervisor.agents.get(PROJECT, agent_id)).attempt != 2:
                await asyncio.sleep(0.01)
        assert minter.fenced == [(agent_id, 1)]
        draft = ResultDraft(
            agent_id=agent_id,
            agent_type=record.agent_type,
            issue_id=record.issue_id,
            result={"status": "success"},
            attempt=1,
        )
        with pytest.raises(InvalidToken):
            await supervisor.agents.store_result(PROJECT, draft)
        stored = await supervisor.agents.store_result(PROJECT, msgspec.structs.replace(draft, attempt=2))
        record = await supervisor.agents.terminate(await supervisor.agents.get(PROJECT, agent_id), force=True)
        assert record.result_id == stored.result.id


async def test_a_queued_agents_token_speaks_for_its_first_attempt(tmp_path: Path) -> None:
    """A result that came with the token of an agent in the queue was refused as one of an overtaken attempt."""
    async with running_supervisor(tmp_path) as supervisor:
        supervisor.pool.pause()
        record = (await supervisor.agents.spawn(request("/bin/true"))).record
        assert (record.status, record.open_attempt) == ("queued", 1)
        draft = ResultDraft(
            agent_id=record.agent_id,
            agent_type=record.agent_type,
            issue_id=record.issue_id,
            result={"status": "success"},
            attempt=record.open_attempt,
        )
        stored = await supervisor.agents.store_result(PROJECT, draft)
        assert (await supervisor.results.get(PROJECT, stored.result.id)).result["status"] == "success"
        assert (await supervisor.agents.terminate(record, force=True)).result_id == stored.result.id


async def test_a_refused_message_is_not_shown_as_queued(tmp_path: Path) -> None:
    """A message to an agent that waited for its start was refused, and listed as queued in its record all the same."""
    async with running_supervisor(tmp_path) as supervisor:
        supervisor.pool.pause()
        record = (await supervisor.agents.spawn(request("/bin/true"))).record
        with pytest.raises(AgentNotRunning):
            supervisor.agents.send(record, "hello", None)
        assert supervisor.agents.full_view(record)["inputs"] == []
        await supervisor.agents.terminate(record, force=True)


async def test_a_restart_that_fails_keeps_what_was_said(tmp_path: Path) -> None:
    """A command that vanished before its restart took the output of the earlier attempt with it."""
    script = tmp_path / "agent.sh"
    script.write_text('#!/bin/sh\necho last words\nrm -- "$0"\nexit 3\n')
    script.chmod(0o700)
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(request(str(script), restart="on-failure"))
        record = await ended(supervisor, spawned.record.agent_id)
        assert (record.status, record.attempt) == ("failed", 2)
        chunk = await supervisor.agents.output(record, "stdout", 0, 100)
        assert chunk.data == b"last words\n"


async def test_an_error_that_nobody_foresaw_ends_the_agent(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """An unexpected error while an end was told left the agent running for ever, and DELETE hung."""
    async with running_supervisor(tmp_path) as supervisor:

        async def fail(*_: object, **__: object) -> None:
            raise RuntimeError("nobody foresaw this")

        monkeypatch.setattr(supervisor.results, "store", fail)
        with capture_logs() as logged:
            spawned = await supervisor.agents.spawn(request("/bin/echo", "hello"))
            record = await ended(supervisor, spawned.record.agent_id)
        assert "agent_life_failed" in [entry["event"] for entry in logged]
        assert record.status == "failed"
        assert "log says why" in (record.error or "")
        assert (await event_types(supervisor, record.agent_id))[-1] == "agent_failed"


async def test_a_stop_during_the_backoff_leaves_the_restart_to_the_next_sidecar(tmp_path: Path) -> None:
    """An agent that waited for its restart when the sidecar stopped was recorded as killed by somebody."""
    mark = tmp_path / "mark"
    code = f"import pathlib, sys; m = pathlib.Path({str(mark)!r}); e = m.exists(); m.touch(); sys.exit(not e)"
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(python_agent(code, restart="on-failure"))
        live = supervisor.registry.live[spawned.record.agent_id]
        async with asyncio.timeout(PATIENCE_S):
            while live.record.status != "queued":
                await asyncio.sleep(0.01)
    async with running_supervisor(tmp_path) as supervisor:
        record = await ended(supervisor, spawned.record.agent_id)
        assert (record.status, record.attempt) == ("completed", 2)


async def test_an_end_between_two_attempts_keeps_the_proof_of_the_first(tmp_path: Path) -> None:
    """An agent that was ended while it waited for its restart was recorded as never started."""
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(request("/bin/sh", "-c", "exit 3", restart="on-failure"))
        live = supervisor.registry.live[spawned.record.agent_id]
        async with asyncio.timeout(PATIENCE_S):
            while live.record.status != "queued":
                await asyncio.sleep(0.01)
            supervisor.pool.pause()  # so that the next attempt does not begin however late the end is asked for
            while live.record.status != "queued":
                await asyncio.sleep(0.01)
        record = await supervisor.agents.terminate(live.record, force=True)
        assert record.status == "killed"
        assert record.survivors["count"] == 0
        assert record.survivors["checked_by"] != ["never started"]


async def test_what_was_being_ended_is_not_started_again(tmp_path: Path) -> None:
    """An agent under DELETE when its sidecar was killed came back to life with the next one."""
    agent_id = new_id("agt")
    async with running_supervisor(tmp_path) as supervisor:
        record = AgentRecord(
            agent_id=agent_id,
            agent_type="python-specialist",
            issue_id="issue-1",
            project_id=PROJECT,
            status="stopping",
            request=request("/bin/sleep", "600", restart="always"),
            created_at=1.0,
            updated_at=1.0,
            attempt=1,
            nonce="0123456789abcdef0123456789abcdef",
        )
        await supervisor.storage.put_agent(record)
    async with running_supervisor(tmp_path) as supervisor:
        settled = await ended(supervisor, agent_id)
        assert (settled.attempt, settled.status in ("failed", "killed")) == (1, True)


async def test_accepted_agents_survive_a_shorter_queue(tmp_path: Path) -> None:
    """A sidecar configured with a shorter queue than the one before did not start at all."""
    async with running_supervisor(tmp_path, settings(max_running=1, queue_size=3)) as supervisor:
        await supervisor.agents.spawn(request("/bin/sleep", "600"))
        waiting = [await supervisor.agents.spawn(request("/bin/echo", str(number))) for number in range(3)]
    async with running_supervisor(tmp_path, settings(max_running=1, queue_size=1)) as supervisor:
        for spawned in waiting:
            assert (await ended(supervisor, spawned.record.agent_id)).status == "completed"


async def test_a_failed_start_leaves_no_worktree(tmp_path: Path) -> None:
    """A command that could not be started left its worktree and its branch in the user's repository."""
    project = tmp_path / "project"
    project.mkdir()
    git = ["git", "-C", str(project), "-c", "user.name=t", "-c", "user.email=t@localhost"]
    for arguments in (["init", "-q"], ["commit", "-q", "--allow-empty", "-m", "first"]):
        await asyncio.to_thread(subprocess.run, [*git, *arguments], check=True)
    async with running_supervisor(tmp_path) as supervisor:
        with pytest.raises(SpawnFailed):
            await supervisor.agents.spawn(request("./missing", workspace="worktree"))
        record = await the_only_agent(supervisor)
        assert not (tmp_path / "storage" / "worktrees" / record.agent_id).exists()
        left = await asyncio.to_thread(
            subprocess.run, [*git, "branch", "--list", "sidecar/*"], check=True, capture_output=True
        )
        assert left.stdout == b""

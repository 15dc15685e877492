"""Agents' lives in a real supervisor: real processes, real storage."""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import psutil
import pytest

from agentpool.errors import UnknownAgent
from agentpool.streams import TAIL_BYTES
from orchestrator.agents.registry import LiveAgent
from orchestrator.errors import AgentNotRunning, BadRequest, NoSuchAgent, PoolSaturated, SpawnFailed, UnknownAgentType
from orchestrator.events.query import EventQuery
from orchestrator.identifiers import new_id
from orchestrator.models import AgentQuery, AgentRecord, EventDraft, ResultDraft, ResultQuery
from orchestrator.supervisor import Supervisor
from tests.support.supervisors import (
    PATIENCE_S,
    PROJECT,
    RecordingMinter,
    ended,
    event_types,
    events,
    python_agent,
    request,
    running_supervisor,
    settings,
)

RESULT = '{"type":"result","result":{"status":"%s","decisions":["%s"]}}'


async def running(supervisor: Supervisor, agent_id: str, marker: str) -> None:
    """Wait until the agent has printed ``marker``."""
    record = await supervisor.agents.get(PROJECT, agent_id)
    async with asyncio.timeout(PATIENCE_S):
        seen = b""
        async for chunk in supervisor.agents.follow(record, "stdout", 0):
            seen += chunk.data
            if marker.encode() in seen:
                return
    raise AssertionError(f"{marker} never came: {seen!r}")


def second_time(then: str, first: str = "pass") -> str:
    """Python that does ``first`` and fails with 4 when it is run first, and does ``then`` when it is run again."""
    return (
        "import os, pathlib, signal, sys\n"
        "mark = pathlib.Path(os.environ['AGENT_CONTEXT_FILE']).parent / 'mark'\n"
        f"if not mark.exists():\n    mark.touch(); {first}; sys.stdout.flush(); sys.exit(4)\n"
        f"{then}"
    )


async def test_no_agent_takes_the_place_of_the_sidecars_own_events(tmp_path: Path) -> None:
    """An agent that published the id of an end to come kept that end from all who waited for it."""
    code = (
        "import json, os, sys\n"
        "own = {'type': 'event', 'event_type': 'noted', 'topic': 'testing', 'data': {}}\n"
        "print(json.dumps({**own, 'event_id': os.environ['AGENT_ID'] + '.1.end'}), flush=True)\n"
        "print(json.dumps({**own, 'event_id': 'mine'}), flush=True)\n"
        "sys.exit(3)\n"
    )
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(python_agent(code))
        await ended(supervisor, spawned.record.agent_id)
        types = await event_types(supervisor, spawned.record.agent_id)
        assert types == ["agent_spawned", "agent_started", "agent_failed"]
        (noted,) = [event for event in await events(supervisor) if event.event_type == "noted"]
        assert noted.event_id == "mine"


async def test_one_attempt_one_result_one_end(tmp_path: Path) -> None:
    """An agent's end was told twice, or before its result was stored."""
    minter = RecordingMinter()
    async with running_supervisor(tmp_path, minter=minter) as supervisor:
        spawned = await supervisor.agents.spawn(request("/bin/echo", RESULT % ("success", "d1")))
        record = await ended(supervisor, spawned.record.agent_id)
        assert (record.status, record.outcome, record.exit_code) == ("completed", "succeeded", 0)
        assert record.survivors["count"] == 0
        result = await supervisor.results.get(PROJECT, record.result_id or "")
        assert result.result["decisions"] == ["d1"]
        assert result.source == "pipe"
        types = await event_types(supervisor, record.agent_id)
        assert types == ["agent_spawned", "agent_started", "result_stored", "agent_completed"]
        told = (await events(supervisor, record.agent_id))[-1]
        assert told.data["result_id"] == record.result_id
        assert minter.ended == [record.agent_id]
        assert (await supervisor.results.query(PROJECT, ResultQuery())).results == [result]


@pytest.mark.parametrize(("code", "status", "result"), [(0, "completed", "success"), (3, "failed", "failed")])
async def test_exit_without_a_result_makes_one(tmp_path: Path, code: int, status: str, result: str) -> None:
    """An agent that only printed and exited left no result at all."""
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(
            python_agent(f"import sys; print('said'); print('cause', file=sys.stderr); sys.exit({code})")
        )
        record = await ended(supervisor, spawned.record.agent_id)
        stored = await supervisor.results.get(PROJECT, record.result_id or "")
        assert (record.status, record.exit_code, stored.status) == (status, code, result)
        assert stored.result["output"] == "said\n"
        assert (record.error is None) == (code == 0)
        if code:
            assert "exit code 3" in stored.result["errors"][0]
            assert "cause" in stored.result["errors"][0]
        assert (await event_types(supervisor, record.agent_id))[2:] == [f"agent_{status}"]


async def test_rounds_are_kept_and_the_last_counts(tmp_path: Path) -> None:
    """Two results of one attempt: the second overwrote the first, or the first stayed the result."""
    lines = "\n".join([RESULT % ("partial", "one"), "noise", RESULT % ("success", "two")])
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(request("/bin/echo", lines))
        record = await ended(supervisor, spawned.record.agent_id)
        page = await supervisor.results.query(PROJECT, ResultQuery(agent_id=record.agent_id))
        assert [(result.round, result.result["decisions"]) for result in page.results] == [(2, ["two"]), (1, ["one"])]
        assert record.result_id == page.results[0].id
        copy = json.loads((tmp_path / "storage/results/proj/issue-1/python-specialist.json").read_text())
        assert copy["round"] == 2


async def test_a_result_by_the_api_is_the_attempts_result(tmp_path: Path) -> None:
    """An agent that told its result by HTTP got a second one from its exit, and its end was told twice."""
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(
            python_agent("import sys; print('ready', flush=True); sys.stdin.read()")
        )
        agent_id = spawned.record.agent_id
        await running(supervisor, agent_id, "ready")
        draft = ResultDraft(
            agent_id=agent_id, agent_type="python-specialist", issue_id="issue-1", result={"status": "partial"}
        )
        stored = await supervisor.agents.store_result(PROJECT, draft)
        assert stored.event is not None
        assert stored.event.event_type == "result_stored"
        supervisor.pool.close_input(agent_id)
        record = await ended(supervisor, agent_id)
        assert (record.result_id, record.outcome) == (stored.result.id, "partial")
        assert len((await supervisor.results.query(PROJECT, ResultQuery())).results) == 1
        assert (await event_types(supervisor, agent_id))[2:] == ["result_stored", "agent_completed"]


async def test_events_keep_their_order_and_their_true_publisher(tmp_path: Path) -> None:
    """Events of a burst were reordered by their shared commit; a line could name another publisher."""
    code = (
        "import json\n"
        "for n in range(500):\n"
        "    print(json.dumps({'type':'event','event_type':'step','topic':'work','data':{'n':n},'publisher':'x'}))"
    )
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(python_agent(code))
        record = await ended(supervisor, spawned.record.agent_id)
        steps = [event for event in await events(supervisor) if event.event_type == "step"]
        assert [event.data["n"] for event in steps] == list(range(500))
        assert {event.publisher for event in steps} == {record.agent_id}


async def test_lines_that_cannot_be_taken_are_noted(tmp_path: Path) -> None:
    """A bad line ended the reader, or vanished without a trace."""
    lines = "\n".join(
        [
            '{"type":"event","event_type":"../x","topic":"t","data":{}}',
            '{"type":"event","topic":"t"}',
            '{"type":"result","result":{"status":"fine"}}',
            '{"type":"result","result":{"status":NaN}}',
            RESULT % ("success", "good"),
        ]
    )
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(request("/bin/echo", lines))
        record = await ended(supervisor, spawned.record.agent_id)
        assert record.status == "completed"
        assert len(record.evidence["refused_lines"]) == 4


async def test_restart_until_it_works(tmp_path: Path) -> None:
    """A restarted agent lost its earlier attempt's end, or did not learn why that failed."""
    code = second_time("print((mark.parent / 'task.md').read_text())", "print('first try', file=sys.stderr)")
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(python_agent(code, restart="on-failure"))
        record = await ended(supervisor, spawned.record.agent_id)
        assert (record.status, record.attempt, record.exit_code) == ("completed", 2, 0)
        assert await event_types(supervisor, record.agent_id) == [
            "agent_spawned",
            "agent_started",
            "agent_failed",
            "agent_restarted",
            "agent_started",
            "agent_completed",
        ]
        page = await supervisor.results.query(PROJECT, ResultQuery(agent_id=record.agent_id))
        assert [(result.attempt, result.status) for result in page.results] == [(2, "success"), (1, "failed")]
        assert "first try" in page.results[0].result["output"]


async def test_a_new_attempt_shows_nothing_of_the_one_before(tmp_path: Path) -> None:
    """A running second attempt was shown with the error, the evidence, the usage and the end time of the first."""
    code = second_time("print('second', flush=True); signal.pause()")
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(python_agent(code, restart="on-failure"))
        await running(supervisor, spawned.record.agent_id, "second")
        async with asyncio.timeout(PATIENCE_S):
            while (record := await supervisor.agents.get(PROJECT, spawned.record.agent_id)).status != "running":
                await asyncio.sleep(0.01)
        assert record.attempt == 2
        assert (record.error, record.evidence, record.survivors, record.usage) == (None, {}, {}, {})
        assert (record.ended_at, (record.started_at or 0.0) >= record.created_at) == (None, True)
        first = [event for event in await events(supervisor, record.agent_id) if event.event_type == "agent_failed"]
        assert (first[0].data["exit_code"], first[0].data["attempt"]) == (4, 1), "where the first one's end is"


async def test_a_result_has_the_output_of_its_own_attempt(tmp_path: Path) -> None:
    """The result of a second attempt held what the first one had written into the log that both share."""
    code = second_time("print('S' * 200_000)", "print('F' * 300_000)")
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(python_agent(code, restart="on-failure", runtime="text"))
        record = await ended(supervisor, spawned.record.agent_id)
        result = await supervisor.results.get(PROJECT, record.result_id or "")
        assert (record.attempt, result.result["output"]) == (2, "S" * 200_000 + "\n")


async def test_a_result_has_little_of_an_output_that_was_cut(tmp_path: Path) -> None:
    """The results of a few agents whose output a full disk had cut took the last room, and could not be stored."""
    async with running_supervisor(tmp_path) as supervisor:
        code = "print('F' * 50_000)"
        spawned = await supervisor.agents.spawn(python_agent(code, runtime="text", limits={"output_bytes": 20_000}))
        record = await ended(supervisor, spawned.record.agent_id)
        output = (await supervisor.results.get(PROJECT, record.result_id or "")).result["output"]
        assert record.evidence["truncated_at"] == {"stdout": 20_000}
        assert output == "F" * TAIL_BYTES


async def test_crash_loops_end_in_quarantine(tmp_path: Path) -> None:
    """An agent that fails at once was restarted for ever."""
    configured = settings(restart_limit=2, restart_window_s=600.0)
    async with running_supervisor(tmp_path, configured) as supervisor:
        spawned = await supervisor.agents.spawn(request("/bin/false", restart="always"))
        record = await ended(supervisor, spawned.record.agent_id)
        assert (record.status, record.attempt) == ("failed", 3)
        types = await event_types(supervisor, record.agent_id)
        assert types.count("agent_restarted") == 2
        assert types.count("agent_failed") == 3
        async with asyncio.timeout(PATIENCE_S):
            page = await supervisor.bus.wait(
                PROJECT, EventQuery(types=("agent_quarantined",), timeout_s=PATIENCE_S), subscriber="test"
            )
        assert [event.data["agent_id"] for event in page.events] == [record.agent_id]
        assert page.events[0].data["restart_limit"] == 2
        # Its own record says so too, or nobody would know why it was not tried once more.
        assert record.evidence["quarantine"] == {"restart_limit": 2, "restart_window_seconds": 600.0}
        assert "python-specialist has restarted 2 times within 600 s" in (record.error or "")


async def test_an_agent_cannot_say_that_its_role_is_in_quarantine(tmp_path: Path) -> None:
    """A refused line with the word ``quarantine`` in it published the sidecar's own event of that name."""
    line = '{"type":"event","event_type":"x","topic":"testing","priority":"quarantine"}'
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(request("/bin/echo", line))
        record = await ended(supervisor, spawned.record.agent_id)
        assert "quarantine" in record.evidence["refused_lines"][0]
        async with asyncio.timeout(PATIENCE_S):
            while not (await supervisor.agents.get(PROJECT, record.agent_id)).is_end_published:
                await asyncio.sleep(0.01)
        assert "agent_quarantined" not in await event_types(supervisor, record.agent_id)
        assert "quarantine" not in record.evidence


async def test_messages_show_what_became_of_them_after_the_end(tmp_path: Path) -> None:
    """A message to an agent that ended before it read was accepted, and then nobody could see its fate any more."""
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(request("/bin/sleep", "600"))
        small = supervisor.agents.send(spawned.record, "hello", None)
        large = supervisor.agents.send(spawned.record, "x" * 200_000, None)
        record = await supervisor.agents.terminate(spawned.record, force=True)
        states = {one["message_id"]: one["state"] for one in supervisor.agents.full_view(record)["inputs"]}
        assert states == {small.message_id: "written", large.message_id: "dead"}


async def test_no_message_stays_queued_when_its_worker_is_lost(tmp_path: Path) -> None:
    """A message that waited in a worker that died was shown as queued for ever."""
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(request("/bin/sleep", "600"))
        agent_id = spawned.record.agent_id
        profile = supervisor.registry.live[agent_id].profile
        waiting = supervisor.agents.send(spawned.record, "x" * 80_000, None)
        for pid in supervisor.pool.worker_pids():
            os.kill(pid, signal.SIGKILL)
        record = await ended(supervisor, agent_id)
        assert record.evidence["ended_by"] == "worker_lost"
        fate = {"message_id": waiting.message_id, "state": "dead", "reason": "agent_ended"}
        assert supervisor.agents.full_view(record)["inputs"] == [fate]
        # What is known of one attempt is not forgotten by a sidecar that goes on with the next.
        assert list(LiveAgent(record, profile).inputs) == [waiting.message_id]


async def test_terminate_takes_the_whole_tree(tmp_path: Path) -> None:
    """A child in a session of its own outlived the answer to DELETE."""
    code = (
        "import os, signal, subprocess, sys\n"
        "child = subprocess.Popen([sys.executable, '-c', 'import signal; signal.pause()'], start_new_session=True)\n"
        "signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "print('child', child.pid, flush=True)\n"
        "while True: signal.pause()"
    )
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(python_agent(code))
        await running(supervisor, spawned.record.agent_id, "child")
        chunk = await supervisor.agents.output(spawned.record, "stdout", 0, 1000)
        child = int(chunk.data.split()[1])
        assert psutil.pid_exists(child)
        record = await supervisor.agents.terminate(spawned.record, timeout_s=0.2)
        assert (record.status, record.outcome, record.survivors["count"]) == ("killed", "killed", 0)
        assert not psutil.pid_exists(child)
        assert not psutil.pid_exists(record.process_id or 0)
        assert (await event_types(supervisor, record.agent_id))[-1] == "agent_killed"
        again = await supervisor.agents.terminate(record)
        view = supervisor.agents.full_view
        # all that is shown: whether its end was told may be noted between the two
        assert view(again) == view(await supervisor.agents.get(PROJECT, record.agent_id))


async def test_time_limit_ends_an_agent(tmp_path: Path) -> None:
    """An agent over its time went on, or was reported as killed by somebody."""
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(request("/bin/sleep", "600", timeout_seconds=0.3))
        record = await ended(supervisor, spawned.record.agent_id)
        assert (record.status, record.outcome) == ("timed_out", "timed_out")
        assert (await event_types(supervisor, record.agent_id))[-1] == "agent_failed"


async def test_full_pool_queues_then_refuses(tmp_path: Path) -> None:
    """A queued agent never started, or the queue had no end."""
    configured = settings(max_running=1, queue_size=1)
    async with running_supervisor(tmp_path, configured) as supervisor:
        first = await supervisor.agents.spawn(request("/bin/sleep", "600"))
        second = await supervisor.agents.spawn(request("/bin/echo", RESULT % ("success", "second")))
        assert (first.queued, second.queued, second.record.process_id) == (False, True, None)
        with pytest.raises(PoolSaturated) as caught:
            await supervisor.agents.spawn(request("/bin/echo", "third"))
        assert caught.value.retry_after_s
        assert caught.value.details["position"] == 2
        await supervisor.agents.terminate(first.record, force=True)
        record = await ended(supervisor, second.record.agent_id)
        assert record.status == "completed"


async def test_a_queued_agent_can_be_ended(tmp_path: Path) -> None:
    """DELETE of a queued agent waited for a process that did not exist."""
    async with running_supervisor(tmp_path, settings(max_running=1)) as supervisor:
        first = await supervisor.agents.spawn(request("/bin/sleep", "600"))
        second = await supervisor.agents.spawn(request("/bin/sleep", "600"))
        async with asyncio.timeout(PATIENCE_S):
            record = await supervisor.agents.terminate(second.record)
        assert (record.status, record.process_id) == ("killed", None)
        assert await event_types(supervisor, record.agent_id) == ["agent_spawned", "agent_killed"]
        await supervisor.agents.terminate(first.record, force=True)


async def test_queued_agents_outlive_the_sidecar(tmp_path: Path) -> None:
    """An acknowledged spawn was forgotten by a restart."""
    configured = settings(max_running=1)
    async with running_supervisor(tmp_path, configured) as supervisor:
        first = await supervisor.agents.spawn(request("/bin/sleep", "600"))
        second = await supervisor.agents.spawn(request("/bin/echo", RESULT % ("success", "late")))
        assert second.queued
    async with running_supervisor(tmp_path, configured) as supervisor:
        stopped = await supervisor.agents.get(PROJECT, first.record.agent_id)
        assert (stopped.status, stopped.evidence["ended_by"]) == ("killed", "shutdown")
        record = await ended(supervisor, second.record.agent_id)
        assert record.status == "completed"


async def test_what_a_killed_sidecar_left_is_settled(tmp_path: Path) -> None:
    """A process of an earlier sidecar went on unnoticed, and its record said running for ever."""
    agent_id, nonce = new_id("agt"), "0123456789abcdef0123456789abcdef"
    left = subprocess.Popen(
        [sys.executable, "-c", "import signal; signal.pause()"],
        env={**os.environ, "ORCHESTRATOR_AGENT_NONCE": nonce},
        start_new_session=True,
    )
    try:
        async with running_supervisor(tmp_path) as supervisor:
            record = AgentRecord(
                agent_id=agent_id,
                agent_type="python-specialist",
                issue_id="issue-1",
                project_id=PROJECT,
                status="running",
                request=request("/bin/sleep", "600"),
                created_at=1.0,
                updated_at=1.0,
                attempt=1,
                nonce=nonce,
                process_id=left.pid,
                start_ticks=start_ticks(left.pid),
            )
            await supervisor.storage.put_agent(record)
        async with running_supervisor(tmp_path) as supervisor:
            settled = await ended(supervisor, agent_id)
            assert (settled.status, settled.outcome, settled.survivors["count"]) == ("failed", "lost", 0)
            assert settled.usage == {"stdout_bytes": 0, "stderr_bytes": 0}, "nobody measured the rest"
            shown = supervisor.agents.full_view(settled)["usage"]
            assert shown == {**settled.usage, "cpu_seconds": None, "max_rss_bytes": None}
            assert await event_types(supervisor, agent_id) == ["agent_failed"]
            assert await asyncio.to_thread(left.wait, PATIENCE_S) in (-signal.SIGTERM, -signal.SIGKILL)
    finally:
        left.kill()
        await asyncio.to_thread(left.wait)


def start_ticks(pid: int) -> int:
    """Clock ticks from boot to the start of a process (field 22 of /proc/pid/stat)."""
    text = Path(f"/proc/{pid}/stat").read_text()
    return int(text.rpartition(")")[2].split()[19])


async def test_messages_and_events_reach_a_running_agent(tmp_path: Path) -> None:
    """An agent that waits for its colleagues was never woken, or got its own events back."""
    code = (
        "import json, sys\n"
        "print('ready', flush=True)\n"
        "for line in sys.stdin:\n"
        "    got = json.loads(line)\n"
        "    print('got', got['type'], got.get('text') or got.get('data'), flush=True)\n"
        "    if got['type'] == 'message':\n"
        "        print(json.dumps({'type':'ack','message_id':got['message_id']}), flush=True)\n"
        "        break"
    )
    async with running_supervisor(tmp_path) as supervisor:
        profile = supervisor.profiles.get("python-specialist")
        topic = profile.subscribes[0]
        spawned = await supervisor.agents.spawn(python_agent(code))
        await running(supervisor, spawned.record.agent_id, "ready")
        for publisher in ("colleague", spawned.record.agent_id):
            draft = EventDraft(event_type="e", publisher=publisher, topic=topic, data={"from": publisher})
            await supervisor.bus.publish(PROJECT, draft)
        await running(supervisor, spawned.record.agent_id, "colleague")
        receipt = supervisor.agents.send(spawned.record, "finish", {"why": 1})
        assert receipt.state == "queued"
        record = await ended(supervisor, spawned.record.agent_id)
        chunk = await supervisor.agents.output(record, "stdout", 0, 10_000)
        assert chunk.data.count(b"got event") == 1
        assert b"got message finish" in chunk.data
        with pytest.raises(AgentNotRunning):
            supervisor.agents.send(record, "too late", None)


@pytest.mark.parametrize("limits", [{}, {"output_file_bytes": 4096, "output_bytes": 1 << 20}])
async def test_output_is_followed_byte_for_byte(tmp_path: Path, limits: dict[str, int]) -> None:
    """A follower saw bytes twice, or missed the last ones of an agent that ended meanwhile."""
    code = "import sys\nfor n in range(20000): print(n)\nsys.stdout.flush()"
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(python_agent(code, runtime="text", limits=limits))
        seen = b""
        async with asyncio.timeout(PATIENCE_S):
            async for chunk in supervisor.agents.follow(spawned.record, "stdout", 0):
                seen += chunk.data
        assert seen == b"".join(b"%d\n" % n for n in range(20000))


async def test_spawn_refuses_and_leaves_nothing(tmp_path: Path) -> None:
    """A refused spawn left a record, a directory or a slot behind."""
    plain_file = tmp_path / "not-executable"
    plain_file.write_text("x")
    async with running_supervisor(tmp_path) as supervisor:
        for bad, error in (
            (request("no-such-program-here"), SpawnFailed),
            (request(str(plain_file)), SpawnFailed),
            (request(str(tmp_path / "missing")), SpawnFailed),
            (request("./missing-in-workspace"), SpawnFailed),
            (request("/bin/true", workspace="worktree"), SpawnFailed),
            (request("/bin/true", agent_type="no-such-role"), UnknownAgentType),
            (request("/bin/true", environment={"LD_PRELOAD": "x"}), BadRequest),
            (request("/bin/true", workspace="cloud"), BadRequest),
            (request("/bin/true", runtime="cobol"), BadRequest),
            (request("/bin/true", restart="sometimes"), BadRequest),
            (request("/bin/true", timeout_seconds=-1), BadRequest),
            (request("/bin/true", limits={"cpu": 1}), BadRequest),
            (request("/bin/true", context_requirements=("everything",)), BadRequest),
            (request("/bin/true", task=" "), BadRequest),
        ):
            with pytest.raises(error) as caught:
                await supervisor.agents.spawn(bad)
            assert str(caught.value)
        assert supervisor.pool.stats().running == supervisor.pool.stats().queued == 0
        assert not supervisor.registry.live
        agents = (await supervisor.agents.query(PROJECT, AgentQuery())).agents
        assert {agent.status for agent in agents} <= {"failed"}
        directories = tmp_path / "storage" / "agents"
        assert not directories.exists() or not list(directories.iterdir())
        with pytest.raises(NoSuchAgent):
            await supervisor.agents.get(PROJECT, "agt_none")
        with pytest.raises(UnknownAgent):
            await supervisor.pool.kill("agt_none")


@pytest.mark.parametrize("kind", ["shared", "scratch", "worktree"])
async def test_a_project_that_is_gone_is_said_before_anything_is_made(tmp_path: Path, kind: str) -> None:
    """A spawn into a directory that somebody had removed left a failed agent, or told of the context instead."""
    async with running_supervisor(tmp_path) as supervisor:
        shutil.rmtree(tmp_path / "project")
        with pytest.raises(SpawnFailed, match="restore it or register the project anew") as caught:
            await supervisor.agents.spawn(request("/bin/true", workspace=kind))
        assert caught.value.slug == "workspace_failed"
        assert not (await supervisor.agents.query(PROJECT, AgentQuery())).agents


@pytest.mark.parametrize("kind", ["shared", "scratch", "worktree"])
async def test_a_project_that_goes_while_agents_wait_is_said(tmp_path: Path, kind: str) -> None:
    """An agent that had waited for its slot failed with the context's words, which name no way out."""
    async with running_supervisor(tmp_path, settings(max_running=1)) as supervisor:
        first = await supervisor.agents.spawn(request("/bin/sleep", "600"))
        second = await supervisor.agents.spawn(request("/bin/true", workspace=kind))
        shutil.rmtree(tmp_path / "project")
        await supervisor.agents.terminate(first.record, force=True)
        record = await ended(supervisor, second.record.agent_id)
        assert (record.status, "restore it or register the project anew" in (record.error or "")) == ("failed", True)


async def test_files_are_complete_before_the_start(tmp_path: Path) -> None:
    """An agent that read its context at once found a torn file, or one that others could read."""
    code = (
        "import json, os, pathlib, stat\n"
        "d = pathlib.Path(os.environ['AGENT_CONTEXT_FILE']).parent\n"
        "names = sorted(p.name for p in d.iterdir() if p.suffix in ('.json', '.md'))\n"
        "modes = {oct(stat.S_IMODE(p.stat().st_mode)) for p in d.iterdir() if p.is_file()}\n"
        "context = json.loads((d / 'context.json').read_text())\n"
        "mcp = json.loads((d / 'mcp.json').read_text())\n"
        "print(json.dumps([names, sorted(modes), context['agent_type'], list(mcp), oct(d.stat().st_mode & 0o777)]))"
    )
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(python_agent(code, runtime="text"))
        record = await ended(supervisor, spawned.record.agent_id)
        result = await supervisor.results.get(PROJECT, record.result_id or "")
        names, modes, agent_type, servers, mode = json.loads(result.result["output"])
        assert names == ["CONTEXT.md", "context.json", "mcp.json", "profile.json", "task.md"]
        assert (modes, agent_type, servers, mode) == (["0o600"], "python-specialist", ["mcpServers"], "0o700")

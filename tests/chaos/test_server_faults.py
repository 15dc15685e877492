"""Faults of processes, storage and time, caused under a whole running sidecar."""

from __future__ import annotations

import asyncio
import os
import signal
import threading
from pathlib import Path
from typing import Any

import httpx
import msgspec
import psutil
import pytest

from orchestrator.config import PoolSettings
from orchestrator.storage import SqliteStorage
from tests.support.agents import agent, await_room, ended, say_result, spawn
from tests.support.disks import NoSmallDisk, fill, small_disk
from tests.support.processes import assert_no_survivors
from tests.support.repo import sample_repository
from tests.support.server import STOP_S, Server, orchestrator
from tests.support.waiting import until

pytestmark = pytest.mark.chaos


def ends(server: Server, agent_id: str) -> list[Any]:
    """The end events of an agent, oldest first."""
    types = "agent_completed,agent_failed,agent_killed"
    events = server.api().get("/api/events", type=types, limit=1000).expect(200).json["events"]
    return [event["data"] for event in events if event["data"]["agent_id"] == agent_id]


def keeper_of(server: Server, pid: int) -> psutil.Process | None:
    """The pool worker below which a process runs; None when either is gone."""
    for child in psutil.Process(server.pid).children():
        try:
            if pid in [below.pid for below in child.children(recursive=True)]:
                return child
        except psutil.NoSuchProcess:
            continue  # one that is being replaced just now
    return None


def test_fault_7_a_crash_loop_ends_in_quarantine(server: Server, issue: str) -> None:
    """An agent that exits at once was started again for ever, or stopped without anybody being told."""
    api = server.api()
    spawned = spawn(api, issue, "exit 9", restart="always")
    record = ended(api, spawned["agent_id"], timeout_s=90)
    limit = PoolSettings().restart_limit
    assert (record["status"], record["attempt"], record["exit_code"]) == ("failed", limit + 1, 9)
    assert [data["attempt"] for data in ends(server, spawned["agent_id"])] == list(range(1, limit + 2))
    quarantined = api.get("/api/events/wait/agent_quarantined", timeout=10_000).expect(200).json["events"]
    assert [event["data"]["agent_id"] for event in quarantined] == [spawned["agent_id"]]


def test_fault_16_attempts_are_counted_over_the_deaths_of_workers(server: Server, issue: str) -> None:
    """A task that takes its worker down each time was tried without end, since nobody lived to count."""
    api = server.api()
    spawned = spawn(api, issue, "sleep 300", restart="always")
    killed: set[int] = set()

    def over() -> Any:
        record = agent(api, spawned["agent_id"])
        if record["status"] in ("failed", "killed", "completed"):
            return record
        if record["status"] == "running" and record["attempt"] not in killed:
            worker = keeper_of(server, record["process_id"])
            if worker is not None:
                killed.add(record["attempt"])
                worker.kill()
        return None

    record = until(over, timeout_s=90, what="the sidecar gives up")
    assert record["status"] == "failed"
    assert record["attempt"] == max(killed) == len(killed)
    assert [data["attempt"] for data in ends(server, spawned["agent_id"])] == sorted(killed)
    assert ended(api, spawn(api, issue, say_result())["agent_id"])["status"] == "completed"


def test_fault_17_nothing_of_a_stale_attempt_speaks_any_more(server: Server, issue: str, tmp_path: Path) -> None:
    """What an attempt left behind went on beside the next one, and gave its results as that one's."""
    stale, first = tmp_path / "stale", tmp_path / "first"
    helper = f"setsid sh -c 'while :; do echo $$ >> {stale}; sleep 0.05; done' & "
    tokens = tmp_path / "tokens"
    script = (
        f'echo "$JWT_TOKEN" >> {tokens}; '
        f"if [ ! -e {first} ]; then {helper} touch {first}; while [ ! -s {stale} ]; do sleep 0.05; done; exit 1; fi; "
        f"{say_result(decisions=['second'])}; sleep 300"
    )
    api = server.api()
    spawned = spawn(api, issue, script, restart="on-failure")
    agent_id = spawned["agent_id"]

    def second() -> Any:
        record = agent(api, agent_id)
        return record if (record["attempt"], record["status"]) == (2, "running") else None

    until(second, timeout_s=60, what=lambda: f"the second attempt runs: {agent(api, agent_id)}")
    said = stale.read_bytes()
    assert not psutil.pid_exists(int(said.split()[0]))
    older, newer = tokens.read_text().split()
    body = {"agent_type": "python-specialist", "issue_id": issue, "result": {"status": "success"}}
    for token in {spawned["jwt_token"], older}:
        server.api(token=token).post("/api/results", body).refused(401, "AUTH_001")
    server.api(token=newer).post("/api/results", body).expect(201)
    api.delete(f"/api/agents/{agent_id}", force="true").expect(200)
    assert stale.read_bytes() == said
    server.api(token=newer).post("/api/results", body).refused(401, "AUTH_001")


def test_fault_22_kills_at_random_moments_lose_no_acknowledged_event(
    server: Server, issue: str, chaos_seed: int, chaos_rounds: int
) -> None:
    """A kill between the answer and the disk took acknowledged events along (three kills a round)."""
    acknowledged: dict[str, int] = {}
    for kill in range(3 * chaos_rounds):
        wanted = len(acknowledged) + 5 + (chaos_seed * 7919 + kill * 104_729) % 40
        publisher = threading.Thread(target=publish_until_gone, args=(server.api(), issue, kill, acknowledged))
        publisher.start()
        until(lambda wanted=wanted: len(acknowledged) >= wanted, what="events are acknowledged")  # type: ignore[misc]
        os.kill(server.pid, signal.SIGKILL)
        publisher.join(30)
        server.exited()
        server.restart()
    found: dict[str, int] = {}
    cursor: Any = None
    while True:
        page = server.api().get("/api/events", type=issue, since=cursor, limit=1000).expect(200).json
        found |= {event["event_id"]: event["data"]["n"] for event in page["events"]}
        if not page["events"] or page["next_cursor"] == cursor:
            break
        cursor = page["next_cursor"]
    assert {key: found.get(key) for key in acknowledged} == acknowledged


def publish_until_gone(api: Any, event_type: str, writer: int, acknowledged: dict[str, int]) -> None:
    """Publish one event after the other until the sidecar is gone."""
    number = writer * 1_000_000
    while True:
        number += 1
        try:
            answer = api.post(f"/api/events/{event_type}", {"topic": "testing", "data": {"n": number}})
        except httpx.HTTPError:
            return
        acknowledged[answer.expect(202).json["event_id"]] = number


def test_fault_23_a_second_sidecar_is_refused_with_the_pid_of_the_first(server: Server) -> None:
    """Two supervisors on one storage start every agent twice."""
    project = next(iter(server.projects.values()))
    done = orchestrator("serve", "--port", "0", "--storage", server.storage, "--project", project)
    assert done.returncode != 0
    assert str(server.pid) in done.stdout + done.stderr
    server.anonymous().get("/health").expect(200)


def test_faults_25_and_26_open_waits_and_a_second_sigterm(server: Server, issue: str) -> None:
    """Open long polls held the shutdown, or a second SIGTERM cut it off and left agents behind."""
    api, waiting = server.api(), server.api()
    spawn(api, issue, "trap '' TERM; while :; do sleep 1; done")
    answers: list[Any] = []

    def poll() -> None:
        try:
            answers.append(waiting.get("/api/events/wait/never", timeout=300_000).status)
        except httpx.HTTPError as error:
            answers.append(error)

    thread = threading.Thread(target=poll)
    thread.start()
    until(lambda: api.get("/status").json["events"]["active_subscriptions"] >= 1, what="the poll waits")
    for _ in range(3):
        os.kill(server.pid, signal.SIGTERM)
    assert server.process is not None
    code = server.process.wait(STOP_S)
    thread.join(10)
    assert code == 0, server.diagnosis()
    assert len(answers) == 1
    server.exited()
    assert_no_survivors(str(server.storage), timeout_s=0)


def test_fault_34_a_full_disk_refuses_work_answers_reads_and_recovers(tmp_path: Path, issue: str) -> None:
    """A full disk was a 500, stopped the reading too, or needed a restart to be over."""
    try:
        with (
            small_disk(tmp_path / "storage", 48 << 20) as disk,
            Server(disk, {"sample": sample_repository(tmp_path / "sample")}) as server,
        ):
            check_full_disk(server, disk, issue)
    except NoSmallDisk as reason:
        pytest.skip(str(reason))


def test_fault_34_a_start_on_a_full_disk_serves_reads_and_settles_later(tmp_path: Path, issue: str) -> None:
    """A sidecar that died on a full disk did not start again before somebody had made room by hand."""
    try:
        with (
            small_disk(tmp_path / "storage", 48 << 20) as disk,
            Server(disk, {"sample": sample_repository(tmp_path / "sample")}) as server,
        ):
            check_start_on_full_disk(server, disk, issue)
    except NoSmallDisk as reason:
        pytest.skip(str(reason))


def check_start_on_full_disk(server: Server, disk: Path, issue: str) -> None:
    """Kill it on the full disk, start it there, read, give room, and look whether it has caught up."""
    body = {"agent_type": "python-specialist", "issue_id": issue, "result": {"status": "success"}}
    kept = server.api().post("/api/results", body).expect(201).json["id"]
    lost = spawn(server.api(), issue, "sleep 300")["agent_id"]
    over = ended(server.api(), spawn(server.api(), issue, say_result())["agent_id"])["agent_id"]
    until(lambda: ends(server, over), what="its end is told")
    server.kill9()
    assert_no_survivors(str(disk), timeout_s=10)  # they write their last words for a moment
    asyncio.run(forget_that_the_end_was_told(disk, over))
    filler = fill(disk)
    (disk / "orchestrator.db-shm").unlink(missing_ok=True)  # made anew at each start, which takes room
    fill(disk, "more")  # what the killed one gave back
    server.restart()
    api = server.api()
    api.get(f"/api/results/{kept}").expect(200)
    assert agent(api, lost)["status"] in ("running", "stopping", "failed")
    assert int((disk / "sidecar.pid").read_text()) == server.pid
    (disk / "more").unlink()
    filler.unlink()
    record = ended(api, lost)
    assert (record["status"], record["outcome"], record["survivors"]["count"]) == ("failed", "lost", 0)
    assert [data["attempt"] for data in ends(server, lost)] == [1]
    until(lambda: server.cli("status", environment={"ORCHESTRATOR_URL": ""}).returncode == 0, what="commands find it")

    def has_room_for_the_next() -> bool:
        api.post("/api/results", body).expect(201, 503)  # the disk is measured twice a second
        return (disk / "reserve").stat().st_size == 1 << 20

    until(has_room_for_the_next, what="the next such start has its room")
    await_room(api)
    assert ended(api, spawn(api, issue, say_result())["agent_id"])["status"] == "completed"


async def forget_that_the_end_was_told(storage: Path, agent_id: str) -> None:
    """Leave an agent as a kill between the storing of its end and the telling would."""
    database = SqliteStorage(storage)
    await database.open()
    record = await database.find_agent(agent_id)
    assert record is not None
    await database.put_agent(msgspec.structs.replace(record, is_end_published=False))
    await database.close()


def check_full_disk(server: Server, disk: Path, issue: str) -> None:
    """Fill, look, give back, look."""
    api = server.api()
    body = {"agent_type": "python-specialist", "issue_id": issue, "result": {"status": "success"}}
    kept = api.post("/api/results", body).expect(201).json["id"]
    running = spawn(api, issue, "sleep 300")["agent_id"]
    filler = fill(disk)

    def refused() -> Any:
        answer = api.post("/api/results", {**body, "result": {"status": "success", "notes": "x" * 20_000}})
        assert answer.status in (201, 503), answer
        return answer if answer.status == 503 else None

    until(refused, what="a write is refused").refused(503, "STR_001")
    api.get(f"/api/results/{kept}").expect(200)
    api.get("/health").expect(200, 503)
    assert agent(api, running)["status"] == "running"
    filler.unlink()
    until(lambda: api.post("/api/results", body).status == 201, timeout_s=30, what="it recovers by itself")
    assert ended(api, spawn(api, issue, say_result())["agent_id"])["status"] == "completed"
    api.delete(f"/api/agents/{running}", force="true").expect(200)

"""Disks that stay full: every request is answered, what cannot be recorded is when there is room again."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path
from typing import Any

import psutil
import pytest

from tests.support.agents import agent, await_room, ended, say_result, spawn
from tests.support.disks import NoSmallDisk, fill, free_bytes, leave, small_disk
from tests.support.http import Answer, Api
from tests.support.pools import is_living
from tests.support.repo import sample_repository
from tests.support.server import Server
from tests.support.waiting import until

pytestmark = pytest.mark.chaos

#: No request may take longer on a full disk.
ANSWER_S = 15.0
DISK_BYTES = 48 << 20
#: What is kept of such a disk for what is under way: a tenth.
RESERVE_BYTES = DISK_BYTES // 10
#: A step of a run that works until a file called ``go`` is there.
ROLE = """---
name: {name}
description: {name} of this test
category: support
permission_class: coding
runtime: jsonl
command: [/bin/sh, -c, 'while [ ! -e go ]; do sleep 0.1; done']
---
Wait.
"""


@pytest.fixture
def on_small_disk(tmp_path: Path) -> Iterator[Server]:
    """A sidecar whose storage is a small file system of its own, and whose project has roles that wait for ``go``."""
    project = sample_repository(tmp_path / "sample")
    roles = project / ".orchestrator" / "profiles"
    roles.mkdir(parents=True)
    for name in ("chief-architect", "code-reviewer"):
        (roles / f"{name}.md").write_text(ROLE.format(name=name))
    try:
        with small_disk(tmp_path / "storage", DISK_BYTES) as disk, Server(disk, {"sample": project}) as server:
            yield server
    except NoSmallDisk as reason:
        pytest.skip(str(reason))


def exhaust(server: Server, api: Api, issue: str) -> Path:
    """Fill the disk until storage takes nothing more, however small; the file to delete."""
    filler = fill(server.storage)
    body = {"agent_type": "python-specialist", "issue_id": issue, "result": {"status": "success"}}
    row: list[int] = []

    def refused() -> bool:
        row.append(api.post("/api/results", body).expect(201, 503).status)
        return row[-5:] == [503] * 5

    until(refused, timeout_s=60, what="storage takes nothing more")
    return filler


def told_why(answer: Answer) -> dict[str, Any]:
    """The error of an answer that a full disk is the reason of, which it has to name."""
    error = answer.refused(503, "STR_001")
    assert "disk is full" in error["message"], error
    assert "Retry-After" in answer.headers
    return error


def end_events(api: Api, agent_id: str) -> list[Any]:
    """The data of an agent's end events."""
    types = "agent_completed,agent_failed,agent_killed"
    events = api.get("/api/events", type=types, limit=1000).expect(200).json["events"]
    return [event["data"] for event in events if event["data"]["agent_id"] == agent_id]


def unended(api: Api) -> list[str]:
    """The agents whose end is not recorded."""
    agents = api.get("/api/agents", limit=1000).expect(200).json["agents"]
    return [one["agent_id"] for one in agents if not one["ended_at"]]


def test_an_end_that_finds_no_room_is_answered_and_recorded_later(on_small_disk: Server, issue: str) -> None:
    """DELETE on a disk that stayed full was never answered, and the agent was shown as running though it was gone."""
    server = on_small_disk
    with Api(server.url, server.token(), timeout_s=ANSWER_S) as api:
        running = spawn(api, issue, "sleep 300")
        agent_id, pid = running["agent_id"], running["process_id"]
        filler = exhaust(server, api, issue)
        for _ in range(2):
            error = told_why(api.delete(f"/api/agents/{agent_id}", force="true"))
            assert error["details"] == {"agent_id": agent_id, "has_process": False}
            assert not psutil.pid_exists(pid)
        shown = agent(api, agent_id)
        assert (shown["status"], shown["process_id"], shown["exit_code"]) == ("stopping", None, None)
        assert "disk is full" in shown["unrecorded"]
        assert end_events(api, agent_id) == []
        filler.unlink()
        record = ended(api, agent_id)
        assert (record["status"], record["survivors"]["count"]) == ("killed", 0)
        assert "unrecorded" not in record
        assert [data["status"] for data in end_events(api, agent_id)] == ["killed"]
        assert api.delete(f"/api/agents/{agent_id}").expect(200).json["status"] == "killed"
    assert "Traceback" not in server.diagnosis()


def test_every_request_is_answered_on_a_disk_that_stays_full(on_small_disk: Server, issue: str) -> None:
    """Requests that waited for a record waited until their clients gave up."""
    server = on_small_disk
    with Api(server.url, server.token(), timeout_s=ANSWER_S) as api:
        run = {"issue_id": issue, "task": "look", "workflow": "quick"}
        run_id = api.post("/api/runs", run).expect(201).json["run_id"]
        running = spawn(api, issue, "while read -r line; do echo got; done")["agent_id"]
        until(lambda: api.get(f"/api/runs/{run_id}").json["steps"][0]["status"] == "running", what="the run works")
        filler = exhaust(server, api, issue)
        order = {"agent_type": "python-specialist", "issue_id": issue, "task": "t", "command": ["/bin/true"]}
        told_why(api.post("/api/agents/spawn", order))
        told_why(api.post("/api/events/storm", {"topic": "testing", "data": {}}))
        told_why(api.post("/api/runs", run))
        told_why(api.post(f"/api/runs/{run_id}/cancel"))
        api.post(f"/api/agents/{running}/input", {"text": "hello"}).expect(202)
        api.post("/api/pool/pause").expect(200)
        api.post("/api/pool/resume").expect(200)
        for path in ("/api/agents", f"/api/agents/{running}", f"/api/runs/{run_id}", "/api/results", "/api/events"):
            api.get(path).expect(200)
        assert api.get("/health").expect(200).json["status"] == "degraded"
        until(lambda: agent(api, running)["inputs"][0]["state"] == "written", what="the message is written")
        filler.unlink()
        until(lambda: api.get(f"/api/runs/{run_id}").json["status"] == "cancelled", what="the run is cancelled")
        await_room(api)
        assert ended(api, spawn(api, issue, say_result())["agent_id"])["status"] == "completed"
        # What was refused leaves nothing behind that runs or waits, once its end has been recorded.
        until(lambda: unended(api) == [running], what=lambda: f"only {running} lives: {unended(api)}")
        api.delete(f"/api/agents/{running}", force="true").expect(200)


def test_a_start_on_a_full_disk_does_not_wait_for_a_runs_agents(on_small_disk: Server, issue: str) -> None:
    """A sidecar that was killed amid a run did not start again on a full disk: it waited for its agents' ends."""
    server = on_small_disk
    api = server.api()
    run = {"issue_id": issue, "task": "look", "workflow": "quick"}
    run_id = api.post("/api/runs", run).expect(201).json["run_id"]

    def first_agent() -> Any:
        agents = api.get("/api/agents", issue_id=issue, status="running").expect(200).json["agents"]
        return agents[0] if agents else None

    lost = until(first_agent, what="the run's first agent works")
    filler = exhaust(server, api, issue)
    server.kill9()
    until(lambda: not is_living(lost["process_id"]), what="its workers end its agents")
    more = fill(server.storage, "more")
    server.restart()
    api = server.api()
    assert api.get(f"/api/runs/{run_id}").expect(200).json["status"] == "running"
    (server.projects["sample"] / "go").touch()
    more.unlink()
    filler.unlink()
    until(
        lambda: api.get(f"/api/runs/{run_id}").json["status"] == "completed",
        timeout_s=60,
        what=lambda: f"the run goes on: {api.get(f'/api/runs/{run_id}').json}",
    )
    ended(api, lost["agent_id"])
    assert end_events(api, lost["agent_id"])[0]["outcome"] == "lost"


def test_floods_leave_the_sidecar_its_room(on_small_disk: Server, issue: str) -> None:
    """Agents that wrote without end took the last block, and their own ends could not be recorded any more."""
    server, api = on_small_disk, on_small_disk.api()
    waits, flood = "while [ ! -e go ]; do sleep 0.1; done", "yes a flood without an end | head -c 20000000"
    scripts = [flood, f"{flood} >&2", "head -c 20000000 /dev/zero", f"{flood}; {say_result()}"]
    floods = [
        spawn(api, issue, f"{waits}; {script}", runtime=runtime)["agent_id"]
        for script in scripts
        for runtime in ("jsonl", "text")
    ]
    (server.projects["sample"] / "go").touch()
    records = [ended(api, agent_id, timeout_s=60) for agent_id in floods]
    # Which of them still finds room is chance; together they wanted three times the disk.
    cut = [why for record in records for why in record["evidence"].get("truncated_by", {}).values()]
    assert cut
    assert set(cut) == {"disk"}
    assert {record["status"] for record in records} == {"completed"}
    assert {record["survivors"]["count"] for record in records} == {0}
    # What is missing of the reserve are the agents' ends and results, with what tells of them; none of them is lost.
    assert free_bytes(server.storage) > RESERVE_BYTES // 4
    for record in records:
        api.get(f"/api/results/{record['result_id']}").expect(200)
        for stream, truncated_at in record["evidence"].get("truncated_at", {}).items():
            kept = api.get(f"/api/agents/{record['agent_id']}/output", stream=stream).expect(200)
            assert int(kept.headers["X-Truncated-At"]) == truncated_at


def test_new_agents_are_refused_before_the_disk_is_full(on_small_disk: Server, issue: str) -> None:
    """Contexts of new agents took the room that the running ones needed for their ends."""
    server, api = on_small_disk, on_small_disk.api()
    running = [spawn(api, issue, "sleep 300")["agent_id"] for _ in range(5)]
    api.post("/api/pool/pause").expect(200)
    accepted = spawn(api, issue, say_result())
    assert accepted["queued"]
    filler = leave(server.storage, RESERVE_BYTES // 3)

    def is_closed() -> bool:
        pool = api.get("/api/pool").expect(200).json
        return (pool["limited_by"], pool["capacity"]) == ("disk", pool["running"])

    until(is_closed, what="the pool takes no more")
    order = {"agent_type": "python-specialist", "issue_id": issue, "task": "t", "command": ["/bin/true"]}
    error = told_why(api.post("/api/agents/spawn", order))
    assert error["error"] == "disk_reserve_reached"
    assert str(server.storage) in error["message"]
    assert error["details"]["free_bytes"] < error["details"]["reserve_bytes"] == RESERVE_BYTES
    result = {"agent_type": "python-specialist", "issue_id": issue, "result": {"status": "success"}}
    # The disk may have been measured when it was not yet so full.
    until(lambda: api.post("/api/results", result).status == 503, what="results are refused too")
    told_why(api.post("/api/results", result))
    told_why(api.post("/api/events/storm", {"topic": "testing", "data": {}}))
    api.post("/api/pool/resume").expect(200)
    # What is under way goes on: ends are recorded and told.
    for agent_id in running:
        assert api.delete(f"/api/agents/{agent_id}", force="true").expect(200).json["status"] == "killed"
        assert len(end_events(api, agent_id)) == 1
    assert agent(api, accepted["agent_id"])["status"] == "queued"
    filler.unlink()
    assert ended(api, accepted["agent_id"])["status"] == "completed"
    api.post("/api/results", result).expect(201)

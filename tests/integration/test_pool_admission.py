"""Closing and opening the pool's door, as an operator does for maintenance."""

from __future__ import annotations

import json

from tests.support.agents import agent, ended, say_result, shell, spawn
from tests.support.server import Server


def test_a_paused_pool_queues_what_is_spawned(server: Server, issue: str) -> None:
    """A pool that was to rest went on starting agents, or lost those that came meanwhile."""
    api = server.api()
    assert api.post("/api/pool/pause", {}).expect(200).json["state"] == "paused"
    waiting = spawn(api, issue, say_result())
    assert (waiting["queued"], waiting["process_id"]) == (True, None)
    assert api.get("/health").expect(200).json["status"] == "degraded"
    shown = api.get("/api/pool").expect(200).json
    assert (shown["running"], shown["queued"], shown["is_drained"]) == (0, 1, False)
    assert api.post("/api/pool/resume", {}).expect(200).json["state"] == "open"
    assert ended(api, waiting["agent_id"])["status"] == "completed"


def test_a_drained_pool_refuses_and_comes_back_with_its_queue(server: Server, issue: str) -> None:
    """Maintenance had to kill agents, since the pool could not be run empty; or it lost what was queued."""
    api = server.api()
    running = spawn(api, issue, "sleep 300", restart="always")["agent_id"]
    assert server.cli("pool", "drain", "--wait", "0.1").returncode == 1
    body = {"agent_type": "python-specialist", "issue_id": issue, "task": "x", "command": shell("true")}
    answer = api.post("/api/agents/spawn", body)
    assert answer.refused(429, "AGT_005")["error"] == "pool_draining"
    assert int(answer.headers["Retry-After"]) >= 1
    assert agent(api, running)["status"] == "running"
    api.delete(f"/api/agents/{running}", force="true").expect(200)
    done = server.cli("pool", "drain", "--wait", "30", "--format", "json")
    assert (done.returncode, json.loads(done.stdout)["is_drained"]) == (0, True)
    assert server.cli("pool", "resume").returncode == 0
    assert ended(api, spawn(api, issue, say_result())["agent_id"])["status"] == "completed"


def test_a_restart_waits_for_a_drained_pool(server: Server, issue: str) -> None:
    """An agent that was to be started again while the pool drained failed, or was started all the same."""
    api = server.api()
    agent_id = spawn(api, issue, f"sleep 1; {say_result(status='failed')}; exit 3", restart="on-failure")["agent_id"]
    api.post("/api/pool/drain", {}).expect(200)
    api.get("/api/events/wait/agent_restarted", timeout=20_000).expect(200)
    record = agent(api, agent_id)
    assert (record["status"], record["attempt"], record["process_id"]) == ("queued", 1, None)
    api.post("/api/pool/resume", {}).expect(200)
    assert ended(api, agent_id, timeout_s=60)["attempt"] > 1


def test_only_operators_touch_the_pool(server: Server) -> None:
    """Any agent could have stopped all others."""
    api = server.api("chief-architect")
    api.get("/api/pool").refused(403, "AUTH_003")
    for name in ("pause", "drain", "resume"):
        api.post(f"/api/pool/{name}", {}).refused(403, "AUTH_003")

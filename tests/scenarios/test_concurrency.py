"""119 agents of all roles at once: every result right, each the agent's own."""

from __future__ import annotations

import asyncio
import time
from typing import Any

import httpx
import pytest

from tests.support.agents import ECHO_SCRIPT, FINAL, shell
from tests.support.processes import assert_no_survivors
from tests.support.roster import roster
from tests.support.server import Server


async def spawn_all(server: Server, issue: str) -> dict[str, Any]:
    """Spawn every role at the same time; agent id -> (role, number)."""
    headers = {"Authorization": f"Bearer {server.token()}"}
    async with httpx.AsyncClient(base_url=server.url, headers=headers, timeout=120, trust_env=False) as client:

        async def one(number: int, agent_type: str) -> tuple[str, tuple[str, int]]:
            body = {
                "agent_type": agent_type,
                "issue_id": issue,
                "task": f"agent number {number}",
                "command": shell(ECHO_SCRIPT),
                "environment": {"NUMBER": str(number)},
            }
            answer = await client.post("/api/agents/spawn", json=body)
            assert answer.status_code == 201, answer.text
            return answer.json()["agent_id"], (agent_type, number)

        return dict(await asyncio.gather(*(one(number, role.agent_type) for number, role in enumerate(roster()))))


def check_all(server: Server, issue: str, spawned: dict[str, Any]) -> None:
    """Every agent completed with the one result that is its own, and one end event."""
    api = server.api()
    deadline = time.monotonic() + 110
    while True:
        records = api.get("/api/agents", issue_id=issue, limit=1000).expect(200).json["agents"]
        if len(records) == len(spawned) and all(record["status"] in FINAL for record in records):
            break
        assert time.monotonic() < deadline, sorted(record["status"] for record in records)
        time.sleep(0.2)
    assert {record["status"] for record in records} == {"completed"}
    rows = {row["id"]: row for row in api.get("/api/results", issue_id=issue, limit=1000).expect(200).json["results"]}
    assert len(rows) == len(spawned) == 119
    for record in records:
        agent_type, number = spawned[record["agent_id"]]
        row = rows[record["result_id"]]
        assert (row["agent_id"], row["agent_type"]) == (record["agent_id"], agent_type)
        assert row["result"]["artifacts"] == {
            "id": record["agent_id"],
            "type": agent_type,
            "issue": issue,
            "number": str(number),
        }
    page = api.get("/api/events", type="agent_completed", filter=f"issue_id:{issue}", limit=1000).expect(200).json
    assert sorted(event["data"]["agent_id"] for event in page["events"]) == sorted(spawned)
    for agent_id in spawned:
        assert (server.storage / "agents" / agent_id / "stdout.log").stat().st_size > 0
    # Each agent's environment names its context file, below this directory.
    assert_no_survivors(str(server.storage / "agents"), timeout_s=5)


@pytest.mark.critical
def test_06_119_agents_at_once(server: Server, issue: str) -> None:
    """Concurrency: descriptors, admission, the relay and group commit under the load that the mission names."""
    check_all(server, issue, asyncio.run(spawn_all(server, issue)))


@pytest.mark.load
def test_06_119_agents_at_once_five_times(server: Server, issue: str) -> None:
    """What works once may leave something behind that breaks the fifth time."""
    for number in range(5):
        name = f"{issue}-{number}"
        check_all(server, name, asyncio.run(spawn_all(server, name)))

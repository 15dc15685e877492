"""A wall clock that is set while agents run."""

from __future__ import annotations

import sys
import time
from datetime import datetime
from pathlib import Path
from typing import Any

import pytest

from orchestrator.models import AgentRecord
from orchestrator.supervisor import Supervisor
from tests.support.agents import agent, say_result, spawn
from tests.support.agents import ended as ended_by_api
from tests.support.clocks import WallClock
from tests.support.http import Api
from tests.support.repo import sample_repository
from tests.support.server import Server
from tests.support.supervisors import PROJECT, ended, request, running_supervisor, settings

pytestmark = pytest.mark.chaos

DAY_S = 86_400.0


async def spawned(supervisor: Supervisor, *command: str, **fields: object) -> AgentRecord:
    """A started agent."""
    return (await supervisor.agents.spawn(request(*command, **fields))).record


@pytest.mark.parametrize("days", [1.0, -1.0])
async def test_fault_78_a_wall_clock_set_by_a_day_ends_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, days: float
) -> None:
    """All agents were timed out at once, or none ever again, and quarantine was for ever or for nobody.

    Here a patched clock of the supervisor's stands for it, which works everywhere; below, real processes are under one.
    """
    true_time = time.time
    offset_s = 0.0
    # In this process only: workers use no wall clock, which test_pool_uses_no_wall_clock holds them to.
    monkeypatch.setattr(time, "time", lambda: true_time() + offset_s)
    configured = settings(restart_limit=1, restart_window_s=600.0)
    async with running_supervisor(tmp_path, configured) as supervisor:
        long = await spawned(supervisor, "/bin/sleep", "600", timeout_seconds=3600)
        short = await spawned(supervisor, "/bin/sleep", "600", timeout_seconds=1.0)
        offset_s = days * DAY_S
        assert (await ended(supervisor, short.agent_id)).status == "timed_out"
        failing = await spawned(supervisor, "/bin/false", restart="always")
        assert ((await ended(supervisor, failing.agent_id)).status, failing.agent_type) == (
            "failed",
            "python-specialist",
        )
        assert (await supervisor.agents.get(PROJECT, failing.agent_id)).attempt == 2
        offset_s = 0.0
        again = await spawned(supervisor, "/bin/false", restart="always")
        assert (await ended(supervisor, again.agent_id)).attempt == 1, "the window is still that of the clock that runs"
        assert (await supervisor.agents.get(PROJECT, long.agent_id)).status == "running"
        record = await supervisor.agents.terminate(await supervisor.agents.get(PROJECT, long.agent_id))
        assert (record.status, record.survivors["count"]) == ("killed", 0)


@pytest.mark.skipif(sys.platform != "linux", reason="the clock of a process is set before by LD_PRELOAD")
@pytest.mark.parametrize("days", [1, -1])
def test_fault_78_a_whole_sidecar_under_a_clock_set_by_a_day(tmp_path: Path, issue: str, days: int) -> None:
    """A clock that a process reads elsewhere than the supervisor's own code does (SQLite, a worker) was not tried.

    Tokens are good and events are kept by the wall clock: after the step the operator makes a new token, as users
    would, and what was published while the clock was a day behind is over its retention when it is right again.
    """
    clock = WallClock(tmp_path)
    project = sample_repository(tmp_path / "sample")
    with Server(tmp_path / "storage", {"sample": project}, environment=clock.environment) as server:
        api = server.api()
        long = spawn(api, issue, "exec sleep 600", timeout_seconds=3600)["agent_id"]
        short = spawn(api, issue, "exec sleep 600", timeout_seconds=3)["agent_id"]
        queued_at = seconds(api.get("/health").expect(200).json["timestamp"])
        clock.set(days * int(DAY_S))
        shift_s = seconds(api.get("/health").expect(200).json["timestamp"]) - queued_at
        assert shift_s == pytest.approx(days * DAY_S, abs=60), "the sidecar's clock was set"

        api = server.api(token=server.cli("token", environment=clock.environment).stdout.strip())
        assert ended_by_api(api, short)["status"] == "timed_out"
        assert agent(api, long)["status"] == "running"
        begun = time.monotonic()
        page = api.get("/api/events/wait/nothing_is_called_so", timeout=500, since="latest").expect(200).json
        assert (page["timeout"], time.monotonic() - begun < 30) == (True, True)
        said = spawn(api, issue, say_result(), restart="never")["agent_id"]
        assert ended_by_api(api, said)["status"] == "completed"
        assert [one["event_type"] for one in events_of(api, said)] == [
            "agent_spawned",
            "agent_started",
            "result_stored",
            "agent_completed",
        ]
        assert api.get("/health").expect(200).json["status"] == "healthy"

        clock.set(0)
        api = server.api(token=server.token())
        assert agent(api, long)["status"] == "running"
        assert api.delete(f"/api/agents/{long}").expect(200).json["status"] == "killed"


def seconds(text: str) -> float:
    """Seconds since the epoch of a time in an answer."""
    return datetime.fromisoformat(text).timestamp()


def events_of(api: Api, agent_id: str) -> list[Any]:
    """All events about an agent, in order."""
    events = api.get("/api/events", since="earliest", limit=1000).expect(200).json["events"]
    return [event for event in events if event["data"].get("agent_id") == agent_id]


def test_pool_uses_no_wall_clock() -> None:
    """A limit that is measured by a clock that people set is no limit."""
    package = Path(__file__).parents[2] / "agentpool"
    users = [path.name for path in package.rglob("*.py") if "time.time(" in path.read_text(encoding="utf-8")]
    assert users == []

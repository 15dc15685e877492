"""A wall clock that is set while agents run."""

from __future__ import annotations

import time
from pathlib import Path

import pytest

from orchestrator.models import AgentRecord
from orchestrator.supervisor import Supervisor
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
    """All agents were timed out at once, or none ever again, and quarantine was for ever or for nobody."""
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


def test_pool_uses_no_wall_clock() -> None:
    """A limit that is measured by a clock that people set is no limit."""
    package = Path(__file__).parents[2] / "agentpool"
    users = [path.name for path in package.rglob("*.py") if "time.time(" in path.read_text(encoding="utf-8")]
    assert users == []

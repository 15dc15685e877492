"""What is known and shown of ends that are not recorded yet, or that nobody saw."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from tests.support.supervisors import PATIENCE_S, PROJECT, Gate, ended, request, running_supervisor


@pytest.mark.parametrize("is_asked_for", [False, True], ids=["by itself", "on request"])
async def test_a_process_that_is_gone_is_not_shown(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, is_asked_for: bool
) -> None:
    """While the end of an agent was being recorded it was shown as running, or stopping, with a dead process."""
    async with running_supervisor(tmp_path) as supervisor:
        gate = Gate(supervisor, monkeypatch, "completed", "killed")
        spawned = await supervisor.agents.spawn(request("/bin/cat"))
        agent_id, pid, view = spawned.record.agent_id, spawned.record.process_id, supervisor.agents.short_view
        assert (view(spawned.record)["status"], view(spawned.record)["process_id"]) == ("running", pid)
        if is_asked_for:
            ending = asyncio.create_task(supervisor.agents.terminate(spawned.record))
        else:
            ending = asyncio.create_task(ended(supervisor, agent_id))
            supervisor.pool.close_input(agent_id)
        async with asyncio.timeout(PATIENCE_S):
            await gate.reached.wait()
        record = await supervisor.agents.get(PROJECT, agent_id)
        assert record.status == ("stopping" if is_asked_for else "running")
        assert (view(record)["status"], view(record)["process_id"]) == ("stopping", None)
        gate.opened.set()
        shown = view(await ending)
        assert shown["status"] == ("killed" if is_asked_for else "completed")

"""What is known and shown of ends that are not recorded yet, or that nobody saw."""

from __future__ import annotations

import asyncio
import os
import signal
from pathlib import Path

import pytest

from orchestrator.models import ResultQuery
from tests.support.supervisors import (
    PATIENCE_S,
    PROJECT,
    Gate,
    ended,
    python_agent,
    request,
    running_supervisor,
)
from tests.support.waiting import until_async

#: Says something and fails; then waits without a word; then repeats what it was told of the life before.
THREE_LIVES = """
import os, pathlib, signal, sys
place = pathlib.Path(os.environ["AGENT_CONTEXT_FILE"]).parent
if not (place / "first").exists():
    (place / "first").touch()
    print("said-by-the-first")
    sys.exit("meant-by-the-first")
if not (place / "second").exists():
    (place / "second").touch()
    signal.pause()
print((place / "task.md").read_text())
"""


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


async def test_an_attempt_that_is_lost_with_its_worker_has_said_what_it_said(tmp_path: Path) -> None:
    """A silent attempt whose worker was killed had its predecessor's words in its result, and its successor in its."""
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(python_agent(THREE_LIVES, runtime="text", restart="on-failure"))
        agent_id = spawned.record.agent_id
        await until_async((tmp_path / "storage" / "agents" / agent_id / "second").exists, what="the second attempt")
        for pid in supervisor.pool.worker_pids():
            os.kill(pid, signal.SIGKILL)
        record = await ended(supervisor, agent_id)
        page = await supervisor.results.query(PROJECT, ResultQuery(agent_id=agent_id))
        told = {result.attempt or 0: str(result.result) for result in page.results}
        assert (record.status, sorted(told)) == ("completed", [1, 2, 3])
        assert "said-by-the-first" in told[1]
        assert "meant-by-the-first" in told[1]
        assert "by-the-first" not in told[2] + told[3]
        assert "its pool worker or the sidecar died under it" in told[3]

"""What a role's ``verify`` and ``ends`` make of its agents' ends."""

from __future__ import annotations

import asyncio
import os
import sys
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path

import pytest

from orchestrator.errors import SpawnFailed
from orchestrator.models import SpawnRequest
from orchestrator.supervisor import Supervisor
from tests.support.supervisors import PROJECT, ended, event_types, events, request, running_supervisor
from tests.support.waiting import until_async

#: Says that it is done; is so from its second attempt on.
CARELESS = """
import os, pathlib
place = pathlib.Path(os.environ["AGENT_CONTEXT_FILE"]).parent
task = (place / "task.md").read_text()
if "did not pass" in task:
    (place / "told").write_text(task)
    pathlib.Path("done").touch()
print('{"type": "result", "result": {"status": "success"}}')
"""


@asynccontextmanager
async def supervisor_with(tmp_path: Path, *keys: str, code: str) -> AsyncIterator[Supervisor]:
    """A supervisor whose project has the role ``worker`` with these keys, which runs Python code."""
    roles = tmp_path / "project" / ".orchestrator" / "profiles"
    roles.mkdir(parents=True)
    (tmp_path / "agent.py").write_text(code)
    header = ["---", "name: worker", "runtime: jsonl", f"command: [{sys.executable}, {tmp_path / 'agent.py'}]", *keys]
    (roles / "worker.md").write_text("\n".join([*header, "---", "Work.", ""]))
    async with running_supervisor(tmp_path) as supervisor:
        yield supervisor


def a_worker(**fields: str) -> SpawnRequest:
    """A request for one."""
    return SpawnRequest(agent_type="worker", issue_id="issue-1", task="do it", project_id=PROJECT, **fields)  # type: ignore[arg-type]


async def test_work_that_does_not_pass_is_done_again_with_the_complaint(tmp_path: Path) -> None:
    """An agent's own word for its work was the last one, and the next attempt knew of nothing."""
    check = "verify: {command: [/bin/sh, -c, 'test -e done || { echo no such file; exit 4; }']}"
    async with supervisor_with(
        tmp_path, check, "restart: on-failure", "workspace: scratch", code=CARELESS
    ) as supervisor:
        spawned = await supervisor.agents.spawn(a_worker(workspace="scratch"))
        agent_id = spawned.record.agent_id
        record = await ended(supervisor, agent_id)
        assert (record.status, record.outcome, record.attempt, record.error) == ("completed", "succeeded", 2, None)
        assert record.evidence["verification"]["is_passed"] is True
        told = (tmp_path / "storage" / "agents" / agent_id / "told").read_text()
        assert "its work did not pass" in told
        assert "(exit code 4): no such file" in told
        assert "## How the work is checked" in told
        kinds = await event_types(supervisor, agent_id)
        assert [kind for kind in kinds if kind in ("agent_failed", "agent_restarted", "agent_completed")] == [
            "agent_failed",
            "agent_restarted",
            "agent_completed",
        ]
        (failed,) = [event for event in await events(supervisor, agent_id) if event.event_type == "agent_failed"]
        assert failed.data["outcome"] == "failed"


async def test_a_verifier_gets_no_token_and_its_agents_place(tmp_path: Path) -> None:
    """The token of an agent in the hands of every test that it wrote."""
    check = "verify: {command: [/bin/sh, -c, 'env; pwd']}"
    async with supervisor_with(tmp_path, check, code="") as supervisor:
        spawned = await supervisor.agents.spawn(a_worker())
        agent_id = spawned.record.agent_id
        assert (await ended(supervisor, agent_id)).outcome == "succeeded"
        log = tmp_path / "storage" / "agents" / agent_id / "verify-1" / "stdout.log"
        said = log.read_text().splitlines()
        assert said[-1] == str(tmp_path / "project")
        assert f"AGENT_ID={agent_id}" in said
        assert not [line for line in said if "token-of" in line or line.startswith("JWT_TOKEN")]
        assert (log.stat().st_mode & 0o777, log.parent.stat().st_mode & 0o777) == (0o600, 0o700)


async def test_an_agent_is_shown_while_it_is_verified_and_can_be_ended(tmp_path: Path) -> None:
    """A role whose tests hang could not be ended, or showed a process that was gone."""
    check = "verify: {command: [/bin/sh, -c, 'trap \"\" TERM; while :; do sleep 60; done']}"
    async with supervisor_with(tmp_path, check, "restart: always", code="") as supervisor:
        spawned = await supervisor.agents.spawn(a_worker())
        record, view = spawned.record, supervisor.agents.short_view
        await until_async(lambda: view(record).get("is_verifying") is True, what="its verifier")
        shown = view(record)
        assert shown["status"] == "running"
        assert shown["process_id"] not in (None, record.process_id)
        os.kill(shown["process_id"], 0)
        await asyncio.wait_for(supervisor.agents.terminate(record, timeout_s=0.1), 30)
        last = await ended(supervisor, record.agent_id)
        assert (last.status, last.outcome, last.exit_code, last.survivors["count"]) == ("killed", "killed", 0, 0)
        with pytest.raises(ProcessLookupError):
            os.kill(shown["process_id"], 0)


async def test_a_verifier_that_is_not_there_is_told_at_the_spawn(tmp_path: Path) -> None:
    """An hour of work that nobody could check in the end."""
    async with supervisor_with(tmp_path, "verify: {command: no-such-program-at-all}", code="") as supervisor:
        with pytest.raises(SpawnFailed, match="no-such-program-at-all"):
            await supervisor.agents.spawn(a_worker())


@pytest.mark.parametrize(
    ("keys", "code", "outcome"),
    [
        ("ends: {quota_exit_codes: [75]}", "raise SystemExit(75)", "quota"),
        ("ends: {quota_phrases: [usage limit reached]}", "raise SystemExit('Usage limit reached|17')", "quota"),
        ("ends: {quota_phrases: [usage limit reached]}", "print('usage limit reached')", "succeeded"),
        (
            "timeout_seconds: 60",
            'print(\'{"type": "result", "outcome": "quota", "result": {"status": "failed"}}\')',
            "quota",
        ),
        ("ends: {expects: result}", "print('I am done')", "no_output"),
        ("ends: {expects: output}", "", "no_output"),
        ("ends: {expects: output}", "print('I am done')", "succeeded"),
        ("timeout_seconds: 60", "", "succeeded"),
    ],
)
async def test_a_roles_rules_decide_what_an_end_means(tmp_path: Path, keys: str, code: str, outcome: str) -> None:
    """No command could say that it had run into a quota, and silence passed for work."""
    async with supervisor_with(tmp_path, keys, "restart: on-failure", "restart_limit: 1", code=code) as supervisor:
        spawned = await supervisor.agents.spawn(a_worker())
        record = await ended(supervisor, spawned.record.agent_id)
        assert record.outcome == outcome
        assert record.status == ("completed" if outcome == "succeeded" else "failed")
        # A quota is not asked again; silence is.
        assert record.attempt == (2 if outcome == "no_output" else 1)


async def test_rules_for_one_command_say_nothing_of_another(tmp_path: Path) -> None:
    """An operator's own program in a role's place was judged by the exit codes of the role's."""
    rules = "ends: {quota_exit_codes: [75], expects: result}"
    async with supervisor_with(tmp_path, rules, "verify: {command: /bin/false}", code="") as supervisor:
        outcomes = []
        for code in (75, 0):
            other = request("/bin/sh", "-c", f"exit {code}", agent_type="worker")
            spawned = await supervisor.agents.spawn(other)
            record = await ended(supervisor, spawned.record.agent_id)
            outcomes.append((record.outcome, record.evidence["decided_by"]))
        assert outcomes == [("failed", "exit_code"), ("failed", "verifier")]


async def test_a_result_that_is_refused_says_so(tmp_path: Path) -> None:
    """ "It failed (exit code 0)", and no word why, of an agent whose result had a status of its own making."""
    code = 'print(\'{"type": "result", "result": {"status": "meh"}}\')'
    async with supervisor_with(tmp_path, code=code) as supervisor:
        spawned = await supervisor.agents.spawn(a_worker())
        record = await ended(supervisor, spawned.record.agent_id)
        assert record.status == "failed"
        assert record.error is not None
        assert record.error.startswith("it failed (exit code 0): result at byte 0 of stdout: ")
        assert "status" in record.error


async def test_a_line_that_was_not_read_is_not_why_it_failed(tmp_path: Path) -> None:
    """An agent that gave a result which says that it failed was told to have failed for a torn line before it."""
    code = """print('{"type": "result"'); print('{"type": "result", "result": {"status": "failed"}}')"""
    async with supervisor_with(tmp_path, code=code) as supervisor:
        spawned = await supervisor.agents.spawn(a_worker())
        record = await ended(supervisor, spawned.record.agent_id)
        assert (record.outcome, record.error) == ("failed", "it failed (exit code 0)")
        assert record.evidence["refused_lines"]

"""Triggers and topic rules in a real supervisor."""

from __future__ import annotations

import asyncio
from pathlib import Path

import pytest

from orchestrator.errors import NotPermitted
from orchestrator.events.query import EventQuery
from orchestrator.models import AgentQuery, EventDraft
from orchestrator.supervisor import Supervisor
from tests.support.supervisors import PATIENCE_S, PROJECT, ended, event_types, python_agent, running_supervisor

RULES = """
[triggers.review]
on = ["built"]
filter = "data.ok:true"
spawn = "code-reviewer"
task = "Review {data.what}"

[topics.security]
publish = ["security-auditor"]
"""


def write_rules(tmp_path: Path, text: str) -> None:
    """Give the project of ``running_supervisor`` its rules before it starts."""
    project = tmp_path / "project"
    project.mkdir()
    (project / "orchestrator.toml").write_text(text)
    (project / "main.py").write_text("x = 1\n")


async def wait_for(supervisor: Supervisor, event_type: str) -> str:
    """The agent that the first event of this type is about."""
    async with asyncio.timeout(PATIENCE_S):
        page = await supervisor.bus.wait(
            PROJECT, EventQuery(types=(event_type,), since="earliest", timeout_s=PATIENCE_S), subscriber="test"
        )
    agent_id: str = page.events[0].data["agent_id"]
    return agent_id


async def test_an_event_starts_an_agent_once(tmp_path: Path) -> None:
    """An event that fires a trigger started two agents after a restart, or none."""
    write_rules(tmp_path, RULES)
    async with running_supervisor(tmp_path) as supervisor:
        for what, ok in (("nothing", False), ("the parser", True)):
            draft = EventDraft(
                event_type="built",
                publisher="builder",
                topic="implementation",
                data={"ok": ok, "what": what, "issue_id": "issue-9"},
            )
            await supervisor.bus.publish(PROJECT, draft)
        agent_id = await wait_for(supervisor, "agent_spawned")
        record = await ended(supervisor, agent_id)
        assert (record.agent_type, record.issue_id) == ("code-reviewer", "issue-9")
        assert record.request.task == "Review the parser"
    async with running_supervisor(tmp_path) as supervisor:
        await supervisor.bus.publish(
            PROJECT, EventDraft(event_type="other", publisher="x", topic="implementation", data={})
        )
        agents = (await supervisor.agents.query(PROJECT, AgentQuery())).agents
        assert [agent.agent_id for agent in agents] == [agent_id]


async def test_topic_rules_hold_for_pipes_too(tmp_path: Path) -> None:
    """A topic that only the auditor may use could be written to by printing a line."""
    write_rules(tmp_path, RULES)
    async with running_supervisor(tmp_path) as supervisor:
        with pytest.raises(NotPermitted):
            await supervisor.bus.publish(
                PROJECT,
                EventDraft(event_type="e", publisher="p", topic="security", data={}),
                role="python-specialist",
            )
        line = '{"type":"event","event_type":"e","topic":"security","data":{}}'
        spawned = await supervisor.agents.spawn(python_agent(f"print('{line}')"))
        record = await ended(supervisor, spawned.record.agent_id)
        assert "e" not in await event_types(supervisor, record.agent_id)
        assert len(record.evidence["refused_lines"]) == 1


async def test_topic_rules_hold_for_stdin_too(tmp_path: Path) -> None:
    """A role that may not read a topic got its events all the same, on stdin, since its profile subscribes."""
    write_rules(tmp_path, '[topics.testing]\nread = ["security-auditor"]\n')
    heard = "{'type': 'event', 'event_type': 'heard', 'topic': 'coordination', 'data': {'first': line['event_type']}}"
    code = f"import json, sys; line = json.loads(sys.stdin.readline()); print(json.dumps({heard}))"
    async with running_supervisor(tmp_path) as supervisor:
        spawned = await supervisor.agents.spawn(python_agent(code))
        for topic, is_told in (("testing", False), ("implementation", True)):
            draft = EventDraft(event_type=f"in-{topic}", publisher="x", topic=topic, data={})
            published = await supervisor.bus.publish(PROJECT, draft)
            assert (spawned.record.agent_id in published.subscribers) is is_told
        await ended(supervisor, spawned.record.agent_id)
        page = await supervisor.bus.replay(PROJECT, EventQuery(types=("heard",)))
        assert [event.data["first"] for event in page.events] == ["in-implementation"]

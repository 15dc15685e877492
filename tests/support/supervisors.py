"""A supervisor without HTTP, for tests of the services."""

from __future__ import annotations

import asyncio
import sys
from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentpool.states import AgentState, is_final
from orchestrator.config import PoolSettings, Settings
from orchestrator.errors import StorageWriteFailed
from orchestrator.events.query import EventQuery
from orchestrator.models import AgentRecord, Event, SpawnRequest
from orchestrator.supervisor import Supervisor

PROJECT = "proj"
#: A deadline for facts that are sure to come; reached only when something is broken.
PATIENCE_S = 60.0


class RecordingMinter:
    """Gives out recognisable tokens and remembers whose ended."""

    def __init__(self) -> None:
        self.minted: list[str] = []
        self.ended: list[str] = []
        self.fenced: list[tuple[str, int]] = []

    def mint(
        self,
        agent_id: str,
        agent_type: str,
        project_id: str,
        permissions: tuple[str, ...],
        ttl_s: float,
        *,
        attempt: int | None = None,
    ) -> str:
        self.minted.append(agent_id)
        return f"token-of-{agent_id}"

    def end_attempt(self, agent_id: str, attempt: int) -> None:
        self.fenced.append((agent_id, attempt))

    def end(self, agent_id: str) -> None:
        self.ended.append(agent_id)


class Gate:
    """Holds back or refuses the agents' records of chosen statuses on their way to storage."""

    def __init__(self, supervisor: Supervisor, monkeypatch: pytest.MonkeyPatch, *statuses: str) -> None:
        self.reached = asyncio.Event()
        self.opened = asyncio.Event()
        self.is_refusing = False
        self._statuses = statuses
        self._put: Callable[[AgentRecord], Any] = supervisor.storage.put_agent
        monkeypatch.setattr(supervisor.storage, "put_agent", self.put)

    async def put(self, record: AgentRecord) -> None:
        """Stand in for ``put_agent``."""
        if record.status in self._statuses and not self.opened.is_set():
            self.reached.set()
            if self.is_refusing:
                raise StorageWriteFailed("the disk is full")
            await self.opened.wait()
        await self._put(record)


def settings(**pool: Any) -> Settings:
    """Settings with a small pool; keywords are those of ``[pool]``."""
    return Settings(pool=PoolSettings(**{"workers": 1, "grace_s": 1.0, **pool}))


@asynccontextmanager
async def running_supervisor(
    tmp_path: Path, configured: Settings | None = None, minter: RecordingMinter | None = None
) -> AsyncIterator[Supervisor]:
    """A started supervisor with one small project."""
    project = tmp_path / "project"
    if not project.exists():
        project.mkdir()
        (project / "main.py").write_text("def main():\n    return 1\n")
    async with Supervisor(
        configured or settings(),
        tmp_path / "storage",
        base_url="http://127.0.0.1:1",
        minter=minter or RecordingMinter(),
        projects=[(PROJECT, str(project))],
        version="0",
    ) as supervisor:
        yield supervisor


def python_agent(code: str, **fields: Any) -> SpawnRequest:
    """A request for an agent that runs Python code."""
    return request(sys.executable, "-c", code, **fields)


def request(*command: str, **fields: Any) -> SpawnRequest:
    """A request for an agent that runs a command."""
    known: dict[str, Any] = {
        "agent_type": "python-specialist",
        "issue_id": "issue-1",
        "task": "do it",
        "project_id": PROJECT,
        "command": command,
    }
    return SpawnRequest(**{**known, **fields})


async def ended(supervisor: Supervisor, agent_id: str) -> AgentRecord:
    """The record of an agent once it has ended."""
    async with asyncio.timeout(PATIENCE_S):
        record = await supervisor.agents.wait_ended(PROJECT, agent_id)
    assert is_final(AgentState(record.status))
    return record


async def events(supervisor: Supervisor, agent_id: str | None = None) -> list[Event]:
    """All events of the project so far, or those about one agent."""
    page = await supervisor.bus.replay(PROJECT, EventQuery(since="earliest", limit=1000))
    return [event for event in page.events if agent_id is None or event.data.get("agent_id") == agent_id]


async def event_types(supervisor: Supervisor, agent_id: str) -> list[str]:
    """Types of an agent's events, in order."""
    return [event.event_type for event in await events(supervisor, agent_id)]


def plain(value: object) -> Any:
    """A struct as plain values, for comparisons."""
    return msgspec.to_builtins(value)

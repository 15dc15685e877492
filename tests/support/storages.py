"""Storage backends for the contract suite, and drafts to put into them."""

from __future__ import annotations

from collections.abc import AsyncIterator, Callable
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from orchestrator.models import AgentRecord, Consumer, EventDraft, ResultDraft, SpawnRequest
from orchestrator.storage import SqliteStorage, Storage


class ManualClock:
    """A clock that moves only when told."""

    def __init__(self, now: float = 1_000_000.0) -> None:
        self.seconds = now

    def now(self) -> float:
        return self.seconds

    def monotonic(self) -> float:
        return self.seconds


def _sqlite(directory: Path, clock: ManualClock) -> Storage:
    return SqliteStorage(directory, clock=clock)


#: Every backend passes the contract suite; another one is added here.
BACKENDS: dict[str, Callable[[Path, ManualClock], Storage]] = {"sqlite": _sqlite}


@asynccontextmanager
async def opened(backend: str, directory: Path, clock: ManualClock | None = None) -> AsyncIterator[Storage]:
    """An open storage of a backend, closed at the end."""
    storage = BACKENDS[backend](directory, clock or ManualClock())
    await storage.open()
    try:
        yield storage
    finally:
        await storage.close()


def event_draft(event_type: str = "note", *, data: dict[str, Any] | None = None, **fields: Any) -> EventDraft:
    """A valid draft."""
    return EventDraft(event_type=event_type, publisher="ag_1", topic="testing", data=data or {}, **fields)


def result_draft(
    issue: str = "i1", agent_type: str = "coder", *, status: str = "success", **fields: Any
) -> ResultDraft:
    """A valid result's draft; further fields go into ``result``."""
    return ResultDraft(agent_id="ag_1", agent_type=agent_type, issue_id=issue, result={"status": status, **fields})


def agent_record(agent_id: str, *, project: str = "p1", status: str = "running", **fields: Any) -> AgentRecord:
    """A valid agent's record."""
    request = SpawnRequest(
        agent_type="coder",
        issue_id="i1",
        task="work",
        project_id=project,
        spawned_by=fields.pop("spawned_by", "operator"),
        run_id=fields.pop("run_id", None),
    )
    return AgentRecord(
        agent_id=agent_id,
        agent_type="coder",
        issue_id=fields.pop("issue_id", "i1"),
        project_id=project,
        status=status,
        request=request,
        created_at=1.0,
        updated_at=1.0,
        **fields,
    )


def consumer(name: str = "c1", *, acked: int = 0, delivered: int = 0) -> Consumer:
    """A durable reader's position."""
    return Consumer(name=name, event_type="*", acked=acked, delivered=delivered, redeliveries=0, updated_at=1.0)

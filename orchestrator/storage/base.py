"""What the rest may ask of storage; another database can implement each of these.

Every coroutine that writes returns only when the data would survive ``kill -9`` and power loss. All raise
StorageWriteFailed or StorageReadFailed, nothing else of the backend's. Times are seconds since the epoch.
Reads never see another project's rows: ``project_id`` is part of every key.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, Protocol

from orchestrator.models import (
    AgentPage,
    AgentQuery,
    AgentRecord,
    Appended,
    Consumer,
    DeadLetter,
    Delivery,
    Event,
    EventDraft,
    KnowledgeItem,
    LogBounds,
    Project,
    Result,
    ResultDraft,
    ResultPage,
    ResultQuery,
    Run,
)


class ProjectStore(Protocol):
    """Registered projects."""

    async def put_project(self, project: Project) -> None:
        """Insert or replace."""

    async def get_project(self, project_id: str) -> Project | None: ...

    async def list_projects(self) -> list[Project]:
        """All, by id."""


class EventLog(Protocol):
    """An append-only log per project, with a total order (``seq`` 1, 2, 3, … without holes at append)."""

    async def append(self, project_id: str, draft: EventDraft) -> Appended:
        """Append durably; a known ``event_id`` of the project is answered with the first one's event."""

    async def flush(self) -> None:
        """Return when every append that was begun before this call is done, or was refused."""

    async def read(self, project_id: str, after: int, limit: int) -> list[Event]:
        """Retained events with ``seq > after``, in order, expired ones left out."""

    async def bounds(self, project_id: str) -> LogBounds: ...

    async def trim(self, project_id: str, *, keep: int, older_than: float, now: float) -> int:
        """Drop events beyond the newest ``keep``, published before ``older_than`` or expired; how many."""

    async def event_projects(self) -> list[str]:
        """Projects that have events."""

    async def get_consumer(self, project_id: str, name: str, event_type: str) -> Consumer | None: ...

    async def put_consumer(self, project_id: str, consumer: Consumer) -> None: ...

    async def list_consumers(self, project_id: str) -> list[Consumer]: ...

    async def drop_consumer(self, project_id: str, name: str, event_type: str) -> bool:
        """Whether there was one."""

    async def put_dead_letter(self, project_id: str, letter: DeadLetter) -> None: ...

    async def list_dead_letters(self, project_id: str, *, after: str | None, limit: int) -> list[DeadLetter]:
        """Oldest first, with ids greater than ``after``."""

    async def get_dead_letter(self, project_id: str, letter_id: str) -> DeadLetter | None: ...

    async def drop_dead_letter(self, project_id: str, letter_id: str) -> bool:
        """Whether there was one."""

    async def count_dead_letters(self, project_id: str | None = None) -> int: ...

    async def claim_once(self, project_id: str, key: str) -> bool:
        """True for exactly one caller ever per key (a trigger that fires once per event)."""


class DeliveryStore(Protocol):
    """Pushes that are still to be done: what was decided survives a crash before it is carried out."""

    async def enqueue_deliveries(self, project_id: str, position: Consumer, deliveries: Sequence[Delivery]) -> None:
        """Store deliveries and how far the log was examined for them, in one transaction; known ids are kept."""

    async def due_deliveries(self, now: float, limit: int) -> list[Delivery]:
        """Of all projects, those with ``next_at <= now``, the longest due first."""

    async def next_delivery_at(self) -> float | None:
        """When the next one is due; None when there is none."""

    async def put_delivery(self, delivery: Delivery) -> None:
        """Insert or replace."""

    async def drop_delivery(self, project_id: str, delivery_id: str) -> bool:
        """Whether there was one."""

    async def give_up_delivery(self, delivery: Delivery, letter: DeadLetter, *, keep: int) -> int:
        """Replace a delivery by a dead letter; at most ``keep`` of the project stay, the oldest go: how many went."""

    async def redrive_dead_letter(self, project_id: str, letter_id: str, delivery: Delivery) -> bool:
        """Replace a dead letter by a delivery; whether there was one."""

    async def count_deliveries(self, project_id: str | None = None) -> int: ...


class EventStore(EventLog, DeliveryStore, Protocol):
    """What the event bus and its deliveries need of a storage."""


class ResultStore(Protocol):
    """Every round of every agent's outcome."""

    async def insert_result(self, project_id: str, result_id: str, draft: ResultDraft, *, stored_at: float) -> Result:
        """Store a new round. A known ``result_id`` returns the stored one."""

    async def get_result(self, project_id: str, result_id: str) -> Result | None: ...

    async def query_results(self, project_id: str, query: ResultQuery) -> ResultPage: ...

    async def unannounced_results(self) -> list[Result]:
        """Results whose event was not yet confirmed by ``mark_announced``."""

    async def mark_announced(self, project_id: str, result_id: str) -> None: ...

    async def count_results(self) -> int: ...

    async def drop_results(self, *, older_than: float) -> int: ...


class AgentStore(Protocol):
    """Agents' records."""

    async def put_agent(self, record: AgentRecord) -> None:
        """Insert or replace."""

    async def get_agent(self, project_id: str, agent_id: str) -> AgentRecord | None: ...

    async def find_agent(self, agent_id: str) -> AgentRecord | None:
        """In any project; for the supervisor's own use and operators."""

    async def find_spawned_by(self, project_id: str, spawned_by: str) -> AgentRecord | None:
        """The first agent whose request says so; tells after a crash whether a trigger's spawn happened."""

    async def query_agents(self, project_id: str, query: AgentQuery) -> AgentPage: ...

    async def unfinished_agents(self) -> list[AgentRecord]:
        """Whose status is not final, or whose end was not yet published."""

    async def count_agents(self) -> dict[str, int]:
        """How many by status, over all projects."""

    async def average_duration_s(self) -> float | None:
        """Mean of ``ended_at - started_at`` of the ended ones."""


class TokenStore(Protocol):
    """Revoked tokens (``jti``), kept until they would have expired."""

    async def revoke_token(self, jti: str, expires_at: float) -> bool:
        """Whether it was revoked now (False: it was already); exactly one caller gets True."""

    async def revoked_tokens(self, now: float) -> list[str]: ...


class IdempotencyStore(Protocol):
    """First answers to requests with an ``Idempotency-Key``."""

    async def get_answer(self, project_id: str, key: str) -> tuple[str, bytes] | None:
        """``(fingerprint of the request, answer body)``."""

    async def put_answer(self, project_id: str, key: str, fingerprint: str, answer: bytes, now: float) -> None: ...


class RunStore(Protocol):
    """Runs with their steps."""

    async def put_run(self, run: Run) -> None: ...

    async def get_run(self, project_id: str, run_id: str) -> Run | None: ...

    async def list_runs(self, project_id: str, *, limit: int) -> list[Run]: ...

    async def unfinished_runs(self) -> list[Run]: ...


class KnowledgeStore(Protocol):
    """Full-text index over decisions, findings, warnings, errors and notes; rebuilt from results."""

    async def add_note(self, project_id: str, text: str, *, issue_id: str | None, author: str, now: float) -> str: ...

    async def search_knowledge(
        self, project_id: str, query: str, *, limit: int, issue_id: str | None = None
    ) -> list[KnowledgeItem]:
        """Best first; words are matched, not a query language; never raises for odd text."""


class Storage(
    ProjectStore,
    EventStore,
    ResultStore,
    AgentStore,
    TokenStore,
    IdempotencyStore,
    RunStore,
    KnowledgeStore,
    Protocol,
):
    """All stores of one backend, with its life."""

    async def open(self) -> None:
        """Create or migrate. Raises StorageReadFailed for a newer schema, StorageWriteFailed."""

    async def close(self) -> None:
        """Flush and close; idempotent."""

    async def check(self) -> dict[str, Any]:
        """Measured health: ``{"status": "ok"|"degraded"|"failed", ...}``."""

    async def size_bytes(self) -> int: ...

    async def backup(self, target: str) -> None:
        """A consistent copy while running."""

    def features(self) -> Sequence[str]:
        """Names for diagnosis, such as the engine and its version."""

"""The things that services pass to one another: frozen, typed, plain."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

JSON = dict[str, Any]
ResultStatus = Literal["success", "failed", "partial"]
Priority = Literal["low", "normal", "high"]


class Model(msgspec.Struct, frozen=True, kw_only=True):
    """Base of all models."""


class Project(Model, frozen=True, kw_only=True):
    """A directory tree registered under an id. ``path`` is absolute and real (no symlink in it)."""

    project_id: str
    path: str
    created_at: float


# -- events -----------------------------------------------------------------------------------


class EventDraft(Model, frozen=True, kw_only=True):
    """An event to be published. ``event_id`` None lets the log make one; ``ttl_seconds`` 1–86400."""

    event_type: str
    publisher: str
    topic: str
    data: JSON
    event_id: str | None = None
    correlation_id: str | None = None
    ttl_seconds: int = 86400
    priority: Priority = "normal"
    references: tuple[str, ...] = ()
    round: int | None = None


class Event(Model, frozen=True, kw_only=True):
    """A published event. ``seq`` counts from 1 within its project; the cursor is its decimal text."""

    event_id: str
    event_type: str
    publisher: str
    topic: str
    data: JSON
    seq: int
    published_at: float
    ttl_seconds: int = 86400
    correlation_id: str | None = None
    priority: Priority = "normal"
    references: tuple[str, ...] = ()
    round: int | None = None

    @property
    def cursor(self) -> str:
        """Where a reader goes on after this event."""
        return str(self.seq)

    @property
    def expires_at(self) -> float:
        """Seconds since the epoch after which no reader is given it."""
        return self.published_at + self.ttl_seconds


class Appended(Model, frozen=True, kw_only=True):
    """The log's answer: the stored event, and whether it was there before (same ``event_id``)."""

    event: Event
    is_duplicate: bool


class LogBounds(Model, frozen=True, kw_only=True):
    """``oldest`` and ``newest`` retained sequence numbers; an empty log has ``oldest == newest + 1``."""

    oldest: int
    newest: int


class Consumer(Model, frozen=True, kw_only=True):
    """A durable reader: ``acked`` is received for good, ``delivered`` is the end of its last answer.

    ``topic`` and ``filter`` are those of its last call; they tell whether an event will reach it. ``created_by`` is the
    agent that first used the name; empty where that was not kept.
    """

    name: str
    event_type: str
    acked: int
    delivered: int
    redeliveries: int
    updated_at: float
    topic: str | None = None
    filter: str | None = None
    created_by: str = ""


class DeadLetter(Model, frozen=True, kw_only=True):
    """A delivery that was given up: to what (``target``), why, after how many attempts."""

    id: str
    event: Event
    target: str
    reason: str
    attempts: int
    last_error: str
    created_at: float


class Delivery(Model, frozen=True, kw_only=True):
    """An event that is to be pushed to ``target`` (``webhook:<name>``, ``trigger:<name>``, …) and was not yet.

    Kept until it succeeded or became a dead letter; ``next_at`` is when to try (again).
    """

    id: str
    project_id: str
    event: Event
    target: str
    created_at: float
    next_at: float
    attempts: int = 0
    last_error: str = ""


# -- results ----------------------------------------------------------------------------------


class ResultDraft(Model, frozen=True, kw_only=True):
    """An outcome to be stored; ``result`` is the contract's object with unknown keys kept."""

    agent_id: str
    agent_type: str
    issue_id: str
    result: JSON
    timestamp: str | None = None
    attempt: int | None = None
    source: Literal["api", "pipe", "exit"] = "api"


class Result(Model, frozen=True, kw_only=True):
    """A stored outcome. ``round`` counts from 1 within (project, issue, agent type)."""

    id: str
    project_id: str
    agent_id: str
    agent_type: str
    issue_id: str
    round: int
    status: ResultStatus
    result: JSON
    timestamp: str
    stored_at: float
    source: str = "api"
    attempt: int | None = None


class ResultQuery(Model, frozen=True, kw_only=True):
    """Which results; ``since`` and ``until`` are seconds since the epoch. Newest first."""

    issue_id: str | None = None
    agent_type: str | None = None
    agent_id: str | None = None
    status: str | None = None
    since: float | None = None
    until: float | None = None
    limit: int = 100
    cursor: str | None = None


class ResultPage(Model, frozen=True, kw_only=True):
    """One page; ``next_cursor`` is None at the end."""

    results: list[Result]
    next_cursor: str | None


# -- agents -----------------------------------------------------------------------------------


class SpawnRequest(Model, frozen=True, kw_only=True):
    """A wish for an agent, after validation of its form; kept with the agent so that it can be retried."""

    agent_type: str
    issue_id: str
    task: str
    project_id: str
    context_requirements: tuple[str, ...] = ()
    environment: dict[str, str] = {}
    priority: Priority = "normal"
    runtime: str | None = None
    command: tuple[str, ...] | None = None
    restart: str | None = None
    timeout_seconds: float | None = None
    workspace: str | None = None
    limits: JSON = {}
    sandbox: str | None = None
    correlation_id: str | None = None
    spawned_by: str = "operator"
    run_id: str | None = None


class AgentRecord(Model, frozen=True, kw_only=True):
    """All that is known of one agent (contract section 4); times are seconds since the epoch.

    ``nonce``, ``start_ticks`` and ``process_id`` identify its process for a later supervisor, and ``output_begins``
    (the first byte of the attempt in each stream, where that is not 0) its output. ``losses`` counts attempts in a row
    that ended by no doing of their own: their keeper died, or they found no room to start.
    """

    agent_id: str
    agent_type: str
    issue_id: str
    project_id: str
    status: str
    request: SpawnRequest
    created_at: float
    updated_at: float
    attempt: int = 0
    losses: int = 0
    nonce: str = ""
    process_id: int | None = None
    start_ticks: int | None = None
    output_begins: dict[str, int] = {}
    exit_code: int | None = None
    signal: int | None = None
    started_at: float | None = None
    ended_at: float | None = None
    result_id: str | None = None
    outcome: str | None = None
    evidence: JSON = {}
    error: str | None = None
    usage: JSON = {}
    survivors: JSON = {}
    inputs: list[JSON] = []
    workspace_path: str | None = None
    is_end_published: bool = False

    @property
    def open_attempt(self) -> int:
        """The attempt that runs, or the next one while it is queued: what a token may speak for now."""
        return self.attempt + (self.status == "queued")


class AgentQuery(Model, frozen=True, kw_only=True):
    """Which agents, newest first."""

    status: str | None = None
    agent_type: str | None = None
    issue_id: str | None = None
    run_id: str | None = None
    limit: int = 100
    cursor: str | None = None


class AgentPage(Model, frozen=True, kw_only=True):
    """One page; ``next_cursor`` is None at the end."""

    agents: list[AgentRecord]
    next_cursor: str | None


# -- knowledge --------------------------------------------------------------------------------


class KnowledgeItem(Model, frozen=True, kw_only=True):
    """A decision, finding, warning, error or note of earlier work, as found by a search (best first)."""

    kind: str
    text: str
    score: float
    result_id: str | None
    agent_type: str | None
    issue_id: str | None
    timestamp: str


# -- runs -------------------------------------------------------------------------------------


class RunStep(Model, frozen=True, kw_only=True):
    """One agent of a run; ``agent_id`` is None until it was spawned."""

    step: str
    phase: int
    agent_type: str
    task: str
    agent_id: str | None = None
    status: str = "pending"


class Run(Model, frozen=True, kw_only=True):
    """An issue worked on by a team, phase after phase. ``status``: running, completed, failed, cancelled.

    ``created_by`` is the agent (or operator) that asked for it; empty where that was not kept.
    """

    run_id: str
    project_id: str
    issue_id: str
    task: str
    workflow: str
    status: str
    steps: list[RunStep]
    created_at: float
    updated_at: float
    ended_at: float | None = None
    error: str | None = None
    runtime: str | None = None
    created_by: str = ""

"""The shapes of the contract, as a caller sees them; further keys may be there."""

from __future__ import annotations

from typing import Any, NotRequired, TypedDict

JSON = dict[str, Any]


class Health(TypedDict):
    """``GET /health``."""

    status: str
    service: str
    version: str
    uptime_seconds: float
    checks: JSON
    timestamp: str


class Status(TypedDict):
    """``GET /status``."""

    agents: JSON
    storage: JSON
    events: JSON
    performance: JSON
    timestamp: str


class Context(TypedDict):
    """``GET /api/context/{issue_id}/{agent_type}``."""

    issue_id: str
    agent_type: str
    context: JSON
    truncated: bool
    truncation_strategy: str | None
    total_size_bytes: int
    file_count: int
    omitted: list[JSON]
    omitted_total: int
    timestamp: str
    cache_hit: bool
    partial: NotRequired[bool]


class Cleared(TypedDict):
    """``DELETE /api/cache/context/{issue_id}``."""

    cleared: bool
    entries_removed: int
    bytes_freed: int
    timestamp: str


class StoredResult(TypedDict):
    """``POST /api/results``."""

    id: str
    stored: bool
    storage_path: str
    next_agents: list[JSON]
    event_published: bool
    event_id: str | None
    timestamp: str


class Result(TypedDict):
    """One stored round of a result."""

    id: str
    round: int
    project_id: str
    agent_id: str
    agent_type: str
    issue_id: str
    result: JSON
    timestamp: str


class ResultPage(TypedDict):
    """``GET /api/results``; ``next_cursor`` is None at the end."""

    results: list[Result]
    next_cursor: str | None


class Published(TypedDict):
    """``POST /api/events/{event_type}``."""

    event_id: str
    published: bool
    subscribers_notified: list[str]
    subscriber_count: int
    cursor: str
    timestamp: str
    topic: str
    ttl_seconds: int


class Event(TypedDict):
    """One event."""

    event_id: str
    event_type: str
    publisher: str
    topic: str
    data: JSON
    timestamp: str
    cursor: str
    correlation_id: NotRequired[str | None]


class EventPage(TypedDict):
    """Endpoint 4 and the replay."""

    events: list[Event]
    more_available: bool
    next_cursor: str
    timestamp: str
    timeout: NotRequired[bool]
    gap: NotRequired[bool]
    oldest_cursor: NotRequired[str | None]


class Spawned(TypedDict):
    """``POST /api/agents/spawn``."""

    agent_id: str
    spawned: bool
    process_id: int | None
    context_injected: bool
    jwt_token: str
    webhook_url: str
    timestamp: str
    queued: NotRequired[bool]


class AgentInfo(TypedDict):
    """``GET /api/agents/{id}``."""

    agent_id: str
    agent_type: str
    issue_id: str
    project_id: str
    status: str
    process_id: int | None
    exit_code: int | None
    signal: int | None
    attempt: int
    started_at: str | None
    ended_at: str | None
    result_id: str | None
    error: str | None
    usage: JSON
    progress: NotRequired[Any]


class AgentPage(TypedDict):
    """``GET /api/agents``."""

    agents: list[AgentInfo]
    next_cursor: str | None


class Pool(TypedDict):
    """``GET /api/pool``: ``state`` is ``open``, ``paused`` or ``draining``."""

    state: str
    is_drained: bool
    running: int
    queued: int
    capacity: int
    queue_capacity: int
    limited_by: str
    workers: int
    workers_lost: int
    timestamp: str


class Output(TypedDict):
    """A piece of a stream: ``next_offset`` is where to go on; empty ``data`` is the end of what there is.

    ``truncated_at`` is the byte from which nothing was kept (the agent's cap, or a full disk), else None.
    """

    data: bytes
    next_offset: int
    truncated_at: int | None


class InputReceipt(TypedDict):
    """``POST /api/agents/{id}/input``."""

    message_id: str
    state: str


class RunStep(TypedDict):
    """One agent of a run."""

    step: str
    phase: int
    agent_type: str
    task: str
    agent_id: str | None
    status: str


class Run(TypedDict):
    """One run."""

    run_id: str
    project_id: str
    issue_id: str
    task: str
    workflow: str
    status: str
    steps: list[RunStep]
    created_at: str
    updated_at: str
    ended_at: str | None
    error: str | None


class RunPage(TypedDict):
    """``GET /api/runs``."""

    runs: list[Run]
    next_cursor: NotRequired[str | None]


class Project(TypedDict):
    """One registered project."""

    project_id: str
    path: str


#: Final statuses of an agent and of a run.
FINAL_AGENT_STATUSES = frozenset({"completed", "failed", "killed", "timed_out"})
FINAL_RUN_STATUSES = frozenset({"completed", "failed", "cancelled"})

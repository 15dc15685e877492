"""Forms of the agents endpoints."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from api.schemas.base import Form, Identifier, Limit, Query, Timestamp

Status = Literal["queued", "starting", "running", "stopping", "completed", "failed", "killed", "timed_out"]
Stream = Literal["stdout", "stderr"]


class SpawnBody(Form, frozen=True, kw_only=True):
    """A wish for an agent; ``command`` is an operator's privilege."""

    agent_type: Identifier
    issue_id: Identifier
    task: Annotated[str, Meta(min_length=1, max_length=1_000_000)]
    context_requirements: list[str] = msgspec.field(default_factory=list)
    environment: dict[str, str] = msgspec.field(default_factory=dict)
    priority: Literal["low", "normal", "high"] = "normal"
    project_id: Identifier | None = None
    runtime: Identifier | None = None
    command: Annotated[list[str], Meta(min_length=1, max_length=1000)] | None = None
    restart: Literal["never", "on-failure", "always"] | None = None
    timeout_seconds: Annotated[float, Meta(gt=0, le=7 * 86400)] | None = None
    workspace: Literal["shared", "scratch", "worktree"] | None = None
    limits: dict[str, Any] = msgspec.field(default_factory=dict)
    sandbox: Literal["none", "workspace"] | None = None
    correlation_id: Annotated[str, Meta(min_length=1, max_length=256)] | None = None


class SpawnedAnswer(Form, frozen=True, kw_only=True):
    """The accepted agent; while it is ``queued`` there is no process yet."""

    agent_id: str
    spawned: bool
    process_id: int | None
    context_injected: bool
    jwt_token: str
    webhook_url: str
    queued: bool
    timestamp: Timestamp


class AgentsQuery(Query, frozen=True, kw_only=True):
    """Which agents, newest first."""

    status: Status | None = None
    agent_type: Identifier | None = None
    issue_id: Identifier | None = None
    run_id: Identifier | None = None
    limit: Limit = 100
    cursor: str | None = None


class AgentAnswer(Form, frozen=True, kw_only=True):
    """What is known of one agent; the full view has more.

    ``unrecorded`` is there while storage refuses what is known of it, and says why; ``is_verifying`` until it has
    ended: then ``process_id`` is that of its role's verifier.
    """

    agent_id: str
    agent_type: str
    issue_id: str
    project_id: str
    status: Status
    process_id: int | None
    exit_code: int | None
    signal: int | None
    attempt: int
    started_at: Timestamp | None
    ended_at: Timestamp | None
    result_id: str | None
    error: str | None
    usage: dict[str, Any] = msgspec.field(default_factory=dict)
    unrecorded: str | None = None
    is_verifying: bool | None = None


class AgentPageAnswer(Form, frozen=True, kw_only=True):
    """One page; ``next_cursor`` is null at the end."""

    agents: list[AgentAnswer]
    next_cursor: str | None


class OutputQuery(Query, frozen=True, kw_only=True):
    """Which bytes of which stream."""

    stream: Stream = "stdout"
    since: Annotated[int, Meta(ge=0, le=2**62, description="byte offset")] = 0
    follow: bool = False
    limit: Annotated[int, Meta(ge=1, le=1 << 20, description="most bytes of this answer")] = 1 << 20


class TerminateQuery(Query, frozen=True, kw_only=True):
    """How an agent is ended."""

    force: bool = False
    timeout: Annotated[float, Meta(ge=0, le=300, description="seconds of grace")] = 5.0


class InputBody(Form, frozen=True, kw_only=True):
    """A message for a running agent's stdin."""

    text: Annotated[str, Meta(max_length=1_000_000)]
    data: dict[str, Any] | None = None


class InputAnswer(Form, frozen=True, kw_only=True):
    """Where the message stands."""

    message_id: str
    state: str
    reason: str = ""

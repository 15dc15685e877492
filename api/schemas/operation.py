"""Forms of tokens, profiles, projects, runs, knowledge and the sidecar's own state."""

from __future__ import annotations

from typing import Annotated, Any, Literal

from msgspec import Meta

from api.schemas.base import Form, Identifier, Limit, Query, Timestamp


class HealthAnswer(Form, frozen=True, kw_only=True):
    """Measured health; 503 when ``unhealthy``."""

    status: Literal["healthy", "degraded", "unhealthy"]
    service: str
    version: str
    uptime_seconds: float
    checks: dict[str, Any]
    timestamp: Timestamp


class StatusAnswer(Form, frozen=True, kw_only=True):
    """Counts; never a project's or an issue's name."""

    agents: dict[str, Any]
    storage: dict[str, Any]
    events: dict[str, Any]
    performance: dict[str, Any]
    timestamp: Timestamp


class PoolAnswer(Form, frozen=True, kw_only=True):
    """The pool: ``paused`` starts nothing, ``draining`` takes nothing new either; ``is_drained`` when nothing runs."""

    state: Literal["open", "paused", "draining"]
    is_drained: bool
    running: int
    queued: int
    capacity: int
    queue_capacity: int
    limited_by: str
    workers: int
    workers_lost: int
    timestamp: Timestamp


class TokenAnswer(Form, frozen=True, kw_only=True):
    """The new token; the old one is revoked."""

    token: str
    jwt_token: str
    token_type: str
    expires_at: Timestamp
    expires_in_seconds: int
    generation: int
    timestamp: Timestamp


class ProfileAnswer(Form, frozen=True, kw_only=True):
    """One role as it is in force."""

    agent_type: str
    description: str
    category: str
    permission_class: str
    tier: str


class ProfilesAnswer(Form, frozen=True, kw_only=True):
    """All roles of a project."""

    profiles: list[ProfileAnswer]


class ProjectBody(Form, frozen=True, kw_only=True):
    """A directory to register."""

    project_id: Identifier
    path: Annotated[str, Meta(min_length=1, max_length=4096)]


class ProjectAnswer(Form, frozen=True, kw_only=True):
    """A registered project."""

    project_id: str
    path: str
    created_at: Timestamp
    is_default: bool


class ProjectsAnswer(Form, frozen=True, kw_only=True):
    """The projects that the token may act in."""

    projects: list[ProjectAnswer]


class RunBody(Form, frozen=True, kw_only=True):
    """An issue to be worked on by a team."""

    issue_id: Identifier
    task: Annotated[str, Meta(min_length=1, max_length=1_000_000)]
    workflow: Identifier = "team"
    runtime: Identifier | None = None
    project_id: Identifier | None = None


class RunsQuery(Query, frozen=True, kw_only=True):
    """How many runs, newest first."""

    limit: Limit = 100


class RunAnswer(Form, frozen=True, kw_only=True):
    """One run with its steps."""

    run_id: str
    project_id: str
    issue_id: str
    task: str
    workflow: str
    status: str
    steps: list[dict[str, Any]]
    created_at: Timestamp
    updated_at: Timestamp
    ended_at: Timestamp | None
    error: str | None
    created_by: str


class RunsAnswer(Form, frozen=True, kw_only=True):
    """Runs of a project."""

    runs: list[RunAnswer]
    next_cursor: str | None = None


class KnowledgeQuery(Query, frozen=True, kw_only=True):
    """Words to look for."""

    q: Annotated[str, Meta(min_length=1, max_length=1000)]
    limit: Annotated[int, Meta(ge=1, le=100)] = 20
    issue_id: Identifier | None = None


class KnowledgeAnswerItem(Form, frozen=True, kw_only=True):
    """Something that earlier work found."""

    kind: str
    text: str
    score: float
    result_id: str | None
    agent_type: str | None
    issue_id: str | None
    timestamp: Timestamp


class KnowledgeAnswer(Form, frozen=True, kw_only=True):
    """Best first."""

    results: list[KnowledgeAnswerItem]
    query: str
    timestamp: Timestamp

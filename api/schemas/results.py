"""Forms of the results endpoints."""

from __future__ import annotations

from typing import Annotated, Any, Literal

import msgspec
from msgspec import Meta

from api.schemas.base import Form, Identifier, Limit, Query, Timestamp


class ResultBody(Form, frozen=True, kw_only=True):
    """An agent's outcome; what is left out of the first, second and fourth field is taken from the token."""

    issue_id: Identifier
    result: Annotated[
        dict[str, Any],
        Meta(
            description=(
                "status (success, failed, partial), files_created, files_modified, files_deleted (paths or objects "
                "with a path), decisions, metrics, artifacts, errors, warnings, next_steps; other keys are kept"
            )
        ),
    ]
    agent_id: Identifier | None = None
    agent_type: Identifier | None = None
    project_id: Identifier | None = None
    timestamp: Timestamp | None = None


class NextAgent(Form, frozen=True, kw_only=True):
    """Who takes over."""

    agent_type: str
    priority: str
    reason: str


class StoredAnswer(Form, frozen=True, kw_only=True):
    """The stored result; it would survive ``kill -9`` of the sidecar."""

    id: str
    stored: bool
    storage_path: str
    next_agents: list[Any]
    event_published: bool
    event_id: str | None
    timestamp: Timestamp
    round: int


class ResultsQuery(Query, frozen=True, kw_only=True):
    """Which results, newest first."""

    issue_id: Identifier | None = None
    agent_type: Identifier | None = None
    agent_id: Identifier | None = None
    status: Literal["success", "failed", "partial"] | None = None
    from_: Timestamp | None = msgspec.field(name="from", default=None)
    to: Timestamp | None = None
    limit: Limit = 100
    cursor: str | None = None


class ResultAnswer(Form, frozen=True, kw_only=True):
    """One stored round."""

    id: str
    round: int
    agent_id: str
    agent_type: str
    issue_id: str
    project_id: str
    result: dict[str, Any]
    timestamp: Timestamp


class ResultPageAnswer(Form, frozen=True, kw_only=True):
    """One page; ``next_cursor`` is null at the end."""

    results: list[ResultAnswer]
    next_cursor: str | None

"""Requests about what earlier work has taught; as pure as ``calls``."""

from __future__ import annotations

from api.client import types
from api.client.forms import body_of, get
from api.client.request import Answer, Request


def search_knowledge(q: str, *, limit: int | None = None, project_id: str | None = None) -> Request[types.JSON]:
    """Decisions, findings and warnings of earlier results, best first."""
    return get("/api/knowledge/search", q=q, limit=limit, project_id=project_id)


def add_note(text: str, *, issue_id: str | None = None, project_id: str | None = None) -> Request[types.JSON]:
    """Add a note to the project's knowledge."""
    body = body_of(text=text, issue_id=issue_id, project_id=project_id)
    return Request("POST", "/api/knowledge", Answer.json, body=body)

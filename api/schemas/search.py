"""Forms of searching the project's files and of adding to its knowledge."""

from __future__ import annotations

from typing import Annotated

from msgspec import Meta

from api.schemas.base import Form, Identifier, Query, Timestamp


class SearchQuery(Query, frozen=True, kw_only=True):
    """What to look for in the project's files."""

    q: Annotated[str, Meta(min_length=1, max_length=1000)]
    limit: Annotated[int, Meta(ge=1, le=100)] = 20


class FoundLine(Form, frozen=True, kw_only=True):
    """A line that fits the query; ``line`` is 1-based."""

    line: int
    text: str


class FoundFile(Form, frozen=True, kw_only=True):
    """A file that fits the query, and why."""

    path: str
    score: float
    reason: str
    lines: list[FoundLine]


class SearchAnswer(Form, frozen=True, kw_only=True):
    """Best first."""

    results: list[FoundFile]
    query: str
    timestamp: Timestamp


class NoteBody(Form, frozen=True, kw_only=True):
    """Something that later agents should find."""

    text: Annotated[str, Meta(min_length=1, max_length=100_000)]
    issue_id: Identifier | None = None
    project_id: Identifier | None = None


class NoteAnswer(Form, frozen=True, kw_only=True):
    """The note, stored and searchable."""

    id: str
    stored: bool
    timestamp: Timestamp

"""What all forms share."""

from __future__ import annotations

from typing import Annotated, Any

import msgspec
from msgspec import Meta

from orchestrator.identifiers import IDENTIFIER_PATTERN

#: A name of the contract.
Identifier = Annotated[
    str,
    Meta(
        pattern=f"^{IDENTIFIER_PATTERN}\\Z", description="1-128 letters, digits, '.', '_', '-'", examples=["issue-42"]
    ),
]
#: A page's size.
Limit = Annotated[int, Meta(ge=1, le=1000)]
Timestamp = Annotated[str, Meta(description="RFC 3339, UTC", examples=["2026-01-31T12:00:00.000Z"])]


class Form(msgspec.Struct, frozen=True, kw_only=True, omit_defaults=False):
    """Base of bodies and answers. Keys that a form does not name are left aside."""


class Query(msgspec.Struct, frozen=True, kw_only=True):
    """Base of query parameters; ``project_id`` is taken by every route of a project's things."""

    project_id: Identifier | None = None


class ErrorAnswer(Form, frozen=True, kw_only=True):
    """Every answer that is not a success."""

    error: str
    message: str
    code: str
    timestamp: Timestamp
    request_id: str
    details: dict[str, Any] = {}
    retry_after_seconds: int | None = None
    limit: int | None = None

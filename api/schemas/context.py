"""Forms of the context endpoints."""

from __future__ import annotations

from typing import Annotated, Any

from msgspec import Meta

from api.schemas.base import Form, Identifier, Query, Timestamp

#: Longest task that is read.
MAX_TASK_CHARS = 100_000
Task = Annotated[str, Meta(max_length=MAX_TASK_CHARS, description="what is to be done; ranks the files")]
Partial = Annotated[
    bool,
    Meta(
        description="a provisional answer will do while nothing is known of the project; it says `partial: true`, and "
        "the next request gets the full one. `refresh` outweighs it"
    ),
]
MaxBytes = Annotated[int, Meta(ge=1, description="bound on the summed content, in bytes; at most 10,000,000 count")]


class ExplainQuery(Query, frozen=True, kw_only=True):
    """Parameters of ``GET`` when it is asked why."""

    refresh: bool = False
    task: Task | None = None
    max_bytes: MaxBytes | None = None


class ExplainBody(Form, frozen=True, kw_only=True):
    """The same as a body, for long tasks."""

    task: Task | None = None
    max_bytes: MaxBytes | None = None
    refresh: bool = False
    project_id: Identifier | None = None


class ContextQuery(ExplainQuery, frozen=True, kw_only=True):
    """Parameters of ``GET``."""

    partial: Partial = False


class ContextBody(ExplainBody, frozen=True, kw_only=True):
    """The same as a body, for long tasks."""

    partial: Partial = False


class ProjectStructure(Form, frozen=True, kw_only=True):
    """The tree that git sees."""

    root: str
    files: list[str]
    directories: list[str]
    total_files: int
    total_size_bytes: int


class RelevantFile(Form, frozen=True, kw_only=True):
    """One file, whole or in excerpts (then ``ranges`` are 1-based and inclusive, and ``names`` are ``[line, name]`` of
    what is defined in the parts that are not shown)."""

    path: str
    content: str
    last_modified: Timestamp
    size: int
    language: str
    checksum: Annotated[str, Meta(description="sha256:… of the whole file")]
    score: float
    reason: str
    ranges: list[list[int]] | None = None
    truncated: bool | None = None
    names: list[list[int | str]] | None = None


class ContextPart(Form, frozen=True, kw_only=True):
    """What an agent needs to know of the project."""

    project_structure: ProjectStructure
    relevant_files: list[RelevantFile]
    git_context: dict[str, Any]
    previous_agent_outputs: list[dict[str, Any]]
    metadata: dict[str, Any]


class OmittedFile(Form, frozen=True, kw_only=True):
    """A file that was left out, and why; ``names`` are ``[line, name]`` of what the best of them define."""

    path: str
    reason: str
    names: list[list[int | str]] | None = None


class ContextAnswer(Form, frozen=True, kw_only=True):
    """A context; ``cache_hit`` tells whether it was built for this request. ``omitted`` names the first 500 files that
    were left out, ``omitted_total`` counts all. A provisional one says ``partial``, and only that one."""

    issue_id: str
    agent_type: str
    context: ContextPart
    truncated: bool
    truncation_strategy: str | None
    total_size_bytes: int
    file_count: int
    omitted: list[OmittedFile]
    omitted_total: int
    timestamp: Timestamp
    cache_hit: bool
    partial: bool | None = None


class ExplainedFile(Form, frozen=True, kw_only=True):
    """A chosen file: each signal's share in its score, and how many of its ``size`` bytes are shown."""

    path: str
    kind: str
    score: float
    reason: str
    signals: dict[str, float]
    bytes: int
    size: int
    ranges: list[list[int]] | None = None


class ExplainAnswer(Form, frozen=True, kw_only=True):
    """Why a context is as it is, without the contents; files best first."""

    files: list[ExplainedFile]
    omitted: list[OmittedFile]
    max_bytes: int
    truncated: bool


class ClearedAnswer(Form, frozen=True, kw_only=True):
    """What was dropped from the cache."""

    cleared: bool
    entries_removed: int
    bytes_freed: int
    timestamp: Timestamp

"""The values of the context engine: what is asked, what is answered, what is known of a file."""

from __future__ import annotations

from typing import Any

import msgspec

JSON = dict[str, Any]


class ContextRequest(msgspec.Struct, frozen=True, kw_only=True):
    """What an agent (or a person) asks for.

    Attributes:
        issue_id: whose earlier results come along.
        agent_type: the role; its profile says what counts.
        task: what is to be done; None asks for all that the role needs.
        max_bytes: bound on the summed file contents; None takes the profile's or the settings' bound.
        refresh: look at the project again instead of trusting the watcher.
        partial: while nothing is known of the project, a provisional answer will do; ``refresh`` outweighs it.
        requirements: further names of ``orchestrator.profiles.requirements``.
    """

    issue_id: str
    agent_type: str
    task: str | None = None
    max_bytes: int | None = None
    refresh: bool = False
    partial: bool = False
    requirements: tuple[str, ...] = ()


class BuiltContext(msgspec.Struct, frozen=True, kw_only=True):
    """An answer: ``body`` is the contract's JSON, ``etag`` (quoted) names it without time and ``cache_hit``. One that
    ``is_partial`` is provisional: the full one is being made."""

    body: bytes
    etag: str
    cache_hit: bool
    is_partial: bool = False

    @property
    def document(self) -> JSON:
        """The body, decoded anew at each use (contract section 3.1)."""
        decoded: JSON = msgspec.json.decode(self.body)
        return decoded


class Cleared(msgspec.Struct, frozen=True, kw_only=True):
    """What ``clear`` removed from the cache."""

    entries_removed: int
    bytes_freed: int


class SearchHit(msgspec.Struct, frozen=True, kw_only=True):
    """A file that a search found; ``lines`` are ``(number, text)`` of the best matching lines, redacted."""

    path: str
    score: float
    reason: str
    lines: tuple[tuple[int, str], ...] = ()


class ContextStats(msgspec.Struct, frozen=True, kw_only=True):
    """Measures of the cache and of the builder process."""

    entries: int
    bytes: int
    hits: int
    misses: int
    builds: int
    projects: int
    is_builder_alive: bool


class Role(msgspec.Struct, frozen=True, kw_only=True):
    """The part of a profile that decides what counts; plain values, so that it can cross a process boundary."""

    agent_type: str
    category: str = ""
    permission_class: str = "coding"
    include: tuple[str, ...] = ()
    exclude: tuple[str, ...] = ()
    requirements: tuple[str, ...] = ()
    wished: tuple[str, ...] = ()
    revision: str = ""


class BuildOrder(msgspec.Struct, frozen=True, kw_only=True):
    """One build for the builder process. ``outputs`` and ``knowledge`` are the contract's entries, unredacted."""

    project_id: str
    root: str
    issue_id: str
    role: Role
    task: str
    max_bytes: int
    is_refresh: bool = False
    outputs: tuple[JSON, ...] = ()
    now: float = 0.0


class BuildAnswer(msgspec.Struct, frozen=True, kw_only=True):
    """``body`` ends with ``"cache_hit":false}``; ``generation`` names the project's state that it shows; ``problems``
    say what of the metadata is missing for a fault of ours."""

    body: bytes
    etag: str
    generation: int
    problems: tuple[str, ...] = ()


class Stamp(msgspec.Struct, frozen=True, array_like=True):
    """What ``lstat`` says of a file's content: equal stamps mean that it need not be read again."""

    size: int
    mtime_ns: int
    ctime_ns: int
    inode: int


class FileFacts(msgspec.Struct, array_like=True):
    """What is known of one file of a project.

    ``kind`` and ``language`` are of ``orchestrator.context.kinds``; ``document`` is its number in the index
    (-1: not indexed), ``checksum`` the hexadecimal SHA-256 of all bytes (empty: never read), ``refusal`` why it could
    not be read.
    """

    path: str
    stamp: Stamp
    kind: str
    language: str
    checksum: str = ""
    document: int = -1
    is_text: bool = True
    refusal: str = ""


class Commit(msgspec.Struct, frozen=True, array_like=True):
    """A commit of the history; ``timestamp`` in seconds since the epoch, ``files`` relative to the project."""

    hash: str
    timestamp: int
    author: str
    message: str
    files: tuple[str, ...]


class Change(msgspec.Struct, frozen=True, array_like=True):
    """An uncommitted change: ``status`` is modified, added, deleted, untracked, conflicted or type-changed."""

    path: str
    status: str
    diff: str = ""

"""Priority: what gives way to what when not everything fits. Pure.

The order is: what was asked for, what the task needs, decisions of earlier agents, files changed within a day, sources
and tests, configuration, documents, the rest, history. Without a task the role's own ranking says what is needed.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable

from orchestrator.context.chronicle import Chronicle
from orchestrator.context.ranking import Ranked
from orchestrator.context.roles import DEMAND

#: A file's tiers, first those that go in first.
ASKED, NEEDED, CHANGED, TESTS, CONFIGURATION, DOCUMENTS, REST = range(7)
TIERS = {
    ASKED: "what was asked for",
    NEEDED: "what the task needs",
    CHANGED: "files changed within a day",
    TESTS: "sources and tests",
    CONFIGURATION: "configuration",
    DOCUMENTS: "documents",
    REST: "other files",
}
_KINDS = {"code": TESTS, "test": TESTS, "config": CONFIGURATION, "doc": DOCUMENTS}
#: Signals that say that the task speaks of a file, and those of the profile's own requirements and globs.
_SPEAKING = ("body", "path", "definitions", "names", "mention", "scope", "votes", "passages", "evidence")
_NEED = frozenset((*_SPEAKING, "required", "included"))
_DAY_S = 86_400
#: A commit of more files (an import, a renaming) says of none of them that somebody works on it.
_WIDE = 30


def tier(item: Ranked, changed: Collection[str], *, has_task: bool) -> int:
    """The tier of a file; ``changed`` are the paths that changed within a day."""
    parts = item.parts
    if parts.get("required", 0.0) >= DEMAND:
        return ASKED
    if not has_task or not _NEED.isdisjoint(parts):
        return NEEDED
    return CHANGED if item.facts.path in changed else _KINDS.get(item.facts.kind, REST)


def changed_since(chronicle: Chronicle, uncommitted: Iterable[str], now: float) -> frozenset[str]:
    """Paths with uncommitted changes and those of the commits of the day before ``now`` (seconds since the epoch)."""
    commits = (commit for commit in chronicle.since(now - _DAY_S) if len(commit.files) <= _WIDE)
    return frozenset(uncommitted).union(*(commit.files for commit in commits))

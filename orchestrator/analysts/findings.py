"""What an analyst found, and the bounded result that it is handed over in."""

from __future__ import annotations

from collections import Counter, defaultdict
from collections.abc import Iterable, Mapping
from typing import Any, Final, Literal

import msgspec

Severity = Literal["critical", "high", "medium", "low", "info"]

SEVERITIES: Final[tuple[Severity, ...]] = ("critical", "high", "medium", "low", "info")
RANK: Final[Mapping[str, int]] = {name: index for index, name in enumerate(SEVERITIES)}
_MESSAGE_CHARS = 400
#: A result travels as one JSON line, of which the pool parses at most 1 MiB; lists inside it are cut far below.
_LIST_ITEMS = 100


class Finding(msgspec.Struct, frozen=True):
    """One thing to know or to mend.

    Attributes:
        severity: critical | high | medium | low | info.
        kind: a stable slug, such as ``import-cycle``.
        path: file in the project, empty when it concerns the whole.
        line: 1-based, 0 when there is none.
        message: what is the case.
        suggestion: what to do about it.
        weight: among equals of one severity the heavier come first; not part of the result.
    """

    severity: Severity
    kind: str
    path: str
    line: int
    message: str
    suggestion: str = ""
    weight: float = 0.0

    @property
    def place(self) -> str:
        """Where it is, as far as that is known: ``path:line``, ``path``, or ``the project``."""
        return f"{self.path}:{self.line}" if self.path and self.line else self.path or "the project"

    def document(self) -> dict[str, Any]:
        """The finding as the result shows it."""
        return {
            "severity": self.severity,
            "kind": self.kind,
            "path": self.path,
            "line": self.line or None,
            "message": self.message[:_MESSAGE_CHARS],
            "suggestion": self.suggestion[:_MESSAGE_CHARS],
        }


class Report:
    """Collects findings, figures and decisions, and makes the contract's result of them."""

    def __init__(self, *, max_findings: int = 60, per_kind: int = 8) -> None:
        self._max_findings = max_findings
        self._per_kind = per_kind
        self.findings: list[Finding] = []
        self.metrics: dict[str, Any] = {}
        self.artifacts: dict[str, Any] = {}
        self.decisions: list[str] = []
        self.errors: list[str] = []
        self.warnings: list[str] = []
        self.next_steps: list[str] = []
        self.summary = ""
        self.status: Literal["success", "partial", "failed"] = "success"

    def add(
        self,
        severity: Severity,
        kind: str,
        message: str,
        *,
        path: str = "",
        line: int = 0,
        suggestion: str = "",
        weight: float = 0.0,
    ) -> None:
        """Note one finding."""
        self.findings.append(Finding(severity, kind, path, line, message, suggestion, weight))

    def extend(self, findings: Iterable[Finding]) -> None:
        """Note several findings."""
        self.findings.extend(findings)

    def ranked(self) -> list[Finding]:
        """All findings once each, the most important first."""
        seen: set[tuple[str, str, int, str]] = set()
        unique: list[Finding] = []
        for finding in self.findings:
            key = (finding.kind, finding.path, finding.line, finding.message)
            if key not in seen:
                seen.add(key)
                unique.append(finding)
        return sorted(unique, key=lambda one: (RANK[one.severity], -one.weight, one.path, one.line))

    def _kept(self) -> tuple[list[Finding], dict[str, int]]:
        """The findings that the result shows, and how many of each kind it leaves out."""
        taken: Counter[str] = Counter()
        kept: list[Finding] = []
        left: Counter[str] = Counter()
        for finding in self.ranked():
            is_grave = RANK[finding.severity] <= RANK["high"]
            limit = 3 * self._per_kind if is_grave else self._per_kind
            if taken[finding.kind] >= limit or len(kept) >= self._max_findings:
                left[finding.kind] += 1
                continue
            taken[finding.kind] += 1
            kept.append(finding)
        return kept, dict(left)

    def result(self) -> dict[str, Any]:
        """The result of contract section 3.2, with ``summary`` and ``findings``."""
        kept, left = self._kept()
        counts = Counter(finding.severity for finding in self.ranked())
        metrics = {
            **self.metrics,
            "findings_total": sum(counts.values()),
            **{f"findings_{name}": counts[name] for name in SEVERITIES if counts[name]},
        }
        if left:
            metrics["findings_left_out"] = left
        return {
            "status": self.status,
            "summary": self.summary,
            "findings": [finding.document() for finding in kept],
            "files_created": [],
            "files_modified": [],
            "files_deleted": [],
            "decisions": self.decisions[:_LIST_ITEMS],
            "metrics": metrics,
            "artifacts": {name: _bounded(value) for name, value in self.artifacts.items()},
            "errors": _texts(self.errors),
            "warnings": _texts(self.warnings),
            "next_steps": _texts(self.next_steps),
        }


def _texts(texts: list[str]) -> list[str]:
    return [text[:2000] for text in dict.fromkeys(texts)][:_LIST_ITEMS]


def _bounded(value: Any) -> Any:
    return value[:_LIST_ITEMS] if isinstance(value, list) else value


def plural(count: int, noun: str, plural_noun: str = "") -> str:
    """``count`` with its noun: "1 file", "2 files", "1,234 files"."""
    return f"{count:,} {noun if count == 1 else plural_noun or noun + 's'}"


def by_path(findings: Iterable[Finding]) -> dict[str, list[Finding]]:
    """Findings grouped by their file."""
    groups: dict[str, list[Finding]] = defaultdict(list)
    for finding in findings:
        groups[finding.path].append(finding)
    return dict(groups)

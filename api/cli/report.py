"""The report of a run: each agent's outcome, and the findings of all, the gravest first.

Building it (``outcome_of``, ``build_report``) is pure; ``render_report`` draws it for a reader, ``markdown``
writes it for a file.
"""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any, NamedTuple

from api.cli.output import plain

if TYPE_CHECKING:
    from rich.console import Console

JSON = dict[str, Any]
#: Gravest first; other words of agents and tools are read as one of these.
SEVERITIES = ("critical", "high", "medium", "low", "info")
_SYNONYMS = {
    "blocker": "critical",
    "fatal": "critical",
    "error": "high",
    "major": "high",
    "warning": "medium",
    "warn": "medium",
    "moderate": "medium",
    "minor": "low",
    "note": "info",
    "hint": "info",
    "information": "info",
}
_STYLES = {"critical": "bold red", "high": "red", "medium": "yellow", "low": "cyan", "info": "dim"}
_REPEATED = re.compile(r"( \[[a-z0-9-]+( in the change)?\])+$")
#: How many findings of all agents are shown first, and how many lines of each kind for an agent.
TOP_FINDINGS = 10
MAX_LINES = 8


class Finding(NamedTuple):
    """One thing that an agent found, with its place where it has one."""

    severity: str
    message: str
    location: str
    agent_type: str


class Outcome(NamedTuple):
    """One agent's part of the report."""

    agent_type: str
    agent_id: str | None
    status: str
    summary: str
    decisions: list[str]
    findings: list[Finding]
    warnings: list[str]
    errors: list[str]
    next_steps: list[str]
    files: list[str]
    result_id: str | None
    worktree: str | None


def outcome_of(
    result: Mapping[str, Any], *, status: str | None = None, agent: Mapping[str, Any] | None = None
) -> Outcome:
    """The outcome of a stored result, and of its agent; odd shapes are taken as they are, never refused."""
    body = result.get("result")
    body = body if isinstance(body, Mapping) else {}
    agent_type = str(result.get("agent_type") or "")
    found = [_finding(item, agent_type) for item in _items(body.get("findings"))]
    changed = [path for key in ("files_created", "files_modified", "files_deleted") for path in _texts(body.get(key))]
    return Outcome(
        agent_type=agent_type,
        agent_id=result.get("agent_id"),
        status=str(status or body.get("status") or "unknown"),
        summary=str(body.get("summary") or ""),
        decisions=_texts(body.get("decisions")),
        findings=sorted(found, key=lambda finding: SEVERITIES.index(finding.severity)),
        warnings=_texts(body.get("warnings")),
        errors=_texts(body.get("errors")),
        next_steps=_texts(body.get("next_steps")),
        files=changed,
        result_id=result.get("id"),
        worktree=_worktree(agent),
    )


def missing_outcome(step: Mapping[str, Any], agent: Mapping[str, Any] | None) -> Outcome:
    """The outcome of a step that left no result."""
    reason = str((agent or {}).get("error") or "")
    return Outcome(
        agent_type=str(step.get("agent_type") or ""),
        agent_id=step.get("agent_id"),
        status=str((agent or {}).get("status") or step.get("status") or "unknown"),
        summary="",
        decisions=[],
        findings=[],
        warnings=[],
        errors=[reason] if reason else [],
        next_steps=[],
        files=[],
        result_id=None,
        worktree=_worktree(agent),
    )


def _worktree(agent: Mapping[str, Any] | None) -> str | None:
    """Where an agent that had a worktree left its work."""
    path = agent.get("workspace_path") if agent is not None and agent.get("workspace") == "worktree" else None
    return str(path) if path else None


def build_report(run: Mapping[str, Any], outcomes: Sequence[Outcome]) -> JSON:
    """The report as a plain document: the run, counts by severity, top findings, and each agent's outcome."""
    findings = merged_findings(outcomes)
    counts = {severity: sum(f.severity == severity for f in findings) for severity in SEVERITIES}
    return {
        "run": dict(run),
        "status": run.get("status"),
        "findings_by_severity": {severity: count for severity, count in counts.items() if count},
        "top_findings": [finding._asdict() for finding in findings[:TOP_FINDINGS]],
        "agents": [
            {**outcome._asdict(), "findings": [finding._asdict() for finding in outcome.findings]}
            for outcome in outcomes
        ],
    }


def merged_findings(outcomes: Sequence[Outcome]) -> list[Finding]:
    """The findings of all agents, each once though reviewers repeat them, the gravest first."""
    seen: set[tuple[str, str]] = set()
    merged: list[Finding] = []
    for outcome in outcomes:
        for finding in outcome.findings:
            if _key(finding) not in seen:
                seen.add(_key(finding))
                merged.append(finding)
    return sorted(merged, key=lambda finding: SEVERITIES.index(finding.severity))


def _key(finding: Finding) -> tuple[str, str]:
    # Who repeats a finding names its first finder at the end: "... [test-engineer]".
    return finding.location, _REPEATED.sub("", finding.message)


def render_report(console: Console, run: Mapping[str, Any], outcomes: Sequence[Outcome], took_s: float | None) -> None:
    """Draw the report; it reads well at 80 columns."""
    from rich.text import Text

    report = build_report(run, outcomes)
    head = Text()
    head.append(f"Run {run.get('run_id')} ", style="bold")
    status = str(run.get("status"))
    head.append(status, style="bold green" if status == "completed" else "bold red")
    if took_s is not None:
        head.append(f" in {took_s:.1f} s")
    console.print(head)
    if run.get("error"):
        console.print(Text(f"  {plain(run['error'])}", style="red"))
    counts = report["findings_by_severity"]
    if counts:
        console.print(Text("\nFindings: " + ", ".join(f"{n} {severity}" for severity, n in counts.items())))
        every = merged_findings(outcomes)
        for finding in every[:TOP_FINDINGS]:
            _print_finding(console, finding, is_named=True)
        if len(every) > TOP_FINDINGS:
            console.print(Text(f"  and {len(every) - TOP_FINDINGS} more, below each agent", style="dim"))
    told: set[tuple[str, str]] = set()
    for outcome in outcomes:
        console.print()
        fresh = [one for one in outcome.findings if _key(one) not in told or one.message.endswith("in the change]")]
        render_outcome(console, outcome._replace(findings=fresh), repeated=len(outcome.findings) - len(fresh))
        told.update(_key(one) for one in outcome.findings)


def render_outcome(console: Console, outcome: Outcome, *, repeated: int = 0) -> None:
    """Draw one agent's outcome; ``repeated`` tells how many findings of agents above were left out of it."""
    from rich.text import Text

    is_good = outcome.status in ("success", "completed")
    head = Text()
    head.append("✓ " if is_good else "✗ " if outcome.status != "partial" else "~ ", style="green" if is_good else "red")
    head.append(plain(outcome.agent_type), style="bold")
    head.append(f"  {plain(outcome.status)}")
    if outcome.result_id:
        head.append(f"  {outcome.result_id}", style="dim")
    console.print(head)
    if outcome.summary:
        _wrapped(console, plain(outcome.summary), "  ")
    for title, lines, style in (
        ("Errors", outcome.errors, "red"),
        ("Warnings", outcome.warnings, "yellow"),
        ("Decisions", outcome.decisions, ""),
    ):
        _section(console, title, lines, style)
    if outcome.findings:
        console.print(Text("  Findings"))
        for finding in outcome.findings[:MAX_LINES]:
            _print_finding(console, finding, is_named=False)
        _more(console, len(outcome.findings))
    if repeated:
        console.print(Text(f"  and {repeated} of the findings above", style="dim"))
    _section(console, "Files", outcome.files, "")
    _section(console, "Worktree", [outcome.worktree] if outcome.worktree else [], "")
    _section(console, "Next", outcome.next_steps, "")


def markdown(run: Mapping[str, Any], outcomes: Sequence[Outcome]) -> str:
    """The whole report as Markdown, nothing left out."""
    lines = [f"# {plain(run.get('task'))}", ""]
    lines += [f"Run `{run.get('run_id')}` of workflow `{run.get('workflow')}`: **{run.get('status')}**.", ""]
    if run.get("error"):
        lines += [plain(run["error"]), ""]
    for outcome in outcomes:
        lines += [f"## {plain(outcome.agent_type)}: {plain(outcome.status)}", ""]
        if outcome.summary:
            lines += [plain(outcome.summary), ""]
        sections = {
            "Errors": outcome.errors,
            "Warnings": outcome.warnings,
            "Decisions": outcome.decisions,
            "Findings": [
                f"**{f.severity}** {plain(f.message)}" + (f" (`{plain(f.location)}`)" if f.location else "")
                for f in outcome.findings
            ],
            "Files": outcome.files,
            "Worktree": [outcome.worktree] if outcome.worktree else [],
            "Next steps": outcome.next_steps,
        }
        for title, items in sections.items():
            if items:
                lines += [f"### {title}", "", *(f"- {_one_line(item)}" for item in items), ""]
    return "\n".join(lines)


# -- parts -----------------------------------------------------------------------------------------


def _items(value: Any) -> list[Any]:
    if value is None:
        return []
    return list(value) if isinstance(value, (list, tuple)) else [value]


def _texts(value: Any) -> list[str]:
    """What an agent said as a list of texts; objects are shown by their usual keys."""
    texts: list[str] = []
    for item in _items(value):
        if isinstance(item, Mapping):
            keys = ("path", "decision", "message", "title", "text", "summary", "task", "description", "reason")
            named = next((item[key] for key in keys if isinstance(item.get(key), str) and item[key]), None)
            place = _location(item) if "path" not in item or "message" in item else ""
            texts.append((str(named) if named is not None else plain(item)) + (f" ({place})" if place else ""))
        elif item not in (None, ""):
            texts.append(str(item))
    return texts


def _finding(item: Any, agent_type: str) -> Finding:
    if not isinstance(item, Mapping):
        return Finding("info", str(item), "", agent_type)
    word = str(item.get("severity") or item.get("level") or "info").lower()
    severity = word if word in SEVERITIES else _SYNONYMS.get(word, "info")
    message = item.get("message") or item.get("title") or item.get("text") or item.get("description") or plain(item)
    return Finding(severity, str(message), _location(item), agent_type)


def _location(item: Mapping[str, Any]) -> str:
    place: Any = item.get("location") or item
    if isinstance(place, str):
        return place
    if not isinstance(place, Mapping):
        return ""
    path = place.get("path") or place.get("file")
    line = place.get("line") or place.get("start_line")
    return f"{path}:{line}" if path and line else str(path or "")


def _print_finding(console: Console, finding: Finding, *, is_named: bool) -> None:
    from rich.padding import Padding
    from rich.text import Text

    text = Text()
    text.append(f"{finding.severity:<8} ", style=_STYLES[finding.severity])
    if finding.location:
        text.append(f"{plain(finding.location)}: ", style="bold")
    text.append(_one_line(finding.message))
    if is_named:
        text.append(f" [{plain(finding.agent_type)}]", style="dim")
    console.print(Padding(text, (0, 0, 0, 2 if is_named else 4), expand=False))


def _section(console: Console, title: str, lines: Sequence[str], style: str) -> None:
    from rich.text import Text

    if not lines:
        return
    console.print(Text(f"  {title}", style=style))
    for line in lines[:MAX_LINES]:
        _wrapped(console, f"- {_one_line(line)}", "    ")
    _more(console, len(lines))


def _more(console: Console, count: int) -> None:
    from rich.text import Text

    if count > MAX_LINES:
        console.print(Text(f"    and {count - MAX_LINES} more in the stored report", style="dim"))


def _wrapped(console: Console, text: str, indent: str) -> None:
    from rich.padding import Padding
    from rich.text import Text

    console.print(Padding(Text(text), (0, 0, 0, len(indent)), expand=False))


def _one_line(text: str) -> str:
    return " ".join(plain(text).split())

"""The reviewer: what changed, how risky it is, what was forgotten, and what earlier agents found in it."""

from __future__ import annotations

import re
from typing import Any, Final

from agentpool.agent import Agent
from orchestrator.analysts import pysource, secrets
from orchestrator.analysts.architecture import measured
from orchestrator.analysts.diffs import Change, FileChange, find_change
from orchestrator.analysts.findings import plural
from orchestrator.analysts.gathering import Gathered, gather
from orchestrator.analysts.languages import PROGRAMMING, is_fixture, language_of, role_of
from orchestrator.analysts.manifests import LOCKS
from orchestrator.analysts.sourcechecks import CONFLICT
from orchestrator.analysts.workbench import Workbench, conduct

_DEBUG: Final = {
    "Python": re.compile(r"^\s*(?:breakpoint\(\)|i?pdb\.set_trace\(\)|import i?pdb\b)"),
    "JavaScript": re.compile(r"^\s*(?:debugger\b|console\.(?:log|debug)\()"),
    "TypeScript": re.compile(r"^\s*(?:debugger\b|console\.(?:log|debug)\()"),
    "Rust": re.compile(r"\bdbg!\("), "Ruby": re.compile(r"^\s*(?:binding\.(?:pry|irb)|byebug)\b"),
    "PHP": re.compile(r"^\s*(?:var_dump|print_r|dd)\("), "Go": re.compile(r"^\s*(?:spew\.Dump|println)\("),
    "Java": re.compile(r"^\s*System\.out\.print"),
}  # fmt: skip
_FOCUSED = re.compile(
    r"^\s*(?:describe|it|test|context)\.only\(|^\s*@pytest\.mark\.(?:skip|xfail)\b|\bt\.Skip\(|#\[ignore\]"
)
_TODO = re.compile(r"\b(?:TODO|FIXME|XXX|HACK)\b")
_DEFINITION = re.compile(r"^(?:def|class|async def)\s+([A-Za-z]\w*)")
_MANIFEST_OF: Final = {
    "package.json": "npm", "Cargo.toml": "cargo", "go.mod": "go", "Gemfile": "gem", "composer.json": "composer",
}  # fmt: skip
_COMPLEX = 15
_BIG_CHANGE_LINES = 800


def run(agent: Agent) -> dict[str, Any]:
    """Review the uncommitted work (else the branch, else the last commit) and give a verdict on it."""
    return conduct(agent, lambda bench: Reviewer(bench).work())


class Reviewer:
    """One review of one change."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._report = bench.report
        self._change = Change("", ())
        self._gathered: list[Gathered] = []
        self._reasons: dict[str, list[str]] = {}

    def work(self) -> None:
        """The change itself, then what others found, then the verdict."""
        self._bench.step("reading the change", 10, self._read)
        self._bench.step("checking the added lines", 30, self._check_lines)
        self._bench.step("looking at the functions touched", 45, self._check_functions)
        self._bench.step("looking for what was forgotten", 60, self._check_omissions)
        self._bench.step("gathering earlier findings", 75, self._gather, always=True)
        self._bench.step("weighing risks", 90, self._weigh, always=True)
        self._conclude()

    def _read(self) -> None:
        change = find_change(self._bench.git)
        files = [self._with_text(file) if file.status == "untracked" else file for file in change.files]
        self._change = Change(change.basis, tuple(files))
        self._report.metrics |= {
            "basis": change.basis,
            "files_changed": len(files),
            "lines_added": sum(len(file.added) for file in files),
            "lines_removed": sum(len(file.removed) for file in files),
        }

    def _with_text(self, file: FileChange) -> FileChange:
        text = self._bench.tree.text(file.path)
        if text is None:
            return FileChange(file.path, "untracked", is_binary=True)
        return FileChange(file.path, "untracked", tuple(enumerate(text.splitlines(), 1)))

    def _because(self, path: str, reason: str) -> None:
        self._reasons.setdefault(path, []).append(reason)

    def _check_lines(self) -> None:
        for file in self._change.files:
            language = language_of(file.path)
            role = role_of(file.path, language)
            if role in {"vendored", "generated"}:
                continue
            self._check_secrets(file, is_test=role in {"test", "example", "docs"} or is_fixture(file.path))
            debug = _DEBUG.get(language or "") if role == "source" else None
            for line, text in file.added:
                if CONFLICT.match(text) and not is_fixture(file.path):
                    self._report.add(
                        "critical",
                        "conflict-marker",
                        "An unresolved merge conflict is part of the change.",
                        path=file.path,
                        line=line,
                        suggestion="Resolve it.",
                    )
                elif debug is not None and debug.search(text):
                    self._report.add(
                        "medium",
                        "debug-left",
                        f"Debugging output is part of the change: {text.strip()[:80]}",
                        path=file.path,
                        line=line,
                        suggestion="Remove it, or log it.",
                    )
                elif role == "test" and _FOCUSED.search(text):
                    self._report.add(
                        "medium",
                        "test-switched-off",
                        f"The change skips or narrows tests: {text.strip()[:80]}",
                        path=file.path,
                        line=line,
                        suggestion="Say why beside it, or take it back.",
                    )
            todos = sum(bool(_TODO.search(text)) for _, text in file.added) if role == "source" else 0
            if todos:
                self._report.metrics["todos_added"] = self._report.metrics.get("todos_added", 0) + todos
            self._check_python(file, language)

    def _check_secrets(self, file: FileChange, *, is_test: bool) -> None:
        lines = [text for _, text in file.added]
        for hit in secrets.find_secrets("\n".join(lines)):
            self._report.add(
                "low" if is_test else "critical",
                "secret",
                f"The change adds what looks like a {hit.name}: {hit.shown}",
                path=file.path,
                line=file.added[hit.line - 1][0],
                suggestion="Take it out before it is pushed.",
            )

    def _check_python(self, file: FileChange, language: str | None) -> None:
        if language != "Python" or file.status == "deleted" or is_fixture(file.path):
            return
        module = pysource.parse(file.path, self._bench.tree.data(file.path) or b"", compiled=True)
        if module.tree is None:
            self._report.add(
                "critical",
                "syntax-error",
                f"The changed file does not compile: {module.error}.",
                path=file.path,
                line=module.error_line,
            )

    def _check_functions(self) -> None:
        for file in self._change.files:
            language = language_of(file.path)
            if file.status == "deleted" or not file.added or role_of(file.path, language) != "source":
                continue
            for one in measured(self._bench, file.path):
                if one.complexity > _COMPLEX and file.touches(one.line, one.end):
                    self._because(file.path, f"{one.name} has {one.complexity} paths")
                    self._report.add(
                        "low",
                        "complex-function-touched",
                        f"{one.name}, which the change touches, has {one.complexity} independent paths.",
                        path=one.path,
                        line=one.line,
                        suggestion="Make sure that tests reach the changed paths.",
                        weight=one.complexity,
                    )

    def _check_omissions(self) -> None:
        files = self._change.files
        roles = {file.path: role_of(file.path, language_of(file.path)) for file in files}
        code = [file for file in files if roles[file.path] == "source" and language_of(file.path) in PROGRAMMING]
        added = sum(len([text for _, text in file.added if text.strip()]) for file in code)
        has_tests = any(role == "test" for role in roles.values()) or any(
            "#[test]" in text or "#[tokio::test]" in text for file in code for _, text in file.added
        )
        if added >= 10 and not has_tests:
            names = ", ".join(file.path for file in sorted(code, key=lambda one: -len(one.added))[:3])
            self._report.add(
                "medium" if added >= 30 else "low",
                "no-tests-changed",
                f"{plural(added, 'line')} of code added (mostly in {names}), no test.",
                suggestion="Add a test that fails without the change.",
            )
        changed = {file.path.rpartition("/")[2] for file in files}
        for file in files:
            name = file.path.rpartition("/")[2]
            locks = LOCKS.get(_MANIFEST_OF.get(name, ""), ())
            tracked = [lock for lock in locks if self._bench.tree.named(lock)]
            if tracked and not changed & set(tracked) and self._changes_dependencies(file):
                self._report.add(
                    "medium",
                    "lock-not-updated",
                    f"{name} changes dependencies, {tracked[0]} does not follow.",
                    path=file.path,
                    suggestion="Update the lock file in the same commit.",
                )
            if file.is_binary and file.status in {"added", "untracked"}:
                size = getattr(self._bench.tree.get(file.path), "size", 0)
                if size > 1_000_000:
                    self._report.add(
                        "low",
                        "large-binary",
                        f"A binary file of {size / 1e6:.1f} MB is added.",
                        path=file.path,
                        suggestion="Keep it out of the history, or use LFS.",
                    )
        self._check_removed(code)

    def _changes_dependencies(self, file: FileChange) -> bool:
        texts = [text for _, text in file.added] + list(file.removed)
        return any(
            re.search(r"[\"'=@^~v]\s*\d+\.\d+", text) and not re.search(r"\"?version\"?\s*[:=]", text) for text in texts
        )

    def _check_removed(self, code: list[FileChange]) -> None:
        """Python names that the change removes while other files still import them."""
        for file in code:
            if language_of(file.path) != "Python":
                continue
            gone = {match[1] for text in file.removed if (match := _DEFINITION.match(text))}
            here = self._bench.tree.text(file.path) or ""
            gone = {name for name in gone if not re.search(rf"\b{name}\b", here)}
            module = file.path.rpartition("/")[2].removesuffix(".py")
            for name in sorted(gone):
                pattern = re.compile(rf"from\s+[\w.]*\b{re.escape(module)}\s+import\b[^\n]*\b{name}\b")
                user = next(
                    (
                        other.path
                        for other in self._bench.tree.of({"Python"})
                        if name in (text := self._bench.tree.text(other.path) or "") and pattern.search(text)
                    ),
                    None,
                )
                if user is not None:
                    self._report.add(
                        "high",
                        "removed-but-used",
                        f"{name} is removed, yet {user} imports it.",
                        path=file.path,
                        suggestion="Keep it, or change its users too.",
                    )

    def _gather(self) -> None:
        changes = {file.path: file for file in self._change.files}
        self._gathered = gather(self._bench.earlier, changes, self._bench.hotspots)
        known = {(finding.path, finding.line) for finding in self._report.findings if finding.line}
        self._gathered = [one for one in self._gathered if (one.finding.path, one.finding.line) not in known]
        for one in self._gathered[:40]:
            place = " in the change" if one.in_change else ""
            self._report.add(
                one.finding.severity,
                one.finding.kind,
                f"{one.finding.message} [{', '.join(one.found_by)}{place}]",
                path=one.finding.path,
                line=one.finding.line,
                suggestion=one.finding.suggestion,
                weight=one.finding.weight,
            )
        self._report.artifacts["gathered"] = [one.document() for one in self._gathered]
        self._report.artifacts["gathered_from"] = [
            {"agent_type": output.agent_type, "status": output.status, "findings": len(output.items("findings"))}
            for output in self._bench.earlier.outputs
        ]
        self._report.metrics["earlier_findings"] = len(self._gathered)
        self._report.metrics["earlier_findings_in_change"] = sum(one.in_change for one in self._gathered)

    def _weigh(self) -> None:
        hot, bare = self._bench.hotspots, set(self._bench.earlier.paths("untested"))
        rows = []
        for file in self._change.files:
            score = hot.get(file.path, 0.0)
            if score >= 30:
                self._because(file.path, f"hotspot (score {score:.0f})")
            if file.path in bare:
                self._because(file.path, "no test names it")
            if len(file.added) + len(file.removed) > 200:
                self._because(file.path, "large change")
            reasons = self._reasons.get(file.path, [])
            is_code = role_of(file.path, language_of(file.path)) == "source"
            risk = "high" if len(reasons) >= 2 and is_code else "medium" if reasons and is_code else "low"
            rows.append(
                {
                    "path": file.path,
                    "status": file.status,
                    "added": len(file.added),
                    "removed": len(file.removed),
                    "risk": risk,
                    "reasons": reasons,
                }
            )
        order = {"high": 0, "medium": 1, "low": 2}
        rows.sort(key=lambda row: (order[str(row["risk"])], -int(str(row["added"]))))
        self._report.artifacts["changed_files"] = rows
        total = self._report.metrics.get("lines_added", 0)
        if total > _BIG_CHANGE_LINES and len(rows) > 10:
            self._report.add(
                "info",
                "large-change",
                f"{total:,} lines in {len(rows)} files are hard to review at once.",
                suggestion="Commit in parts, one idea each.",
            )

    def _conclude(self) -> None:
        report, files = self._report, self._change.files
        own = [one for one in report.ranked() if not one.message.endswith("]")]
        inside = [one.finding for one in self._gathered if one.in_change]
        failing = [one.finding for one in self._gathered if one.finding.kind == "test-failure"]
        grave = [one for one in [*own, *inside] if one.severity in {"critical", "high"}]
        medium = [one for one in [*own, *inside] if one.severity == "medium"]
        if not files:
            verdict, why = "nothing to review", f"no change found ({self._change.basis})"
        elif grave or failing:
            reasons = list(
                dict.fromkeys([*(f"{one.kind} in {one.place}" for one in grave), *(["tests fail"] if failing else [])])
            )
            verdict, why = "request changes", "; ".join(reasons[:5])
        elif medium:
            verdict, why = (
                "approve with comments",
                "; ".join(f"{one.kind} in {one.path or 'the change'}" for one in medium[:4]),
            )
        else:
            verdict, why = "approve", "nothing grave found by these checks"
        report.artifacts["verdict"] = verdict
        report.decisions.append(f"Verdict: {verdict} ({why}).")
        givers = ", ".join(self._bench.earlier.agent_types)
        if givers:
            report.decisions.append(
                f"Brought together what {givers} found: {plural(len(self._gathered), 'finding')}, "
                f"{report.metrics.get('earlier_findings_in_change', 0)} of them in the change."
            )
        risky = [row["path"] for row in report.artifacts.get("changed_files", []) if row["risk"] == "high"]
        size = (
            f"{plural(len(files), 'file')}, +{report.metrics.get('lines_added', 0)} "
            f"−{report.metrics.get('lines_removed', 0)} lines; "
        )
        report.summary = (
            f"{self._change.basis[:1].upper()}{self._change.basis[1:]}: {size if files else ''}{verdict}"
            + (f". Read most carefully: {', '.join(risky[:3])}." if risky else ".")
        )
        report.next_steps.extend(
            f"Settle {one.kind} in {one.place if one.path else 'the change'}" for one in (grave or medium)[:5]
        )

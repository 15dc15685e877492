"""The security auditor: secrets, dangerous calls, unsafe sources of dependencies, images and pipelines, file modes."""

from __future__ import annotations

import re
from collections import Counter
from typing import Any

import msgspec

from agentpool.agent import Agent
from orchestrator.analysts import hygiene, pysecurity, pysource, secrets, securityrules
from orchestrator.analysts.findings import Finding, Severity, plural
from orchestrator.analysts.languages import DOCUMENTS, PROGRAMMING, is_fixture
from orchestrator.analysts.manifests import has_lock, read_manifests
from orchestrator.analysts.tree import SourceFile
from orchestrator.analysts.workbench import Workbench, conduct

_KEY_FILE = re.compile(r"(^|/)(id_(rsa|dsa|ecdsa|ed25519)|[^/]+\.(pem|key|p12|pfx|jks|keystore|ppk))$")
_ENV_FILE = re.compile(r"(^|/)\.env(\.(?!example|sample|template|dist|defaults|test|schema)[\w.-]+)?$")
_PLAIN_HTTP = re.compile(r"\bhttp://(?!localhost|127\.|0\.0\.0\.0|\[::1\])[\w.-]+")
_REVOKE = "Revoke it, then take it out of the repository and its history; read it at run time."
_HARMLESS = "Make sure that it was never valid anywhere."
_LESS: dict[str, Severity] = {"critical": "medium", "high": "low", "medium": "low", "low": "info", "info": "info"}
#: Findings of Docker and CI files that are matters of security; the rest belongs to the infrastructure analyst.
_SECURITY_KINDS = frozenset(
    {
        "secret-in-image",
        "runs-as-root",
        "download-and-run",
        "untrusted-checkout",
        "script-injection",
        "broad-permissions",
        "action-not-pinned",
        "default-permissions",
    }
)


def run(agent: Agent) -> dict[str, Any]:
    """Audit the project; secrets are never shown, only where they are and what they look like."""
    return conduct(agent, lambda bench: Auditor(bench).work())


class Auditor:
    """One audit of one project."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._report = bench.report
        self._scanned = 0

    def work(self) -> None:
        """Code that outsiders reach first: hotspots of the architect lead, tests come last."""
        self._bench.step("looking for secrets", 15, self._find_secrets)
        self._bench.step("looking for dangerous calls", 45, self._find_calls)
        self._bench.step("checking dependency sources", 70, self._check_manifests)
        self._bench.step("checking images and pipelines", 80, self._check_pipelines)
        self._bench.step("checking files", 90, self._check_files)
        self._conclude()

    def _find_secrets(self) -> None:
        for file in self._bench.tree.files:
            if self._bench.deadline.is_over:
                self._report.warnings.append("not all files were searched for secrets: time was up")
                break
            if file.role in {"vendored", "generated"} or (file.language is None and file.size > 200_000):
                continue
            text = self._bench.tree.text(file.path)
            if text is None:
                continue
            self._scanned += 1
            is_harmless = (
                file.role in {"test", "example", "docs"} or file.language in DOCUMENTS or is_fixture(file.path)
            )
            for hit in secrets.find_secrets(text):
                if is_harmless and hit.name.startswith(("value of", "password in", "JSON web")):
                    continue
                harmless: Severity = "low" if hit.name == "private key" else "medium"
                self._report.add(
                    harmless if is_harmless else hit.severity,
                    "secret",
                    f"Looks like a {hit.name}: {hit.shown}" + (f" (in {file.role} code)" if is_harmless else ""),
                    path=file.path,
                    line=hit.line,
                    suggestion=_HARMLESS if is_harmless else _REVOKE,
                )

    def _find_calls(self) -> None:
        hot = self._bench.hotspots
        files = sorted(
            self._bench.tree.of(PROGRAMMING, ("source", "tooling")),
            key=lambda file: (-hot.get(file.path, 0.0), file.path),
        )
        for file in files:
            if self._bench.deadline.is_over:
                self._report.warnings.append("not all files were checked for dangerous calls: time was up")
                break
            if self._bench.tree.is_generated(file.path):
                continue
            for finding in self._calls(file):
                severity = _LESS[finding.severity] if file.role != "source" else finding.severity
                weight = hot.get(file.path, 0.0)
                self._report.extend([msgspec.structs.replace(finding, severity=severity, weight=weight)])
        self._report.metrics["files_checked_for_calls"] = len(files)

    def _calls(self, file: SourceFile) -> list[Finding]:
        if file.language == "Python":
            module = pysource.parse(file.path, self._bench.tree.data(file.path) or b"")
            found = list(pysecurity.check(file.path, module.tree)) if module.tree is not None else []
        else:
            found = list(securityrules.check(file.path, self._bench.tree.text(file.path) or "", file.language))
        lines = self._bench.tree.lines(file.path) if found else []
        return [one for one in found if not _is_excused(lines, one.line)]

    def _check_manifests(self) -> None:
        tree = self._bench.tree
        dependencies = read_manifests(tree)
        loose: dict[str, list[str]] = {}
        for one in dependencies:
            if one.group == "option" and "trusted-host" in one.name:
                self._report.add(
                    "medium",
                    "insecure-source",
                    f"{one.spec}: TLS is not checked for this index.",
                    path=one.path,
                    line=one.line,
                    suggestion="Use an index with a valid certificate.",
                )
            elif _PLAIN_HTTP.search(one.spec):
                self._report.add(
                    "high",
                    "insecure-source",
                    f"{one.name} comes over plain HTTP: {one.spec[:100]}",
                    path=one.path,
                    line=one.line,
                    suggestion="Use https.",
                )
            elif one.ecosystem == "npm" and one.spec in {"*", "latest", "x", ""} and one.group != "peer":
                self._report.add(
                    "medium",
                    "unpinned-dependency",
                    f"{one.name} may become any version ({one.spec or 'none'}).",
                    path=one.path,
                    line=one.line,
                    suggestion="Give a range.",
                )
            elif one.ecosystem == "python" and not one.spec and one.path.endswith(".txt") and one.group == "main":
                loose.setdefault(one.path, []).append(one.name)
        for path, names in loose.items():
            if not has_lock(tree, "python", path):
                self._report.add(
                    "low",
                    "unpinned-dependency",
                    f"{plural(len(names), 'requirement')} without any version: {', '.join(names[:6])}.",
                    path=path,
                    suggestion="Pin them, with hashes where the file is what is deployed.",
                )
        self._report.metrics["dependencies"] = dict(
            Counter(one.ecosystem for one in dependencies if one.group != "option")
        )

    def _check_pipelines(self) -> None:
        tree = self._bench.tree
        found: list[Finding] = []
        for file in hygiene.docker_files(tree):
            found.extend(hygiene.check_dockerfile(file.path, tree.text(file.path) or ""))
        for file in hygiene.workflows(tree):
            found.extend(hygiene.check_workflow(file.path, tree.text(file.path) or ""))
        self._report.extend(one for one in found if one.kind in _SECURITY_KINDS)

    def _check_files(self) -> None:
        for file in self._bench.tree.files:
            if file.mode & 0o002:
                self._report.add(
                    "low",
                    "world-writable",
                    f"Every user may change this file (mode {file.mode:04o}).",
                    path=file.path,
                    suggestion="chmod o-w.",
                )
            is_harmless = file.role in {"test", "example", "docs", "vendored"} or is_fixture(file.path)
            if _ENV_FILE.search(file.path) and not is_harmless and self._is_tracked(file.path):
                self._report.add(
                    "medium",
                    "environment-file",
                    "An environment file is in the repository.",
                    path=file.path,
                    suggestion="Keep a .env.example instead and ignore the real one.",
                )
            text = self._bench.tree.text(file.path) if _KEY_FILE.search(file.path) else ""
            if text is None and not is_harmless:
                self._report.add(
                    "high",
                    "key-file",
                    "A binary key store is in the repository.",
                    path=file.path,
                    suggestion="Keep keys outside; rotate this one.",
                )

    def _is_tracked(self, path: str) -> bool:
        return bool(self._bench.git.run("ls-files", "--", path).stdout.strip())

    def _conclude(self) -> None:
        report = self._report
        ranked = report.ranked()
        counts = Counter(finding.severity for finding in ranked)
        report.metrics |= {"files_searched_for_secrets": self._scanned,
                           "kinds": dict(Counter(finding.kind for finding in ranked).most_common(15))}  # fmt: skip
        hot = self._bench.hotspots
        both = list(dict.fromkeys(one.path for one in ranked if hot.get(one.path, 0) >= 30 and one.severity != "info"))
        if hot:
            givers = ", ".join(self._bench.earlier.givers("hotspots"))
            where = f"findings in {', '.join(both[:4])} weigh more" if both else "none of them has a finding"
            report.decisions.append(f"Looked first at the hotspots that {givers} named: {where}.")
        grave = [one for one in ranked if one.severity in {"critical", "high"}]
        if grave:
            report.decisions.append(f"Treat {plural(len(grave), 'grave finding')} before anything else is released.")
        told = ", ".join(f"{counts[name]} {name}" for name in ("critical", "high", "medium", "low") if counts[name])
        report.summary = (
            f"{plural(self._scanned, 'file')} searched for secrets, {report.metrics.get('files_checked_for_calls', 0)} "
            f"for dangerous calls: {told or 'nothing found'}."
            + (f" Worst: {grave[0].kind} in {grave[0].path}:{grave[0].line}." if grave else "")
        )
        report.next_steps.extend(f"Check {one.kind} in {one.path}:{one.line}" for one in grave[:5])


def _is_excused(lines: list[str], line: int) -> bool:
    """Whether the code says in place that the risk was weighed: ``nosec``, ``noqa: S…``, ``eslint-disable``."""
    near = " ".join(lines[max(0, line - 2) : line + 1])
    return re.search(r"nosec|noqa:\s*S\d|nosemgrep|security/detect|eslint-disable.*(?:eval|security)", near) is not None

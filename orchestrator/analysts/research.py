"""The researcher: where in the project the words of the task live, what their history is, what stays open."""

from __future__ import annotations

import math
import re
from collections import Counter, defaultdict
from typing import Any, Final

import msgspec

from agentpool.agent import Agent
from orchestrator.analysts import pysource
from orchestrator.analysts.findings import plural
from orchestrator.analysts.languages import PROGRAMMING
from orchestrator.analysts.lexical import BRACES, functions
from orchestrator.analysts.tree import SourceFile
from orchestrator.analysts.workbench import Workbench, conduct

_WORD = re.compile(r"[A-Za-z][A-Za-z0-9]*")
_PARTS = re.compile(r"[A-Z]+(?=[A-Z][a-z])|[A-Z]?[a-z]+|[A-Z]+|\d+")
_QUOTED = re.compile(r"[`\"']([^`\"'\n]{2,80})[`\"']|\b([\w./-]+\.[A-Za-z]{1,5})\b|\b(\w+(?:[._]\w+)+)\b")
#: Words that a task is made of but that name nothing in it.
_STOP: Final = re.compile(
    r"(?:"
    r"a|about|above|add|after|again|all|also|an|and|any|are|as|at|be|because|been|before|being|below|"
    r"between|both|but|by|can|change|check|code|could|create|describe|do|does|doing|done|down|during|each|"
    r"explain|few|file|files|find|fix|for|from|function|further|get|had|has|have|having|he|help|her|here|"
    r"how|i|if|implement|improve|in|into|is|it|its|itself|just|let|look|make|me|more|most|my|need|new|no|"
    r"nor|not|now|of|off|on|once|one|only|or|other|our|out|over|own|please|project|review|same|see|she|"
    r"should|show|so|some|such|task|test|tests|than|that|the|their|them|then|there|these|they|this|those|"
    r"through|to|too|under|until|up|update|use|used|using|very|want|was|way|we|were|what|when|where|which|"
    r"while|who|why|will|with|work|write|would|you|your"
    r")"
)
_K1, _B = 1.2, 0.75
_MAX_HITS = 25
_SNIPPET_CHARS = 160


class Hit(msgspec.Struct, frozen=True):
    """One file that speaks of the task: ``terms`` with counts, best ``line`` and its text."""

    path: str
    score: float
    terms: dict[str, int]
    line: int
    snippet: str
    symbol: str


def run(agent: Agent) -> dict[str, Any]:
    """Read the project for the task and say where to look."""
    return conduct(agent, lambda bench: Researcher(bench).work())


def task_terms(task: str) -> list[str]:
    """The words of a task that may name something: lower case, without everyday words, compound names also in parts."""
    found: list[str] = []
    for word in _WORD.findall(task):
        parts = [part.lower() for part in _PARTS.findall(word)]
        found += [word.lower(), *(parts if len(parts) > 1 else [])]
    return list(dict.fromkeys(_stem(word) for word in found if len(word) > 2 and _STOP.fullmatch(word) is None))


class Researcher:
    """One reading of one project for one task."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._report = bench.report
        self._terms = task_terms(bench.agent.task)
        self._hits: list[Hit] = []

    def work(self) -> None:
        """Search, history, open questions."""
        if not self._terms:
            self._report.summary = "The task names nothing to look for."
            self._report.add(
                "info",
                "vague-task",
                "The task has no word that could name something in the project.",
                suggestion="Name a feature, a file, an error message or a symbol.",
            )
            return
        self._bench.step(f"searching for {', '.join(self._terms[:6])}", 20, self._search)
        self._bench.step("reading the history", 60, self._read_history)
        self._bench.step("relating earlier findings", 80, self._relate)
        self._conclude()

    def _search(self) -> None:
        """Rank files by Okapi BM25 (Robertson and Zaragoza, 2009), names of files counting as often as ten words."""
        counts: dict[str, Counter[str]] = {}
        sizes: dict[str, int] = {}
        frequency: Counter[str] = Counter()
        wanted = set(self._terms)
        for file in self._bench.tree.files:
            if self._bench.deadline.is_over:
                self._report.warnings.append("not all files were searched: time was up")
                break
            if file.role in {"vendored", "generated"} or (file.language is None and file.size > 100_000):
                continue
            found = self._count(file, wanted)
            sizes[file.path] = max(50, file.size // 6)
            if found:
                counts[file.path] = found
                frequency.update(found.keys())
        mean = sum(sizes.values()) / max(1, len(sizes))
        scores = {
            path: sum(self._weight(frequency[term], len(sizes)) * count * (_K1 + 1)
                      / (count + _K1 * (1 - _B + _B * sizes[path] / mean)) for term, count in found.items())
            * (1.0 + 0.5 * (len(found) - 1))
            for path, found in counts.items()
        }  # fmt: skip
        ranked = sorted(scores, key=lambda path: (-scores[path], path))[:_MAX_HITS]
        self._hits = [self._hit(path, scores[path], counts[path]) for path in ranked]
        self._report.metrics |= {"terms": self._terms, "files_searched": len(sizes), "files_with_terms": len(counts)}
        unknown = [term for term in self._terms if not frequency[term]]
        self._report.metrics["terms_not_found"] = unknown
        if unknown:
            self._report.add(
                "info",
                "unknown-term",
                f"Nothing in the project is called {', '.join(unknown)}.",
                suggestion="It may have another name here, or be new.",
            )

    def _weight(self, frequency: int, files: int) -> float:
        return math.log(1 + (files - frequency + 0.5) / (frequency + 0.5))

    def _count(self, file: SourceFile, wanted: set[str]) -> Counter[str]:
        found: Counter[str] = Counter()
        text = self._bench.tree.text(file.path) or ""
        lowered = text.lower()
        for term in wanted:
            if term in lowered:
                found[term] += len(re.findall(rf"(?<![a-z]){re.escape(term)}", lowered))
            if term in file.path.lower():
                found[term] += 10
        return +found

    def _hit(self, path: str, score: float, terms: Counter[str]) -> Hit:
        lines = self._bench.tree.lines(path)
        best, best_score = 0, 0.0
        for number, line in enumerate(lines, 1):
            lowered = line.lower()
            value = sum(1.0 for term in terms if term in lowered)
            if re.match(
                r"\s*(?:pub |export |async |static |public )*(?:def|class|func|fn|function|type|struct|#+)\s", line
            ):
                value *= 1.8
            if value > best_score:
                best, best_score = number, value
        snippet = lines[best - 1].strip()[:_SNIPPET_CHARS] if best else ""
        return Hit(path, round(score, 2), dict(terms), best, snippet, self._symbol(path, best))

    def _symbol(self, path: str, line: int) -> str:
        """The innermost function around ``line``."""
        file = self._bench.tree.get(path)
        if file is None or not line:
            return ""
        if file.language == "Python":
            module = pysource.parse(path, self._bench.tree.data(path) or b"")
            found = pysource.functions(path, module.tree) if module.tree is not None else []
        elif file.language in BRACES:
            found = functions(path, self._bench.tree.text(path) or "", file.language or "")
        else:
            return ""
        around = [one for one in found if one.line <= line <= one.end]
        return min(around, key=lambda one: one.lines).name if around else ""

    def _read_history(self) -> None:
        commits = self._bench.git.log(max_commits=800, timeout_s=self._bench.settings.time_s / 3)
        paths = {hit.path for hit in self._hits[:8]}
        scored: list[tuple[float, str, Any]] = []
        authors: dict[str, Counter[str]] = defaultdict(Counter)
        for commit in commits:
            subject = commit.subject.lower()
            value = 2.0 * sum(term in subject for term in self._terms)
            touched = paths & {path for path, _, _ in commit.files}
            for path in touched:
                authors[path][commit.author] += 1
            if value:
                scored.append((value + 0.2 * len(touched), commit.hash, commit))
        scored.sort(key=lambda row: -row[0])
        self._report.artifacts["related_commits"] = [
            {"hash": commit.hash[:12], "subject": commit.subject[:120], "author": commit.author, "time": commit.time}
            for _, _, commit in scored[:12]
        ]
        self._report.artifacts["who_knows"] = [
            {"path": path, "authors": [name for name, _ in found.most_common(3)]} for path, found in authors.items()
        ]

    def _relate(self) -> None:
        """Earlier findings in the files that matter for the task."""
        top = {hit.path for hit in self._hits[:10]}
        related = [
            (output.agent_type, item)
            for output in self._bench.earlier.outputs
            for item in output.items("findings")
            if item.get("path") in top and item.get("severity") in {"critical", "high", "medium"}
        ]
        for agent_type, item in related[:8]:
            self._report.add(
                "info",
                "known-problem",
                f"{agent_type} found here: {str(item.get('message'))[:200]}",
                path=str(item.get("path")),
                line=item.get("line") or 0,
            )
        if related:
            self._report.decisions.append(
                f"{plural(len(related), 'earlier finding')} lie in the files that matter for the task: read them first."
            )

    def _conclude(self) -> None:
        report = self._report
        report.artifacts["locations"] = [msgspec.to_builtins(hit) for hit in self._hits]
        for rank, hit in enumerate(self._hits[:12]):
            terms = ", ".join(f"{term} ×{count}" for term, count in list(hit.terms.items())[:5])
            where = f" in {hit.symbol}" if hit.symbol else ""
            report.add(
                "info",
                "location",
                f"{hit.snippet or hit.path}{where} — {terms}",
                path=hit.path,
                line=hit.line,
                weight=1000 - rank,
            )
        code = [hit for hit in self._hits if self._role(hit) == "source"]
        tests = [hit for hit in self._hits if self._role(hit) == "test"]
        if code:
            report.decisions.append("Begin reading at " + ", ".join(f"{hit.path}:{hit.line}" for hit in code[:3]) + ".")
        if code and not tests:
            report.add(
                "low",
                "no-related-tests",
                "No test speaks of what the task names.",
                suggestion="Write one that pins the present behaviour before changing it.",
            )
        if not self._hits:
            report.summary = f"Nothing in the project mentions {', '.join(self._terms[:6])}."
            report.next_steps.append("Ask which part of the project the task is about.")
            return
        commits = len(report.artifacts.get("related_commits", []))
        report.summary = (
            f"{plural(report.metrics.get('files_with_terms', 0), 'file mentions', 'files mention')} "
            f"the task's terms; most of all "
            f"{', '.join(hit.path for hit in self._hits[:3])}; {plural(commits, 'related commit')}."
        )
        report.next_steps.extend(f"Read {hit.path}:{hit.line}" for hit in self._hits[:3])

    def _role(self, hit: Hit) -> str:
        file = self._bench.tree.get(hit.path)
        return file.role if file is not None and file.language in PROGRAMMING else ""


def _stem(word: str) -> str:
    """The word without a plural or verbal ending, so that "limits", "limited" and "limit" meet."""
    for ending in ("ations", "ation", "ings", "ing", "ies", "es", "ed", "s"):
        if word.endswith(ending) and len(word) - len(ending) >= 4:
            return word[: -len(ending)]
    return word

"""The performance engineer: patterns that cost time in code that runs often, and what can be measured already."""

from __future__ import annotations

import ast
import re
from collections import Counter
from collections.abc import Iterator
from typing import Any, Final

import msgspec

from agentpool.agent import Agent
from orchestrator.analysts import pysource
from orchestrator.analysts.architecture import measured
from orchestrator.analysts.findings import Finding, plural
from orchestrator.analysts.languages import PROGRAMMING
from orchestrator.analysts.lexical import LineIndex, blank
from orchestrator.analysts.pysource import dotted
from orchestrator.analysts.workbench import Workbench, conduct

_SCRIPT: Final = frozenset({"JavaScript", "TypeScript", "Vue", "Svelte"})
_LEXICAL: Final = (
    (
        "sequential-await",
        "low",
        _SCRIPT,
        re.compile(r"\bfor\s*\((?:const|let|var)\s[^)\n]*\bof\b[^)\n]*\)\s*\{[^{}]{0,200}?\bawait\b(?!\s*Promise)"),
        "Each turn waits for the one before.",
        "Use Promise.all where the order does not matter.",
    ),
    (
        "sync-io",
        "low",
        _SCRIPT,
        re.compile(r"\bfs\.(?:readFile|writeFile|readdir|stat)Sync\("),
        "Synchronous file access stops all requests.",
        "Use fs.promises outside of start-up.",
    ),
    (
        "json-clone",
        "low",
        _SCRIPT,
        re.compile(r"\bJSON\.parse\(\s*JSON\.stringify\("),
        "Copying through JSON is slow and lossy.",
        "Use structuredClone.",
    ),
    (
        "spread-in-reduce",
        "medium",
        _SCRIPT,
        re.compile(r"\.reduce\(\s*\([^)]*\)\s*=>\s*(?:\(\s*\{\s*\.\.\.|\[\s*\.\.\.)"),
        "Copying the whole accumulator in each turn is quadratic.",
        "Change the accumulator in place.",
    ),
    (
        "regexp-in-loop",
        "low",
        frozenset({"Go"}),
        re.compile(r"\bfor\b[^{}\n]*\{[^{}]{0,300}?\bregexp\.MustCompile\("),
        "The expression is compiled in every turn.",
        "Compile it once, at package level.",
    ),
    (
        "defer-in-loop",
        "medium",
        frozenset({"Go"}),
        re.compile(r"\bfor\b[^{}\n]*\{(?:(?!func\b)[^{}]){0,300}?^\s*defer\s", re.MULTILINE),
        "Deferred calls pile up until the function returns.",
        "Put the body into a function of its own.",
    ),
    (
        "string-concat-loop",
        "low",
        frozenset({"Java", "Go"}),
        re.compile(r"\bfor\b[^{}\n]*\{[^{}]{0,200}?\b\w+\s*\+=\s*\""),
        "Each += copies the whole string.",
        "Use a builder.",
    ),
)


def run(agent: Agent) -> dict[str, Any]:
    """Point out costly patterns, those in hotspots first; nothing is measured by running it."""
    return conduct(agent, lambda bench: PerformanceAnalyst(bench).work())


class PerformanceAnalyst:
    """One reading of one project for its costs."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._report = bench.report

    def work(self) -> None:
        """Patterns, then what is there to measure with."""
        self._bench.step("looking for costly patterns", 20, self._find_patterns)
        self._bench.step("looking for deep loops", 55, self._find_deep_loops)
        self._bench.step("looking for benchmarks and heavy files", 80, self._find_measures)
        self._conclude()

    def _find_patterns(self) -> None:
        tree, hot = self._bench.tree, self._bench.hotspots
        for file in sorted(tree.of(PROGRAMMING, {"source"}), key=lambda file: (-hot.get(file.path, 0.0), file.path)):
            if self._bench.deadline.is_over:
                self._report.warnings.append("not all files were read: time was up")
                break
            if tree.is_generated(file.path):
                continue
            if file.language == "Python":
                module = pysource.parse(file.path, tree.data(file.path) or b"")
                found = list(_python(file.path, module.tree)) if module.tree is not None else []
            else:
                found = list(_lexical(file.path, tree.text(file.path) or "", file.language))
            weight = hot.get(file.path, 0.0)
            self._report.extend(msgspec.structs.replace(one, weight=weight) for one in found)

    def _find_deep_loops(self) -> None:
        for file in self._bench.tree.of({"Python"}, {"source"}):
            if self._bench.deadline.is_over:
                break
            module = pysource.parse(file.path, self._bench.tree.data(file.path) or b"")
            if module.tree is None:
                continue
            for node in ast.walk(module.tree):
                if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef):
                    depth, line = _loop_depth(node.body, 0)
                    if depth >= 4:
                        self._report.add(
                            "low",
                            "deep-loops",
                            f"{node.name} has loops {depth} deep: its time may grow as the power of {depth}.",
                            path=file.path,
                            line=line,
                            suggestion="See whether an index or a set can replace the inner one.",
                            weight=self._bench.hotspots.get(file.path, 0.0),
                        )

    def _find_measures(self) -> None:
        tree = self._bench.tree
        bench = [
            file.path
            for file in tree.files
            if re.search(r"(^|/)(bench|benches|benchmarks?|perf)(/|_|\b)|_bench(mark)?\.|\bbench_", file.path)
        ]
        self._report.metrics["benchmark_files"] = len(bench)
        self._report.artifacts["benchmarks"] = bench[:40]
        heavy = sorted(
            (
                file
                for file in tree.files
                if file.size > 500_000
                and re.search(r"\.(png|jpe?g|gif|svg|js|css|woff2?|ttf|mp4)$", file.path)
                and file.role not in {"test", "vendored"}
            ),
            key=lambda file: -file.size,
        )
        for file in heavy[:5]:
            self._report.add(
                "low",
                "heavy-asset",
                f"{file.size / 1e6:.1f} MB are served or shipped.",
                path=file.path,
                suggestion="Compress it, or load it only where it is seen.",
            )
        if not bench and len(tree.of(PROGRAMMING, {"source"})) > 20:
            self._report.add(
                "info",
                "no-benchmarks",
                "There is no benchmark: a slowdown would not be noticed.",
                suggestion="Measure the two or three calls that users wait for.",
            )

    def _conclude(self) -> None:
        report, hot = self._report, self._bench.hotspots
        kinds = Counter(finding.kind for finding in report.ranked() if finding.severity != "info")
        report.metrics["kinds"] = dict(kinds)
        if hot:
            first = sorted(hot, key=lambda path: -hot[path])[:3]
            report.decisions.append(
                f"Put the hotspots of {', '.join(self._bench.earlier.givers('hotspots'))} first: {', '.join(first)}."
            )
            big = sorted(
                (one for path in first for one in measured(self._bench, path)), key=lambda one: -one.complexity
            )[:3]
            report.next_steps.extend(f"Profile {one.name} in {one.path}:{one.line}" for one in big)
        told = ", ".join(f"{count} {kind}" for kind, count in kinds.most_common(4)) or "no costly pattern found"
        report.summary = (
            f"{told}; {plural(report.metrics.get('benchmark_files', 0), 'benchmark file')}. "
            "Found by reading: measure before changing."
        )


def _lexical(path: str, text: str, language: str | None) -> Iterator[Finding]:
    rules = [rule for rule in _LEXICAL if language in rule[2]]
    if not rules:
        return
    code = blank(text, language)
    index = LineIndex(code)
    for kind, severity, _, pattern, message, suggestion in rules:
        for match in pattern.finditer(code):
            yield Finding(severity, kind, path, index.line(match.start()), message, suggestion)  # type: ignore[arg-type]


def _python(path: str, tree: ast.Module) -> Iterator[Finding]:
    for loop in ast.walk(tree):
        if isinstance(loop, ast.For | ast.AsyncFor | ast.While):
            yield from _in_loop(path, loop)
        elif (
            isinstance(loop, ast.Call)
            and dotted(loop) in {"sum"}
            and len(loop.args) == 2
            and isinstance(loop.args[1], ast.List)
        ):
            yield Finding(
                "low",
                "quadratic-flatten",
                path,
                loop.lineno,
                "sum() of lists copies what it has in every turn.",
                "Use itertools.chain.from_iterable.",
            )


#: Calls that cost much when made in every turn of a loop: kind -> message (``{name}`` is what is called), suggestion.
_COSTLY = {
    "compile-in-loop": ("A fixed expression is compiled in every turn.", "Compile it once, outside."),
    "pop-front": ("{name}(0) moves all other items each time.", "Use collections.deque."),
    "insert-front": (
        "{name}(0, …) moves all other items each time.",
        "Use collections.deque, or reverse at the end.",
    ),
    "request-in-loop": ("{name}() opens a connection in every turn.", "Use one Session or Client for all."),
    "row-by-row": ("{name}() handles a table row by row.", "Use a vectorised form."),
}


def _in_loop(path: str, loop: ast.For | ast.AsyncFor | ast.While) -> Iterator[Finding]:
    has_target = not isinstance(loop, ast.While) and any(isinstance(node, ast.Name) for node in ast.walk(loop.target))
    for node in (inner for statement in loop.body for inner in ast.walk(statement)):
        if not isinstance(node, ast.Call):
            continue
        kind = _costly_call(node, has_target)
        if kind is not None:
            message, suggestion = _COSTLY[kind]
            yield Finding("low", kind, path, node.lineno, message.replace("{name}", dotted(node)), suggestion)


def _costly_call(node: ast.Call, has_target: bool) -> str | None:
    """A key of ``_COSTLY``, or None."""
    name = dotted(node)
    first = node.args[0] if node.args else None
    is_zero = isinstance(first, ast.Constant) and first.value == 0
    if name == "re.compile" and isinstance(first, ast.Constant):
        return "compile-in-loop"
    if name.endswith(".pop") and len(node.args) == 1 and is_zero:
        return "pop-front"
    if name.endswith(".insert") and len(node.args) == 2 and is_zero:
        return "insert-front"
    if name in {"requests.get", "requests.post", "httpx.get", "httpx.post"} and has_target:
        return "request-in-loop"
    if name.endswith((".iterrows", ".itertuples")):
        return "row-by-row"
    return "row-by-row" if name.endswith(".append") and name.startswith(("df.", "frame.")) else None


def _loop_depth(body: list[ast.stmt], depth: int) -> tuple[int, int]:
    """The deepest nesting of ``for`` loops (those over literals aside), and where it is."""
    best = (depth, 0)
    for node in body:
        if isinstance(node, ast.FunctionDef | ast.AsyncFunctionDef | ast.ClassDef):
            continue
        is_loop = isinstance(node, ast.For | ast.AsyncFor) and not isinstance(
            node.iter, ast.Tuple | ast.List | ast.Constant
        )
        inner = depth + is_loop
        for name in ("body", "orelse", "finalbody"):
            found = _loop_depth(getattr(node, name, []) or [], inner)
            if found[0] > best[0]:
                best = (found[0], found[1] or node.lineno)
        for handler in getattr(node, "handlers", []):
            best = max(best, _loop_depth(handler.body, inner))
    return best

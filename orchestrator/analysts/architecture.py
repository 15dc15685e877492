"""The architect: languages, modules and their dependencies, layers, entry points, hotspots, complex functions."""

from __future__ import annotations

import time
from collections import Counter, defaultdict
from typing import Any

from agentpool.agent import Agent
from orchestrator.analysts import entrypoints, graph, lexical, modules, pysource
from orchestrator.analysts.churn import FileHistory, file_histories, hotspot_scores
from orchestrator.analysts.findings import plural
from orchestrator.analysts.imports import ImportGraph
from orchestrator.analysts.languages import PROGRAMMING
from orchestrator.analysts.lexical import Function
from orchestrator.analysts.workbench import Workbench, conduct

_MAX_COMMITS = 1500
_LARGE_FILE_LINES = 1000
_HOT = 30.0
#: McCabe (1976) names 10 as the limit; NIST SP 500-235 allows 15; beyond 25 hardly anyone can test all paths.
_COMPLEX, _VERY_COMPLEX = 15, 25
#: Languages in which mutually dependent files are ordinary (one compilation unit or package).
_CYCLES_ALLOWED = frozenset({"Rust", "Go", "Java", "Kotlin", "Scala", "C#", "Swift", "Dart", "C", "C++", "PHP"})


def run(agent: Agent) -> dict[str, Any]:
    """Describe the project's architecture and where its risks concentrate."""
    return conduct(agent, lambda bench: Architect(bench).work())


class Architect:
    """One survey of one project."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._report = bench.report
        self._lines: dict[str, int] = {}
        self._histories: dict[str, FileHistory] = {}
        self._scores: dict[str, float] = {}
        self._functions: list[Function] = []
        self._languages: Counter[str] = Counter()
        self._main = ""
        self._layers: list[list[str]] = []

    def work(self) -> None:
        """All parts, then the summary."""
        step = self._bench.step
        step("counting files, languages and lines", 10, self._measure)
        step("reading the git history for hotspots", 30, self._find_hotspots)
        step("resolving imports between files", 50, self._map_dependencies)
        step("looking for entry points", 65, self._find_entry_points)
        step("measuring functions", 75, self._measure_functions)
        step("drawing conclusions", 95, self._conclude, always=True)

    def _measure(self) -> None:
        tree = self._bench.tree
        files: Counter[str] = Counter()
        roles: dict[str, Counter[str]] = defaultdict(Counter)
        for file in tree.files:
            if file.language is None or file.role in {"vendored", "generated"}:
                roles[file.role]["files"] += 1
                continue
            count = (tree.text(file.path) or "").count("\n") if file.size < 1_000_000 else 0
            files[file.language] += 1
            self._languages[file.language] += count
            roles[file.role]["files"] += 1
            roles[file.role]["lines"] += count
            if file.role == "source" and not tree.is_generated(file.path):
                self._lines[file.path] = count
        programs = Counter({name: count for name, count in self._languages.items() if name in PROGRAMMING and count})
        source = Counter[str]()
        for path, count in self._lines.items():
            source[getattr(tree.get(path), "language", None) or ""] += count
        self._main = next((name for name, _ in (source or programs).most_common(1)), "")
        self._report.metrics |= {
            "files": len(tree),
            "source_files": len(self._lines),
            "source_lines": sum(self._lines.values()),
            "test_lines": roles["test"]["lines"],
            "main_language": self._main,
            "lines_by_language": dict(self._languages.most_common(12)),
            "lines_by_role": {role: count["lines"] for role, count in sorted(roles.items()) if count["lines"]},
        }
        self._report.artifacts["languages"] = [
            {"language": name, "files": files[name], "lines": count} for name, count in self._languages.most_common(15)
        ]

    def _find_hotspots(self) -> None:
        git = self._bench.git
        commits = git.log(max_commits=_MAX_COMMITS, timeout_s=self._bench.settings.time_s / 3)
        self._histories = file_histories(commits)
        self._scores = hotspot_scores(self._histories, self._lines)
        ranked = sorted(self._scores.items(), key=lambda pair: -pair[1])
        self._report.artifacts["hotspots"] = [self._hotspot(path, score) for path, score in ranked[:20]]
        authors = Counter(commit.author for commit in commits)
        self._report.metrics["git"] = {
            "commits_read": len(commits),
            "authors": len(authors),
            "newest_commit_age_days": int((time.time() - commits[0].time) // 86400) if commits else None,
            "span_days": int((commits[0].time - commits[-1].time) // 86400) if commits else None,
        }

    def _hotspot(self, path: str, score: float) -> dict[str, Any]:
        history = self._histories[path]
        main = max(history.authors, key=lambda name: history.authors[name])
        return {
            "path": path,
            "score": score,
            "commits": history.commits,
            "lines": self._lines[path],
            "lines_changed": history.lines_changed,
            "authors": len(history.authors),
            "main_author": main,
            "main_author_share": round(history.main_author_share, 2),
            "last_change_days": history.age_days(),
        }

    def _map_dependencies(self) -> None:
        files = ImportGraph(self._bench.tree, self._bench.deadline)
        self._bench.parsed = files.modules
        if not files.is_complete:
            self._report.warnings.append("the dependency graph is incomplete: time was up before all files were read")
        placed = modules.group(self._lines)
        parts = modules.modules(placed, self._lines)
        lifted = modules.lift(
            {path: files.eager[path] | files.deferred.get(path, set()) for path in files.eager}, placed
        )
        linked = {name for name, targets in lifted.items() for name in (name, *targets) if targets}
        self._layers = graph.layers({name: list(targets) for name, targets in lifted.items() if name in linked})
        importers = Counter(files.importers())
        self._report.artifacts |= {
            "modules": [{"module": one.name, "files": one.files, "lines": one.lines} for one in parts[:40]],
            "dependencies": [
                {"from": name, "to": target, "uses": uses}
                for name, targets in sorted(lifted.items())
                for target, uses in targets.most_common()
            ],
            "layers": [row[:30] for row in self._layers],
            "most_used_files": [
                {"path": path, "importers": count} for path, count in importers.most_common(12) if count > 1
            ],
            "public_modules": self._public_modules(files, importers),
        }
        self._report.metrics |= {
            "modules": len(parts),
            "module_dependencies": sum(len(targets) for targets in lifted.values()),
            "layers": len(self._layers),
            "file_dependencies": sum(len(targets) for targets in files.eager.values()),
        }
        self._report_cycles(files)

    def _public_modules(self, files: ImportGraph, importers: Counter[str]) -> list[dict[str, Any]]:
        """Files that outsiders are meant to use: no leading underscore in the path, most used first."""
        public = [path for path in self._lines if not any(part.startswith("_") for part in path.split("/")[:-1])]
        public = [path for path in public if not path.rpartition("/")[2].startswith("_") or "__init__" in path]
        ranked = sorted(public, key=lambda path: (-importers[path], path.count("/"), path))
        return [{"path": path, "importers": importers[path]} for path in ranked[:60]]

    def _report_cycles(self, files: ImportGraph) -> None:
        languages = {path: getattr(self._bench.tree.get(path), "language", None) for path in files.eager}
        found = [group for group in graph.cycles(files.eager) if languages[group[0]] not in _CYCLES_ALLOWED]
        self._report.metrics["import_cycles"] = len(found)
        self._report.artifacts["cycles"] = [group[:40] for group in found[:20]]
        for group in found:
            way = graph.shortest_cycle(files.eager, group)
            shown = " → ".join([*way[:6], *(["…"] if len(way) > 6 else []), way[0]]) if way else ", ".join(group[:6])
            extent = f" ({len(group)} files depend on one another in all)" if len(group) > len(way) else ""
            self._report.add(
                "medium" if len(group) > 2 else "low",
                "import-cycle",
                f"Import cycle when loaded: {shown}{extent}.",
                path=way[0] if way else group[0],
                suggestion="Move what both sides need into a module below them, or import it where it is used.",
                weight=len(group),
            )

    def _find_entry_points(self) -> None:
        found = entrypoints.entry_points(self._bench.tree)
        self._report.metrics["entry_points"] = len(found)
        self._report.artifacts["entry_points"] = [
            {"kind": one.kind, "name": one.name, "path": one.path, "target": one.target} for one in found
        ]

    def _measure_functions(self) -> None:
        tree = self._bench.tree
        for path in sorted(self._lines, key=lambda path: -self._scores.get(path, 0.0)):
            if self._bench.deadline.is_over:
                self._report.warnings.append("not all functions were measured: time was up")
                break
            self._functions.extend(measured(self._bench, path))
        ranked = sorted(self._functions, key=lambda one: (-one.complexity, -one.lines))
        self._report.artifacts["complex_functions"] = [
            {"path": one.path, "line": one.line, "name": one.name, "complexity": one.complexity, "lines": one.lines}
            for one in ranked[:25]
        ]
        self._report.metrics |= {
            "functions": len(self._functions),
            "functions_over_complexity_15": sum(one.complexity > _COMPLEX for one in self._functions),
            "functions_over_100_lines": sum(one.lines > 100 for one in self._functions),
        }
        for one in ranked[:15]:
            self._report_function(one)
        for path, count in self._lines.items():
            file = tree.get(path)
            is_program = file is not None and file.language in PROGRAMMING and not path.endswith(".d.ts")
            if count > _LARGE_FILE_LINES and is_program:
                hot = self._scores.get(path, 0.0)
                self._report.add(
                    "medium" if hot >= _HOT and count > 2 * _LARGE_FILE_LINES else "low",
                    "large-file",
                    f"{count:,} lines in one file"
                    + (f", and it is a hotspot (score {hot:.0f})." if hot >= _HOT else "."),
                    path=path,
                    suggestion="Split it along the parts that change for different reasons.",
                    weight=hot + count / 1000,
                )

    def _report_function(self, one: Function) -> None:
        if one.complexity <= _COMPLEX:
            return
        hot = self._scores.get(one.path, 0.0)
        is_very = one.complexity > _VERY_COMPLEX
        where = f"; the file changed in {plural(self._histories[one.path].commits, 'commit')}" if hot >= _HOT else ""
        self._report.add(
            "medium" if is_very and hot >= _HOT else "low",
            "complex-function",
            f"{one.name} has a cyclomatic complexity of {one.complexity} over {one.lines} lines{where}.",
            path=one.path,
            line=one.line,
            suggestion="Cover its branches by tests before changing it; take independent branches out.",
            weight=one.complexity + hot,
        )

    def _conclude(self) -> None:
        report, metrics = self._report, self._report.metrics
        hot = report.artifacts.get("hotspots", [])
        used = report.artifacts.get("most_used_files", [])
        if hot:
            names = ", ".join(
                f"{item['path']} ({item['commits']} commits, {item['lines']:,} lines)" for item in hot[:3]
            )
            report.decisions.append(f"Review and test first where work concentrates: {names}.")
        if used:
            report.decisions.append(
                f"Treat {used[0]['path']} as the foundation: {plural(used[0]['importers'], 'file')} depend on it; "
                "a change of its interface reaches all of them."
            )
        if len(self._layers) > 1:
            report.decisions.append(
                f"Keep the {len(self._layers)} layers: {', '.join(self._layers[-1][:4])} on top, "
                f"{', '.join(self._layers[0][:4])} at the bottom; dependencies point downwards."
            )
        alone = [item for item in hot[:10] if item["main_author_share"] >= 0.9 and item["commits"] >= 10]
        if alone and metrics["git"]["authors"] > 1:
            report.add(
                "info",
                "single-owner",
                f"{plural(len(alone), 'hotspot')} known to one person only: "
                + ", ".join(f"{item['path']} ({item['main_author']})" for item in alone[:4]) + ".",
                suggestion="Let someone else review the next changes there.",
            )  # fmt: skip
        cycles = metrics.get("import_cycles", 0)
        if not self._lines:
            count = len(self._bench.tree)
            report.summary = (
                f"No program source among {plural(count, 'file')}." if count else "There is no file in the project."
            )
            return
        report.summary = (
            f"{self._main} project: {metrics['source_lines']:,} source lines in {plural(len(self._lines), 'file')}, "
            f"{plural(metrics.get('modules', 0), 'module')} in {plural(max(metrics.get('layers', 0), 1), 'layer')}, "
            f"{plural(cycles, 'import cycle')}, {plural(metrics.get('entry_points', 0), 'entry point')}. "
            + (f"The hottest file is {hot[0]['path']}." if hot else "Too little history for hotspots.")
        )
        report.next_steps.extend(f"Look closer at {item['path']}" for item in hot[:3])


def measured(bench: Workbench, path: str) -> list[Function]:
    """The functions of one source file with their sizes and complexities; empty where the language has no reader."""
    file = bench.tree.get(path)
    if file is None or file.language is None:
        return []
    if file.language == "Python":
        module = bench.parsed.get(path) or pysource.parse(path, bench.tree.data(path) or b"")
        return pysource.functions(path, module.tree) if module.tree is not None else []
    return lexical.functions(path, bench.tree.text(path) or "", file.language)

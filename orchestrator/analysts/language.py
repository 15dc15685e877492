"""The language specialist: mistakes in the code of one language, by own checks and by the project's linter."""

from __future__ import annotations

import json
import re
import sys
from collections import Counter, defaultdict
from typing import Any, Final

from agentpool.agent import Agent
from orchestrator.analysts import linters, pychecks, pysource, sourcechecks
from orchestrator.analysts.architecture import measured
from orchestrator.analysts.entrypoints import load_toml, table
from orchestrator.analysts.findings import plural
from orchestrator.analysts.languages import PROGRAMMING, is_fixture
from orchestrator.analysts.lexical import Function
from orchestrator.analysts.tree import SourceFile
from orchestrator.analysts.workbench import Workbench, conduct

#: Word in an agent type to the languages that it is for; the first that fits.
SPECIALITIES: Final = (
    ("python", ("Python",)), ("typescript", ("TypeScript", "JavaScript")), ("nextjs", ("TypeScript", "JavaScript")),
    ("javascript", ("JavaScript", "TypeScript")), ("react", ("TypeScript", "JavaScript")),
    ("frontend", ("TypeScript", "JavaScript", "Vue", "Svelte")), ("golang", ("Go",)), ("flutter-go", ("Dart", "Go")),
    ("go-spec", ("Go",)), ("rust", ("Rust",)), ("swift", ("Swift",)), ("ios", ("Swift", "Objective-C")),
    ("flutter", ("Dart",)), ("mobile", ("Dart", "Swift", "Kotlin", "Java", "Objective-C")), ("shell", ("Shell",)),
    ("sql", ("SQL",)), ("salesforce", ("Apex", "JavaScript")),
)  # fmt: skip
_TODO = re.compile(r"\b(TODO|FIXME|XXX|HACK)\b[:( ]?(.{0,100})")
_COMPLEX = 15


def run(agent: Agent) -> dict[str, Any]:
    """Check the code of the agent's language, or of the project's main language when its type names none."""
    return conduct(agent, lambda bench: Specialist(bench).work())


class Specialist:
    """One language's review of one project."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._report = bench.report
        self._files: list[SourceFile] = []
        self._read: set[str] = set()
        self._functions: list[Function] = []
        self._language = ""

    def work(self) -> None:
        """Choose the files, check them, run the linter, conclude."""
        languages = self._languages()
        roles = {"source", "test", "tooling", "example"}
        files = [file for file in self._bench.tree.of(languages) if file.role in roles and not is_fixture(file.path)]
        hot = self._bench.hotspots
        self._files = sorted(files, key=lambda file: (-hot.get(file.path, 0.0), file.role != "source", file.path))
        names = " and ".join(languages[:2]) or "program"
        if not self._files:
            self._report.summary = f"No {names} files in this project: nothing to check."
            self._report.add("info", "no-such-language", self._report.summary)
            return
        self._language = Counter(file.language for file in self._files).most_common(1)[0][0] or ""
        step = self._bench.step
        step(f"checking {plural(len(self._files), f'{names} file')}", 20, self._check_files)
        step("measuring functions", 60, self._measure)
        if self._bench.settings.run_tools:
            step("running the project's linter", 75, self._lint)
        step("drawing conclusions", 95, self._conclude, always=True)

    def _languages(self) -> tuple[str, ...]:
        kind = self._bench.agent.type.lower()
        for word, languages in SPECIALITIES:
            if word in kind:
                return languages
        counts: Counter[str] = Counter()
        for file in self._bench.tree.of(PROGRAMMING, {"source"}):
            counts[file.language or ""] += file.size
        if not counts:
            for file in self._bench.tree.of(PROGRAMMING):
                counts[file.language or ""] += file.size
        return tuple(name for name, _ in counts.most_common(1))

    def _check_files(self) -> None:
        if any(file.language == "Python" for file in self._files):
            self._check_python()
        todos: Counter[str] = Counter()
        for done, file in enumerate(self._files):
            if self._bench.deadline.is_over:
                left = {one.path for one in self._files[done:]}
                in_part = len(left & self._read)
                self._report.warnings.append(
                    f"{plural(len(left), 'file')} not checked"
                    + (f", or only in part ({in_part})" if in_part else "")
                    + ": time was up"
                )
                break
            text = self._bench.tree.text(file.path)
            if text is None or self._bench.tree.is_generated(file.path):
                continue
            self._read.add(file.path)
            self._report.extend(sourcechecks.check(file.path, text, file.language, file.role))
            for match in _TODO.finditer(text):
                todos[match[1]] += 1
        self._report.metrics["todo_comments"] = sum(todos.values())

    def _check_python(self) -> None:
        tree, report = self._bench.tree, self._report
        taken: dict[str, set[str]] = defaultdict(set)
        parsed: list[tuple[SourceFile, pysource.PyModule]] = []
        for file in self._files:
            if file.language != "Python" or self._bench.deadline.is_over:
                continue
            data = tree.data(file.path)
            module = pysource.parse(file.path, data, compiled=True) if data is not None else None
            if module is None:
                continue
            self._read.add(file.path)  # already: the time may be up before the second look at it
            if module.tree is None:
                self._syntax_error(file, module)
                continue
            parsed.append((file, module))
            for one in pysource.imports(module.tree):
                if one.name:
                    taken[one.module.rpartition(".")[2]].add(one.name)
        named = annotated = 0
        for file, module in parsed:
            stem = file.path.rpartition("/")[2].removesuffix(".py")
            names = frozenset(taken.get(stem, ()))
            text = tree.text(file.path) or ""
            report.extend(pychecks.check(module, text, is_test=file.role == "test", imported_elsewhere=names))
            if file.role == "source" and module.tree is not None:
                public = [one for one in pysource.public_names(module.tree) if one.kind != "class"]
                named += len(public)
                annotated += sum(one.is_annotated for one in public)
        report.metrics |= {
            "python_files": len(parsed),
            "public_functions": named,
            "public_functions_fully_annotated": annotated,
            "annotation_coverage": round(annotated / named, 3) if named else None,
        }

    def _syntax_error(self, file: SourceFile, module: pysource.PyModule) -> None:
        """A file that does not parse: critical in source; unsure where it may be a newer Python or a template."""
        text = self._bench.tree.text(file.path) or ""
        is_template = "{{" in text and "}}" in text and "{%" in text
        if is_template or (file.role != "source" and "syntax" in file.path.lower()):
            return
        wanted = re.search(r"3\.(\d+)", str(table(load_toml(self._bench.tree, "pyproject.toml"), "project")
                                            .get("requires-python", "")))  # fmt: skip
        newer = wanted is not None and int(wanted[1]) > sys.version_info.minor
        self._report.add(
            "medium" if newer or file.role != "source" else "critical",
            "syntax-error",
            f"Does not compile with Python {sys.version_info.major}.{sys.version_info.minor}: {module.error}"
            + (f"; the project asks for 3.{wanted[1]}, which may allow it." if newer and wanted else "."),
            path=file.path,
            line=module.error_line,
            suggestion="Mend the syntax; nothing in this file can be imported.",
        )

    def _measure(self) -> None:
        for file in self._files:
            if self._bench.deadline.is_over:
                break
            if file.role == "source" and not self._bench.tree.is_generated(file.path):
                self._functions.extend(measured(self._bench, file.path))
        self._report.metrics |= {
            "functions": len(self._functions),
            "functions_over_complexity_15": sum(one.complexity > _COMPLEX for one in self._functions),
        }
        known = {(item.get("path"), item.get("name")) for out in self._bench.earlier.outputs
                 for item in out.items("complex_functions")}  # fmt: skip
        ranked = sorted(self._functions, key=lambda one: -one.complexity)
        for one in ranked[:5]:
            if one.complexity > _COMPLEX and (one.path, one.name) not in known:
                self._report.add(
                    "medium" if one.complexity > 2 * _COMPLEX else "low",
                    "complex-function",
                    f"{one.name} has {one.complexity} independent paths over {one.lines} lines.",
                    path=one.path,
                    line=one.line,
                    suggestion="Take independent branches out into functions of their own.",
                    weight=one.complexity,
                )

    def _lint(self) -> None:
        linter, reason = linters.configured(self._bench, self._language)
        if linter is None:
            self._report.metrics["linter"] = None
            if reason:
                self._report.warnings.append(reason)
            return
        findings, trouble = linters.lint(self._bench, linter)
        self._report.metrics |= {"linter": None if trouble else linter.name, "linter_findings": len(findings)}
        if trouble:
            self._report.warnings.append(trouble)
            return
        own = {(finding.path, finding.line) for finding in self._report.findings}
        self._report.extend(finding for finding in findings if (finding.path, finding.line) not in own)
        if not findings:
            self._report.decisions.append(f"The project's own linter ({linter.name}) finds nothing: keep it that way.")

    def _conclude(self) -> None:
        report, hot = self._report, self._bench.hotspots
        self._check_json()
        kinds = Counter(finding.kind for finding in report.ranked() if finding.severity != "info")
        worst = report.ranked()[:1]
        report.metrics |= {"files_checked": len(self._read), "kinds": dict(kinds.most_common(15))}
        looked = [path for path in hot if path in self._read]
        if looked:
            report.decisions.append(
                f"Looked first at the hotspots named by {', '.join(self._bench.earlier.givers('hotspots'))}: "
                + ", ".join(sorted(looked, key=lambda path: -hot[path])[:4]) + "."
            )  # fmt: skip
        linter = report.metrics.get("linter")
        report.summary = (
            f"{self._language}: {plural(len(self._read), 'file')} checked"
            + (f", {linter} run" if linter else ", no linter of the project run")
            + f"; {plural(sum(kinds.values()), 'finding')}"
            + (f", worst: {worst[0].kind} in {worst[0].path}:{worst[0].line}." if worst and kinds else ".")
        )
        grave = [one for one in report.ranked() if one.severity in {"critical", "high"}]
        report.next_steps.extend(f"Mend {one.kind} in {one.place}" for one in grave[:5])

    def _check_json(self) -> None:
        """JSON files that are no JSON break whatever reads them; files that allow comments are left alone."""
        if self._language not in {"JavaScript", "TypeScript"}:
            return
        for file in self._bench.tree.of({"JSON"}):
            name = file.path.rpartition("/")[2]
            if name not in {"package.json", "composer.json", "manifest.json"} or is_fixture(file.path):
                continue
            text = self._bench.tree.text(file.path)
            if text is None or file.role in {"test", "example", "vendored", "generated"}:
                continue
            try:
                json.loads(text)
            except (ValueError, RecursionError) as error:
                line = getattr(error, "lineno", 0)
                self._report.add("high", "invalid-json", f"Not valid JSON: {error}", path=file.path, line=line)

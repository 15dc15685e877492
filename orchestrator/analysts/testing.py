"""The test engineer: finds the project's tests, runs them within a time limit, tells what fails and what has none."""

from __future__ import annotations

import re
import shlex
import time
from collections import defaultdict
from typing import Any

from agentpool.agent import Agent
from orchestrator.analysts import testrunners
from orchestrator.analysts.coverage import find_coverage
from orchestrator.analysts.findings import plural
from orchestrator.analysts.languages import PROGRAMMING
from orchestrator.analysts.processes import ToolRun
from orchestrator.analysts.testoutput import Outcome, read_output
from orchestrator.analysts.testrunners import Runner
from orchestrator.analysts.untested import untested
from orchestrator.analysts.workbench import Workbench, conduct

_MAX_RUNNERS = 3
_TAIL_LINES = 12
_OFFLINE = re.compile(r"no matching package named|--offline|cannot find module providing|module lookup disabled", re.I)
_OLD_REPORT_S = 7 * 86_400


def run(agent: Agent) -> dict[str, Any]:
    """Run the project's tests. Failing tests make the result ``partial`` with an error each, not ``failed``."""
    return conduct(agent, lambda bench: Tester(bench).work())


class Tester:
    """One look at one project's tests."""

    def __init__(self, bench: Workbench) -> None:
        self._bench = bench
        self._report = bench.report
        self._outcomes: list[tuple[Runner, Outcome, ToolRun]] = []
        self._runners: list[Runner] = []
        self._budget_s = bench.settings.test_time_s

    def work(self) -> None:
        """Static facts first (they are cheap and certain), then the run."""
        self._bench.step("looking for tests", 5, self._survey)
        self._bench.step("looking for code without tests", 10, self._find_untested)
        self._bench.step("reading coverage reports", 12, self._read_coverage)
        self._run_all()
        self._conclude()

    def _survey(self) -> None:
        tree = self._bench.tree
        tests, sources = tree.of(PROGRAMMING, {"test"}), tree.of(PROGRAMMING, {"source"})
        self._report.metrics |= {"test_files": len(tests), "source_files": len(sources)}
        if self._bench.settings.run_tools:
            self._runners = testrunners.detect(self._bench)
        self._report.artifacts["runners"] = [
            {"name": one.name, "command": shlex.join(one.argv), "not_run_because": one.reason} for one in self._runners
        ]
        if not tests and sources and not self._runners:
            self._report.add(
                "high", "no-tests", f"No tests were found for {plural(len(sources), 'source file')}.",
                suggestion="Begin with one test for the most used entry point.",
            )  # fmt: skip

    def _find_untested(self) -> None:
        tree, hot = self._bench.tree, self._bench.hotspots
        if not tree.of(PROGRAMMING, {"test"}):
            return
        found = sorted(untested(tree), key=lambda file: (-hot.get(file.path, 0.0), -file.size))
        self._report.metrics["source_files_not_named_in_tests"] = len(found)
        self._report.artifacts["untested"] = [{"path": file.path, "size_bytes": file.size} for file in found[:40]]
        for file in found[:10]:
            score = hot.get(file.path, 0.0)
            self._report.add(
                "medium" if score >= 30 else "low",
                "untested-file",
                "No test imports or names this file"
                + (f", though it is a hotspot (score {score:.0f})." if score else "."),
                path=file.path,
                suggestion="Add a test that calls it directly, or delete it if nothing needs it.",
                weight=score + file.size / 1e6,
            )

    def _read_coverage(self) -> None:
        found = find_coverage(self._bench.root)
        if found is None:
            return
        self._report.metrics["coverage"] = {"rate": round(found.rate, 4), "report": found.path}
        age_s = time.time() - found.written_at
        if age_s > _OLD_REPORT_S:
            self._report.warnings.append(f"the coverage report {found.path} is {int(age_s // 86400)} days old")
        low = sorted((rate, path) for path, rate in found.files.items() if rate < 0.5)
        for rate, path in low[:5]:
            self._report.add(
                "low", "low-coverage", f"{rate:.0%} of its lines are covered (by {found.path}).", path=path
            )

    def _run_all(self) -> None:
        for runner in self._runners[:_MAX_RUNNERS]:
            if not runner.argv:
                self._report.warnings.append(f"{runner.name} was not run: {runner.reason}")
                continue
            if self._budget_s < 1:
                self._report.warnings.append(f"{runner.name} was not run: the time for tests was used up")
                continue
            self._bench.agent.progress(f"running {runner.name} (at most {self._budget_s:.0f} s)", 20)
            before = set(self._bench.git.status())
            run = self._bench.tool(*runner.argv, timeout_s=self._budget_s, environ=dict(runner.environ))
            self._budget_s -= run.duration_s
            outcome = read_output(runner.format, run, self._bench.root, self._bench.scratch / "junit.xml")
            self._outcomes.append((runner, outcome, run))
            self._tell(runner, outcome, run)
            left = sorted({path for _, path in set(self._bench.git.status()) - before})
            if left:
                self._report.warnings.append(
                    f"running {runner.name} changed files of the project: {', '.join(left[:10])}"
                )

    def _tell(self, runner: Runner, outcome: Outcome, run: ToolRun) -> None:
        report = self._report
        groups: dict[tuple[str, int, str], list[str]] = defaultdict(list)
        for failure in outcome.failures:
            groups[failure.path, failure.line, failure.message].append(failure.name)
        for (path, line, message), names in groups.items():
            more = f" (and {len(names) - 1} more like it)" if len(names) > 1 else ""
            report.add(
                "high",
                "test-failure",
                f"{names[0]}{more}: {message}",
                path=path,
                line=line,
                suggestion=_rerun(runner, path, names[0]),
                weight=len(names),
            )
        for name, count in outcome.missing.items():
            report.add(
                "medium", "missing-dependency",
                f"{plural(count, 'test module')} could not be imported: {name} is not installed for {runner.argv[0]}.",
                suggestion="Install the project with its test dependencies into its own .venv and run again.",
            )  # fmt: skip
            report.warnings.append(f"{plural(count, 'test module')} not run for want of {name}")
        if run.exit_code is None:
            report.errors.append(f"{runner.name} could not be started: {run.error}")
        elif run.timed_out:
            report.warnings.append(
                f"{runner.name} did not end within {run.duration_s:.0f} s; counted until then: "
                f"{outcome.passed} passed, {outcome.failed} failed"
            )
        elif outcome.failed:
            report.errors.append(f"{runner.name}: {outcome.failed} of {plural(outcome.total, 'test')} failed")
        elif run.exit_code not in (0, 5) and _OFFLINE.search(run.stderr):
            report.warnings.append(f"{runner.name} was not run: its dependencies are not on this machine")
        elif run.exit_code not in (0, 5) and not outcome.missing:
            tail = (run.stdout + run.stderr).strip().splitlines()[-_TAIL_LINES:]
            report.errors.append(f"{runner.name} ended with status {run.exit_code}: " + "\n".join(tail))

    def _conclude(self) -> None:
        report = self._report
        totals = {
            name: sum(getattr(outcome, name) for _, outcome, _ in self._outcomes)
            for name in ("passed", "failed", "skipped")
        }
        report.metrics["tests"] = {
            **totals,
            "seconds": round(sum(run.duration_s for _, _, run in self._outcomes), 1),
            "timed_out": any(run.timed_out for _, _, run in self._outcomes),
            "runners": [runner.name for runner, _, _ in self._outcomes],
        }
        is_whole = bool(self._outcomes) and all(not run.timed_out and not outcome.missing and outcome.total > 0
                                                for _, outcome, run in self._outcomes)  # fmt: skip
        if report.errors or (self._runners and not is_whole):
            report.status = "partial"
        hot = self._bench.hotspots
        if hot:
            names = ", ".join(self._bench.earlier.givers("hotspots"))
            report.decisions.append(f"Ranked files without tests by the hotspots that {names} found.")
        report.summary = self._summary(totals)
        report.next_steps.extend(
            f"Mend {finding.message.partition(':')[0]} ({finding.path}:{finding.line})"
            for finding in report.ranked()[:5]
            if finding.kind == "test-failure"
        )  # fmt: skip

    def _summary(self, totals: dict[str, int]) -> str:
        bare = self._report.metrics.get("source_files_not_named_in_tests", 0)
        rest = f" {plural(bare, 'source file is', 'source files are')} not named in any test." if bare else ""
        if not self._outcomes:
            reasons = "; ".join(f"{one.name}: {one.reason}" for one in self._runners)
            what = (
                f"Tests exist but could not be run ({reasons})." if reasons else "No tests were found that can be run."
            )
            return what + rest
        if not self._bench.settings.run_tools:
            return "Tests were not run (switched off)." + rest
        runners = ", ".join(runner.name for runner, _, _ in self._outcomes)
        ended = " before the time limit" if any(run.timed_out for _, _, run in self._outcomes) else ""
        verdict = (
            "all pass" if not totals["failed"] and totals["passed"] and not self._report.errors else "see findings"
        )
        if not sum(totals.values()):
            verdict = "no test ran, see warnings and errors"
        if totals["failed"]:
            verdict = f"{totals['failed']} fail"
        return f"{runners}: {totals['passed']} passed, {totals['skipped']} skipped, {verdict}{ended}." + rest


def _rerun(runner: Runner, path: str, name: str) -> str:
    """How to run one failed test alone."""
    test = name.rpartition("::")[2].partition("[")[0]
    if runner.format == "junit" and path:
        return f"Run it alone: python -m pytest {shlex.quote(path)} -k {shlex.quote(test)}"
    if runner.format == "go":
        return f"Run it alone: go test ./... -run '^{name.rpartition('.')[2].partition('/')[0]}$'"
    if runner.format == "cargo":
        return f"Run it alone: cargo test {shlex.quote(name)}"
    return f"Run it again: {shlex.join(runner.argv)[:200]}"

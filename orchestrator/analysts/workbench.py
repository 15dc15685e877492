"""What every analyst works with, and the edge at which its failures are caught and told."""

from __future__ import annotations

import contextlib
import functools
import os
import signal
import tempfile
import threading
import time
import traceback
from collections.abc import Callable, Iterator, Mapping
from pathlib import Path
from types import FrameType
from typing import Any

from agentpool.agent import Agent
from orchestrator.analysts.deadlines import Deadline
from orchestrator.analysts.earlier import Earlier, read_earlier
from orchestrator.analysts.findings import Report, plural
from orchestrator.analysts.git import Git, tool_environ
from orchestrator.analysts.processes import ToolRun, run_tool
from orchestrator.analysts.pysource import PyModule
from orchestrator.analysts.settings import AnalystSettings
from orchestrator.analysts.tree import Tree

#: What a step may take beyond its time before it is interrupted: steps look at the clock between files.
_GRACE_S = 2.0


class StepTooLong(Exception):
    """A step ran on far beyond its time."""


@contextlib.contextmanager
def time_limit(seconds: float) -> Iterator[None]:
    """Raise StepTooLong inside the block after ``seconds``, even in the midst of a regular expression.

    By SIGALRM, so in the main thread only; elsewhere there is no limit.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return

    def interrupt(_number: int, _frame: FrameType | None) -> None:
        raise StepTooLong(f"took longer than {seconds:.0f} s")

    before = signal.signal(signal.SIGALRM, interrupt)
    began = time.monotonic()
    pending, interval = signal.setitimer(signal.ITIMER_REAL, seconds)
    try:
        yield
    finally:
        signal.setitimer(signal.ITIMER_REAL, 0)
        signal.signal(signal.SIGALRM, before)
        if pending:
            signal.setitimer(signal.ITIMER_REAL, max(0.01, pending - (time.monotonic() - began)), interval)


class Workbench:
    """One analyst's agent, project, time and report.

    Args:
        agent: who it is and what it was given.
        environ: the agent's environment.
        scratch: a directory outside the project for whatever tools want to write.
    """

    def __init__(self, agent: Agent, environ: Mapping[str, str], scratch: Path) -> None:
        self.agent = agent
        self.settings = AnalystSettings.read(environ)
        self.root = Path(os.path.realpath(agent.workspace))
        self.scratch = scratch
        self.deadline = Deadline(self.settings.time_s)
        self.report = Report(max_findings=self.settings.max_findings)
        self.tool_environ = tool_environ(environ, scratch)
        self.git = Git(self.root, environ, timeout_s=self.settings.time_s)
        #: Python modules that an earlier step has parsed, by path.
        self.parsed: dict[str, PyModule] = {}

    @functools.cached_property
    def tree(self) -> Tree:
        """The project's files."""
        return Tree(self.root, self.git)

    @functools.cached_property
    def earlier(self) -> Earlier:
        """What other agents found before."""
        return read_earlier(self.agent)

    @functools.cached_property
    def hotspots(self) -> dict[str, float]:
        """Files that an architect found both large and often changed, with scores 0–100."""
        return self.earlier.hotspots()

    def step(self, message: str, percent: float, work: Callable[[], None], *, always: bool = False) -> bool:
        """Do one part of the job; its failure costs this part only and is told. Returns whether it was done.

        Once the time budget is used up, further parts are left out, and the result says which; those with
        ``always`` (conclusions from what is there: cheap) are done all the same.
        """
        if self.deadline.is_over and not always:
            self.report.warnings.append(f"left out for lack of time ({self.settings.time_s:g} s): {message}")
            self.report.status = "partial" if self.report.status == "success" else self.report.status
            return False
        self.agent.progress(message, percent)
        try:
            with time_limit(self.deadline.remaining_s() + self.settings.tool_time_s + _GRACE_S):
                work()
        except Exception as error:  # noqa: BLE001 - the edge of a task: one odd file must not cost the whole report
            self._tell(message, error)
            return False
        return True

    def tool(self, *argv: str, timeout_s: float | None = None, environ: Mapping[str, str] | None = None) -> ToolRun:
        """Run one of the project's tools in the project, with heartbeats while it runs."""
        return run_tool(
            argv,
            cwd=self.root,
            timeout_s=timeout_s or self.settings.tool_time_s,
            environ={**self.tool_environ, **(environ or {})},
            beat=self.agent.heartbeat,
        )

    def _tell(self, part: str, error: Exception) -> None:
        last = traceback.extract_tb(error.__traceback__)[-1]
        where = f"{os.path.basename(last.filename)}:{last.lineno}"
        self.agent.log(f"analyst step failed: {part}: {type(error).__name__} at {where}: {error}", "error")
        self.report.errors.append(f"{part}: {type(error).__name__} at {where}: {error}")
        self.report.status = "partial"


def conduct(agent: Agent, work: Callable[[Workbench], None]) -> dict[str, Any]:
    """Run an analyst's ``work`` on a new workbench and return its result.

    The result says what was left out, on whose findings it builds, and how long it took. A workspace that is no
    directory gives a ``failed`` result; any other failure costs no more than the step it happened in.
    """
    began = time.monotonic()
    with tempfile.TemporaryDirectory(prefix="analyst-") as scratch:
        bench = Workbench(agent, os.environ, Path(scratch))
        report = bench.report
        if not bench.root.is_dir():
            report.status = "failed"
            report.summary = f"The workspace {bench.root} is not a directory."
            report.errors.append(report.summary)
            return report.result()
        agent.progress("reading the project", 1)
        try:
            work(bench)
        except Exception as error:  # noqa: BLE001 - the edge of a process: what was found so far must not be lost
            bench._tell("analysis", error)
            report.status = "partial" if report.findings or report.metrics else "failed"
        for reason, count in bench.tree.left_out.items():
            report.warnings.append(f"not looked at: {plural(count, 'file')} ({reason})")
        if not bench.git.is_repository:
            report.warnings.append("not a git repository: nothing is known of its history")
        elif bench.git.is_shallow:
            report.warnings.append("the git history is shallow: figures from it are too low")
        report.artifacts["built_on"] = bench.earlier.agent_types
        report.metrics["duration_s"] = round(time.monotonic() - began, 2)
        if not report.summary:
            report.summary = "Nothing could be told." if report.status == "failed" else "Done."
        agent.progress("done", 100)
        return report.result()

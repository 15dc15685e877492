"""``run``: the main job. A sidecar, a team on a task, live progress, and a report."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import secrets
import signal
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from api.cli.failures import FAILED, USAGE, Failure
from api.cli.options import Command, formatted
from api.cli.progress import RunProgress
from api.cli.reading import read_text
from api.cli.report import Outcome, build_report, markdown, missing_outcome, outcome_of, render_report
from api.cli.session import Session

if TYPE_CHECKING:
    from api.client import Client

#: Milliseconds that one long poll for news of a run lasts: progress messages are looked at that often.
POLL_MS = 500
#: Seconds that a cancelled run is given to end.
CANCEL_S = 20.0
_FINAL_AGENT = frozenset({"completed", "failed", "killed", "timed_out"})
_FINAL_RUN = frozenset({"completed", "failed", "cancelled"})


@click.command(cls=Command)
@click.argument("task")
@click.option("--project", metavar="DIR", default=".", help="The project's directory (default: the current one).")
@click.option("--issue", "issue_id", metavar="ID", help="The issue that the work belongs to (default: a new one).")
@click.option("--workflow", metavar="NAME", help="Another team than the default one.")
@click.option("--runtime", metavar="NAME", help="Run every role with this runtime.")
@formatted
@click.pass_obj
def run(
    session: Session, task: str, project: str, issue_id: str | None, workflow: str | None, runtime: str | None
) -> int:
    """Have a team of agents work on TASK (`-` is standard input, `@FILE` a file), and print the report.

    When no sidecar answers, one is started for the time of the run, on the same storage. Ctrl-C cancels the run
    in order; a second one ends at once. Exits with 1 when the run did not complete.

    \b
    Examples:
      orchestrator run "Review the error handling"
      orchestrator run "Prepare the release" --project ~/src/shop --issue release-2
      orchestrator run @task.md --format json > report.json
    """
    text = read_text(task, "TASK").strip()
    if not text:
        raise Failure("TASK is empty; say what the team should do", USAGE)
    directory = Path(project).expanduser().resolve()
    if not directory.is_dir():
        raise Failure(f"--project {project}: not a directory; name the project's directory", USAGE)
    if project == ".":
        _refuse_everything(directory)
    with _interruptible(), _sidecar(session, directory) as client:
        project_id = _register(client, session.settings.client.project_id, directory)
        created = client.create_run(
            issue_id or new_issue_id(), text, workflow=workflow, runtime=runtime, project_id=project_id
        )
        session.out.note(f"run {created['run_id']} on issue {created['issue_id']} of project {project_id}")
        began = time.monotonic()
        final = _watch(session, client, created["run_id"], project_id, text)
        outcomes = read_outcomes(client, final, project_id)
        path = store_report(session.storage, final, outcomes)
        _print(session, final, outcomes, time.monotonic() - began, path)
    return 0 if final["status"] == "completed" else FAILED


def _refuse_everything(directory: Path) -> None:
    """Raise Failure where the current directory is all that the user has and does not say that it is a project."""
    from orchestrator.projects import is_project

    names = {
        Path(os.path.expanduser("~")).resolve(): "your home directory",
        Path(directory.anchor): "the root of all files",
    }
    if directory in names and not is_project(directory):
        raise Failure(
            f"{directory} is {names[directory]}, and all of it would become the project; change into the project's "
            f"directory or name it with --project DIR (--project {directory} if you mean just this)",
            USAGE,
        )


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """SIGTERM does what Ctrl-C does: the run is cancelled in order."""

    def interrupt(_: int, __: object) -> None:
        raise KeyboardInterrupt

    before = signal.signal(signal.SIGTERM, interrupt)
    try:
        yield
    finally:
        signal.signal(signal.SIGTERM, before)


@contextlib.contextmanager
def _sidecar(session: Session, directory: Path) -> Iterator[Client]:
    """An operator's client of the sidecar that answers, else of one of the command's own."""
    from api.cli.embedded import EmbeddedSidecar

    if _is_ours(session):
        yield session.operator
        return
    session.out.note("no sidecar answers; starting one for this run")
    with (
        EmbeddedSidecar(session.storage, [str(directory)], directory) as sidecar,
        contextlib.closing(session.client_of(sidecar.url)) as client,
    ):
        yield client
        _wait_for_others(session, client)


def _is_ours(session: Session) -> bool:
    """Whether a sidecar answers that knows this storage's keys.

    One that was named must; one that merely listens at the usual port may be another user's.
    """
    from api.client import APIError, SidecarUnavailable

    try:
        session.open_client.health()
        session.operator.projects()
    except SidecarUnavailable:
        if session.settings.client.url:
            raise  # one was named; another in its place would be a surprise
        return False
    except APIError as error:
        if session.settings.client.url or session.running is not None or error.status != 401:
            raise
        return False
    return True


def _wait_for_others(session: Session, client: Client) -> None:
    """Let the runs of other commands, which found this command's sidecar, end first."""
    quiet_looks = 0
    while quiet_looks < 2:
        busy = [
            run["run_id"]
            for project in client.projects()["projects"]
            for run in client.runs(project_id=project["project_id"])["runs"]
            if run["status"] not in _FINAL_RUN
        ]
        if not busy and quiet_looks == 0:
            return
        if busy and quiet_looks == 0:
            session.out.note(f"waiting for {len(busy)} other runs on this sidecar; Ctrl-C ends them")
        # Once others were seen they get two quiet looks: between its end and its report a run reads results.
        quiet_looks = quiet_looks + 1 if not busy else 1
        time.sleep(1.0)


def _register(client: Client, wanted: str | None, directory: Path) -> str:
    """The id under which the sidecar knows ``directory``, registered when it is new."""
    from api.client import APIError
    from orchestrator.projects import project_id_for

    known = {str(p["project_id"]): str(p["path"]) for p in client.projects()["projects"]}
    for project_id, path in known.items():
        if path == str(directory) and wanted in (None, project_id):
            return project_id
    project_id = wanted or project_id_for(directory)
    if wanted is None and project_id in known:
        # The name is another directory's: a stable suffix of the path tells them apart.
        project_id = f"{project_id[:119]}-{hashlib.sha256(str(directory).encode()).hexdigest()[:8]}"
    try:
        return client.add_project(project_id, str(directory))["project_id"]
    except APIError as error:
        if error.status == 409:
            raise Failure(f"{error.message} (--project-id)", USAGE) from error
        raise


def new_issue_id() -> str:
    """A new issue's name, which sorts by time."""
    return f"run-{time.strftime('%Y%m%d-%H%M%S', time.gmtime())}-{secrets.token_hex(2)}"


def _watch(session: Session, client: Client, run_id: str, project_id: str, task: str) -> dict[str, Any]:
    """Show the run until it has ended; Ctrl-C cancels it. Returns the run as it ended."""
    from api.client import ClientError

    with RunProgress(session.out, task) as progress:
        watcher = _Watcher(client, run_id, project_id, progress)
        try:
            return watcher.until_end(None)
        except KeyboardInterrupt:
            session.out.note("cancelling the run; Ctrl-C again ends at once")
            client.cancel_run(run_id, project_id=project_id)
            return watcher.until_end(CANCEL_S)
        except Exception:
            # A run that nobody watches any more must not go on, nor be resumed by the next sidecar.
            with contextlib.suppress(ClientError):
                client.cancel_run(run_id, project_id=project_id)
            raise


class _Watcher:
    """Looks at a run whenever an event says that something may have changed, and at least twice a second."""

    def __init__(self, client: Client, run_id: str, project_id: str, progress: RunProgress) -> None:
        self._client = client
        self._run_id = run_id
        self._project_id = project_id
        self._progress = progress
        self._cursor: str = "latest"
        self._agents: dict[str, dict[str, Any]] = {}

    def until_end(self, timeout_s: float | None) -> dict[str, Any]:
        """The run once it has ended, or as it is after ``timeout_s`` seconds."""
        deadline = None if timeout_s is None else time.monotonic() + timeout_s
        while True:
            run = dict(self._client.run(self._run_id, project_id=self._project_id))
            self._look(run)
            self._progress.update(run, self._agents)
            if run["status"] in _FINAL_RUN or (deadline is not None and time.monotonic() >= deadline):
                return run
            page = self._client.wait_events(
                timeout_ms=POLL_MS, filter="topic:coordination", since=self._cursor, project_id=self._project_id
            )
            self._cursor = page["next_cursor"]

    def _look(self, run: dict[str, Any]) -> None:
        for step in run["steps"]:
            agent_id = step.get("agent_id")
            if not agent_id or self._agents.get(agent_id, {}).get("status") in _FINAL_AGENT:
                continue
            record = _find_agent(self._client, agent_id, self._project_id)
            if record is not None:
                self._agents[agent_id] = record


def read_outcomes(client: Client, run: dict[str, Any], project_id: str | None) -> list[Outcome]:
    """Each step's outcome, in the order of the steps."""
    outcomes = []
    for step in run["steps"]:
        agent_id = step.get("agent_id")
        agent = _find_agent(client, agent_id, project_id) if agent_id else None
        result_id = agent.get("result_id") if agent else None
        if result_id:
            outcomes.append(outcome_of(client.result(result_id, project_id=project_id), agent=agent))
        else:
            outcomes.append(missing_outcome(step, agent))
    return outcomes


def _find_agent(client: Client, agent_id: str, project_id: str | None) -> dict[str, Any] | None:
    """The agent's record; None while a step's agent has its id but was not spawned yet."""
    from api.client import APIError

    try:
        return dict(client.agent(agent_id, project_id=project_id))
    except APIError as error:
        if error.code == "AGT_003":
            return None
        raise


def store_report(storage: Path, run: dict[str, Any], outcomes: list[Outcome]) -> Path:
    """Write ``report.json`` and ``report.md`` into ``<storage>/runs/<run_id>``; the Markdown file's path."""
    directory = storage / "runs" / str(run["run_id"])
    for path in (storage, directory.parent, directory):
        path.mkdir(mode=0o700, parents=True, exist_ok=True)
    document = json.dumps(build_report(run, outcomes), indent=2, ensure_ascii=False)
    for name, text in (("report.json", document), ("report.md", markdown(run, outcomes))):
        temporary = directory / f".{name}.tmp"
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with open(descriptor, "w", encoding="utf-8", errors="replace") as file:
            file.write(text + "\n")
        os.replace(temporary, directory / name)
    return directory / "report.md"


def _print(session: Session, run: dict[str, Any], outcomes: list[Outcome], took_s: float, path: Path) -> None:
    if session.out.format == "table":
        session.out.draw(lambda console: render_report(console, run, outcomes, took_s))
        # Into a pipe the report is written late: what stands below it must not come before it.
        sys.stdout.flush()
        session.out.note(f"\nThe whole report: {path}")
        return
    document = {**build_report(run, outcomes), "report_path": str(path)}
    if session.out.format == "csv":
        from api.cli.output import Column

        keys = ("severity", "message", "location", "agent_type")
        rows = [finding._asdict() for outcome in outcomes for finding in outcome.findings]
        session.out.rows(rows, [Column(key, key) for key in keys])
        return
    session.out.document(document)

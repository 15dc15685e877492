"""``runs``: issues that teams work on."""

from __future__ import annotations

from typing import Any

import click

from api.cli.options import Group, formatted, limited
from api.cli.output import Column
from api.cli.session import Session

COLUMNS = (
    Column("Run", "run_id"),
    Column("Issue", "issue_id"),
    Column("Workflow", "workflow"),
    Column("Status", "status"),
    Column("Steps", lambda row: f"{_done(row)}/{len(row['steps'])}"),
    Column("Created", "created_at"),
    Column("Task", lambda row: str(row["task"]).split("\n")[0][:60]),
)
STEP_COLUMNS = (
    Column("Step", "step"),
    Column("Phase", "phase"),
    Column("Type", "agent_type"),
    Column("Status", "status"),
    Column("Agent", "agent_id"),
)


def _done(row: Any) -> int:
    return sum(step["status"] == "completed" for step in row["steps"])


@click.group(cls=Group)
def runs() -> None:
    """List, show, approve and cancel runs.

    \b
    Examples:
      orchestrator runs list
      orchestrator runs show RUN
      orchestrator runs cancel RUN
    """


@runs.command("list")
@limited(20)
@formatted
@click.pass_obj
def list_(session: Session, limit: int) -> None:
    """List runs, newest first.

    \b
    Examples:
      orchestrator runs list
      orchestrator runs list --limit 5 --format json
    """
    found = session.client.runs(limit=min(limit, 1000))["runs"]
    session.out.rows(found[:limit], COLUMNS, nothing="no runs")


@runs.command()
@click.argument("run_id", metavar="RUN")
@click.option("--report", "is_report", is_flag=True, help="Show the report as it would be now.")
@formatted
@click.pass_obj
def show(session: Session, run_id: str, is_report: bool) -> None:
    """Show a run and its steps, or its report.

    \b
    Examples:
      orchestrator runs show RUN
      orchestrator runs show RUN --report
      orchestrator runs show RUN --format yaml
    """
    run: dict[str, Any] = dict(session.client.run(run_id))
    if is_report:
        _report(session, run)
        return
    if session.out.format == "csv":
        session.out.rows(run["steps"], STEP_COLUMNS)
        return
    session.out.document(run, render=lambda _: _render(session, run))


def _report(session: Session, run: dict[str, Any]) -> None:
    from api.cli.report import build_report, render_report
    from api.cli.run import read_outcomes

    outcomes = read_outcomes(session.client, run, None)
    session.out.document(
        build_report(run, outcomes), render=lambda console: render_report(console, run, outcomes, None)
    )


def _render(session: Session, run: dict[str, Any]) -> None:
    facts = [(name, run.get(name)) for name in ("run_id", "issue_id", "workflow", "status", "created_at", "ended_at")]
    session.out.pairs([*facts, ("task", run["task"]), *([("error", run["error"])] if run.get("error") else [])])
    session.out.text("")
    session.out.rows(run["steps"], STEP_COLUMNS, nothing="no steps yet")


@runs.command()
@click.argument("run_id", metavar="RUN")
@formatted
@click.pass_obj
def approve(session: Session, run_id: str) -> None:
    """Let a run that waits for approval go on.

    \b
    Examples:
      orchestrator runs approve RUN
    """
    run = dict(session.client.approve_run(run_id))
    session.out.document(run, render=lambda _: _render(session, run))


@runs.command()
@click.argument("run_id", metavar="RUN")
@formatted
@click.pass_obj
def cancel(session: Session, run_id: str) -> None:
    """End a run and its agents; what was stored stays.

    \b
    Examples:
      orchestrator runs cancel RUN
    """
    run = dict(session.client.cancel_run(run_id))
    session.out.document(run, render=lambda _: _render(session, run))

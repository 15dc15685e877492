"""``results``: what agents delivered."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Any

import click

from api.cli.failures import FAILED, USAGE, Failure
from api.cli.options import Group, formatted, limited
from api.cli.output import Column
from api.cli.paging import collect
from api.cli.reading import read_object
from api.cli.session import Session

if TYPE_CHECKING:
    from rich.console import Console

#: How long git may take to tell its settings, in seconds.
_GIT_TIMEOUT_S = 10.0


def _count(value: Any) -> int:
    # What an agent calls its findings need not be a list.
    return len(value) if isinstance(value, list) else int(value not in (None, ""))


COLUMNS = (
    Column("Result", "id"),
    Column("Type", "agent_type"),
    Column("Issue", "issue_id"),
    Column("Round", "round"),
    Column("Status", "result.status"),
    Column("Errors", lambda row: len(row["result"].get("errors") or [])),
    Column("Warnings", lambda row: len(row["result"].get("warnings") or [])),
    Column("Findings", lambda row: _count(row["result"].get("findings"))),
    Column("Time", "timestamp"),
)


@click.group(cls=Group)
def results() -> None:
    """List, read, store and compare results.

    \b
    Examples:
      orchestrator results list --issue bug-17
      orchestrator results get RESULT
      orchestrator results store --issue bug-17 --type code-reviewer @result.json
    """


@results.command("list")
@click.option("--issue", "issue_id", metavar="ID", help="Only of this issue.")
@click.option("--type", "agent_type", metavar="TYPE", help="Only of this role.")
@click.option("--status", type=click.Choice(("success", "failed", "partial")), help="Only these.")
@click.option("--from", "from_", metavar="TIME", help="Stored at or after this time (RFC 3339).")
@click.option("--to", metavar="TIME", help="Stored before this time (RFC 3339).")
@limited()
@formatted
@click.pass_obj
def list_(session: Session, /, limit: int, **query: str | None) -> None:
    """List results, newest first; every round is kept.

    \b
    Examples:
      orchestrator results list
      orchestrator results list --issue bug-17 --status failed
      orchestrator results list --from 2026-01-31T00:00:00Z --format csv
    """
    found = collect(
        lambda size, cursor: session.client.results(**query, limit=size, cursor=cursor),
        "results",
        limit,
    )
    session.out.rows(found, COLUMNS, nothing="no results")


@results.command()
@click.argument("result_id", metavar="RESULT")
@formatted
@click.pass_obj
def get(session: Session, result_id: str) -> None:
    """Show one result.

    \b
    Examples:
      orchestrator results get RESULT
      orchestrator results get RESULT --format json | jq .result.decisions
    """
    document = session.client.result(result_id)
    session.out.document(document, render=lambda console: _render(console, dict(document)))


def _render(console: Console, document: dict[str, Any]) -> None:
    from api.cli.report import outcome_of, render_outcome

    render_outcome(console, outcome_of(document))


@results.command()
@click.argument("result", required=False)
@click.option("--issue", "issue_id", metavar="ID", help="The issue that it belongs to.")
@click.option("--type", "agent_type", metavar="TYPE", help="The role that it is of.")
@click.option("--agent", "agent_id", metavar="AGENT", help="The agent that it is of.")
@click.option("--key", metavar="KEY", help="Idempotency key: storing again under it returns the first answer.")
@click.option("--outbox", type=click.Path(path_type=Path), metavar="DIR", help="Send what an agent's outbox holds.")
@formatted
@click.pass_obj
def store(
    session: Session,
    result: str | None,
    issue_id: str | None,
    agent_type: str | None,
    agent_id: str | None,
    key: str | None,
    outbox: Path | None,
) -> None:
    """Store a result: JSON text, `@FILE`, or `-` for standard input.

    \b
    Examples:
      orchestrator results store --issue bug-17 --type code-reviewer '{"status": "success"}'
      orchestrator results store --issue bug-17 --type code-reviewer @result.json --key review-1
      orchestrator results store --outbox ./outbox
    """
    if outbox is not None:
        _flush(session, outbox)
        return
    if result is None or issue_id is None or agent_type is None:
        raise Failure("a result needs RESULT, --issue and --type (or give --outbox DIR)", USAGE)
    document = read_object(result, "the result")
    stored = session.client.store_result(
        issue_id,
        document,
        agent_type=agent_type,
        agent_id=agent_id,
        idempotency_key=key,
    )
    session.out.document(stored)


def _flush(session: Session, directory: Path) -> None:
    from api.client import ResultBuffer

    if not directory.is_dir():
        raise Failure(f"--outbox: {directory} is not a directory", USAGE)
    flushed = ResultBuffer(directory).flush(session.client)
    columns = (Column("Result", "id"), Column("Path", "storage_path"))
    session.out.rows(flushed.stored, columns, nothing="nothing was stored")
    if flushed.refused:
        raise Failure(f"{len(flushed.refused)} refused; the reasons are in {directory / 'refused'}", FAILED)
    if flushed.waiting:
        raise Failure(f"{flushed.waiting} still wait in {directory}: the sidecar took no more", FAILED)


@results.command()
@click.argument("first", metavar="RESULT")
@click.argument("second", metavar="[OTHER]", required=False)
@click.option("--exit-code", is_flag=True, help="Exit with 1 when they differ.")
@click.pass_obj
def diff(session: Session, first: str, second: str | None, exit_code: bool) -> int:
    """Compare a result with another one, or with the round before it.

    What two rounds say is compared. A first round shows the changes to files that its agent gave as `artifacts.diff`.
    What an agent left in a worktree is shown by git there; `agent show` names the directory.

    \b
    Examples:
      orchestrator results diff RESULT
      orchestrator results diff RESULT OTHER --exit-code
    """
    import difflib
    import json

    newer = session.client.result(first)
    older = session.client.result(second) if second else _round_before(session, newer)
    if older is None:
        patch = newer["result"].get("artifacts") or {}
        if isinstance(patch, dict) and isinstance(patch.get("diff"), str):
            session.out.text(patch["diff"])
            return 0
        session.out.note(
            "nothing to compare: this is the first round, and it holds no file changes "
            f"(what its agent left in a worktree is where 'orchestrator agent show {newer['agent_id']}' says)"
        )
        return 0
    before, after = (
        json.dumps(each["result"], indent=2, sort_keys=True, ensure_ascii=False).splitlines() for each in (older, newer)
    )
    lines = list(difflib.unified_diff(before, after, older["id"], newer["id"], lineterm=""))
    if not lines:
        session.out.note("no difference")
        return 0
    session.out.text("\n".join(lines))
    return FAILED if exit_code else 0


def _round_before(session: Session, result: Any) -> Any:
    wanted = result["round"] - 1
    if wanted < 1:
        return None
    rounds = collect(
        lambda size, cursor: session.client.results(
            issue_id=result["issue_id"], agent_type=result["agent_type"], limit=size, cursor=cursor
        ),
        "results",
        100_000,
    )
    return next((other for other in rounds if other["round"] == wanted), None)


@results.command()
@click.argument("result_id", metavar="RESULT")
@click.pass_obj
def apply(session: Session, result_id: str) -> int:
    """Apply the file changes that a result holds to the current directory.

    Only a result whose agent gave them as `artifacts.diff` holds changes; any other says so and exits with 1. The
    patch is checked whole before anything is touched.

    \b
    Examples:
      orchestrator results apply RESULT
      orchestrator results diff RESULT | less
    """
    import os
    import subprocess

    from orchestrator.context.git import GitFailed, Repository

    patch = (session.client.result(result_id)["result"].get("artifacts") or {}).get("diff")
    if not isinstance(patch, str) or not patch.strip():
        raise Failure("this result holds no file changes: its agent gave no artifacts.diff", FAILED)
    # `git apply` refuses paths outside the tree and applies all or nothing.
    # Agents may have written to the repository's configuration: none of its programs is run.
    try:
        repository = Repository(os.path.realpath(session.directory), _GIT_TIMEOUT_S)
        done = subprocess.run(
            repository.command(["apply", "--index", "-"]),
            input=patch.encode(),
            cwd=session.directory,
            env=repository.environment(uses_filters=True),
            capture_output=True,
            check=False,
        )
    except GitFailed as error:
        raise Failure(f"the changes cannot be applied: {error}", FAILED) from error
    if done.returncode:
        raise Failure(f"the changes do not fit: {done.stderr.decode(errors='replace').strip()}", FAILED)
    session.out.note("applied; see 'git diff --cached'")
    return 0

"""``context``: what roles are given of the project."""

from __future__ import annotations

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from api.cli.options import Group, formatted, limited
from api.cli.output import Column
from api.cli.reading import read_text
from api.cli.session import Session

if TYPE_CHECKING:
    from rich.console import Console

FILE_COLUMNS = (
    Column("Path", "path"),
    Column("Size", "size"),
    Column("Score", "score"),
    Column("Reason", "reason"),
)


@click.group(cls=Group)
def context() -> None:
    """See, refresh, clear and search what roles are given.

    \b
    Examples:
      orchestrator context get bug-17 python-specialist --task "Fix the parser"
      orchestrator context clear bug-17
      orchestrator context search "token refresh" --explain
    """


@context.command()
@click.argument("issue_id", metavar="ISSUE")
@click.argument("agent_type", metavar="TYPE")
@click.option("--task", metavar="TEXT", help="Rank for this task (`-` and @FILE work).")
@click.option("--max-bytes", type=click.IntRange(1), metavar="N", help="Budget for the files' contents.")
@click.option("--refresh", is_flag=True, help="Gather anew.")
@click.option("--partial", is_flag=True, help="Take a provisional one while the project is not indexed yet.")
@click.option("--explain", is_flag=True, help="List each file with its score and reason, and what was left out.")
@formatted
@click.pass_obj
def get(
    session: Session,
    issue_id: str,
    agent_type: str,
    task: str | None,
    max_bytes: int | None,
    refresh: bool,
    partial: bool,
    explain: bool,
) -> None:
    """Show the context of a role for an issue; json and yaml hold all of it.

    \b
    Examples:
      orchestrator context get bug-17 python-specialist
      orchestrator context get bug-17 security-auditor --explain
      orchestrator context get bug-17 code-reviewer --format json > context.json
    """
    if explain:
        _explain(session, issue_id, agent_type, task, max_bytes, refresh)
    else:
        _show(session, issue_id, agent_type, task, max_bytes, is_fresh=refresh, is_partial=partial)


@context.command()
@click.argument("issue_id", metavar="ISSUE")
@click.argument("agent_type", metavar="TYPE")
@click.option("--task", metavar="TEXT", help="Rank for this task (`-` and @FILE work).")
@formatted
@click.pass_obj
def refresh(session: Session, issue_id: str, agent_type: str, task: str | None) -> None:
    """Gather a role's context anew and show it.

    \b
    Examples:
      orchestrator context refresh bug-17 python-specialist
    """
    _show(session, issue_id, agent_type, task, None, is_fresh=True)


def _explain(
    session: Session, issue_id: str, agent_type: str, task: str | None, max_bytes: int | None, is_fresh: bool
) -> None:
    """A table of the files with their scores and signals, and of what was left out and why."""
    text = read_text(task, "--task") if task is not None else None
    document = dict(
        session.client.explain_context(
            issue_id, agent_type, task=text, max_bytes=max_bytes, refresh=True if is_fresh else None
        )
    )
    if session.out.format not in ("table", "csv"):
        session.out.document(document)
        return
    session.out.rows(document["files"], EXPLAINED_COLUMNS, nothing="no files")
    if session.out.format == "table" and document["omitted"]:
        session.out.text("\nLeft out:")
        session.out.rows(document["omitted"], (Column("Path", "path"), Column("Reason", "reason")))


def _signals(row: Mapping[str, Any]) -> str:
    """The shares of the score, largest first."""
    shares = sorted(row["signals"].items(), key=lambda item: -item[1])
    return " ".join(f"{name}={share:.2f}" for name, share in shares if share >= 0.005)


EXPLAINED_COLUMNS = (
    Column("Path", "path"),
    Column("Score", "score"),
    Column("Bytes", "bytes"),
    Column("Of", "size"),
    Column("Reason", "reason"),
    Column("Signals", _signals),
)


def _show(
    session: Session,
    issue_id: str,
    agent_type: str,
    task: str | None,
    max_bytes: int | None,
    *,
    is_fresh: bool,
    is_partial: bool = False,
) -> None:
    text = read_text(task, "--task") if task is not None else None
    document = session.client.context(
        issue_id,
        agent_type,
        task=text,
        max_bytes=max_bytes,
        refresh=True if is_fresh else None,
        partial=True if is_partial else None,
    )
    if session.out.format == "csv":
        session.out.rows(document["context"]["relevant_files"], FILE_COLUMNS)
        return
    session.out.document(document, render=lambda console: _render_facts(console, dict(document)))
    if session.out.format == "table":
        _show_files(session, dict(document))


def _render_facts(console: Console, document: dict[str, Any]) -> None:
    from rich.text import Text

    inner = document["context"]
    git = inner.get("git_context") or {}
    metadata = inner.get("metadata") or {}
    structure = inner.get("project_structure") or {}
    is_partial = bool(document.get("partial"))
    facts = [
        ("Role", f"{document['agent_type']} on {document['issue_id']}"),
        ("Project", f"{structure.get('root', '')} ({metadata.get('project_type') or 'unknown type'})"),
        ("Branch", f"{git.get('branch') or 'none'}, {len(git.get('uncommitted_changes') or [])} uncommitted changes"),
        (
            "Files",
            f"{document['file_count']} of {structure.get('total_files', '?')}, {document['total_size_bytes']} bytes"
            + (", cut to the budget" if document["truncated"] else ""),
        ),
        ("Earlier", f"{len(inner.get('previous_agent_outputs') or [])} results of other agents"),
        ("Cache", "hit" if document["cache_hit"] else "gathered now"),
        *([("Partial", "provisional: the project is being indexed, ask again for all of it")] * is_partial),
    ]
    for name, value in facts:
        console.print(Text(f"{name:<8} {value}"))


def _show_files(session: Session, document: dict[str, Any]) -> None:
    files = document["context"].get("relevant_files") or []
    session.out.text("")
    session.out.rows(files[:20], FILE_COLUMNS, nothing="no files")
    if len(files) > 20:
        session.out.note(f"and {len(files) - 20} more (--explain lists all)")


@context.command()
@click.argument("issue_id", metavar="ISSUE")
@formatted
@click.pass_obj
def clear(session: Session, issue_id: str) -> None:
    """Drop an issue's cached contexts; exits with 1 when nothing was cached.

    \b
    Examples:
      orchestrator context clear bug-17
    """
    session.out.document(session.client.clear_context(issue_id))


@context.command()
@click.argument("query")
@click.option("--explain", is_flag=True, help="Say why each file was found.")
@limited(20)
@formatted
@click.pass_obj
def search(session: Session, query: str, explain: bool, limit: int) -> None:
    """Search the project's files as the context engine ranks them, best first.

    \b
    Examples:
      orchestrator context search "token refresh"
      orchestrator context search parse_rfc3339 --explain --limit 5
    """
    hits = session.client.search_context(query, limit=min(limit, 100))["results"]
    columns = [
        Column("Path", "path"),
        Column("Line", lambda row: _best_line(row).get("line")),
        Column("Score", "score"),
    ]
    if explain:
        columns.append(Column("Reason", "reason"))
    columns.append(Column("Text", lambda row: str(_best_line(row).get("text") or "").strip()[:100]))
    session.out.rows(hits, columns, nothing="nothing found")


def _best_line(row: Mapping[str, Any]) -> dict[str, Any]:
    lines = row.get("lines") or [{}]
    return dict(lines[0])

"""``knowledge``: what earlier work has found out."""

from __future__ import annotations

import click

from api.cli.options import Group, formatted, limited
from api.cli.output import Column
from api.cli.reading import read_text
from api.cli.session import Session

COLUMNS = (
    Column("Kind", "kind"),
    Column("Score", "score"),
    Column("Type", "agent_type"),
    Column("Issue", "issue_id"),
    Column("Result", "result_id"),
    Column("Text", "text"),
)


@click.group(cls=Group)
def knowledge() -> None:
    """Search decisions and findings of earlier work, add notes.

    \b
    Examples:
      orchestrator knowledge search "token refresh"
      orchestrator knowledge add "Releases are cut from the release branch"
    """


@knowledge.command()
@click.argument("query")
@limited(20)
@formatted
@click.pass_obj
def search(session: Session, query: str, limit: int) -> None:
    """Search decisions, findings, warnings, errors and notes of the project, best first.

    \b
    Examples:
      orchestrator knowledge search "connection pool"
      orchestrator knowledge search migration --limit 5 --format json
    """
    found = session.client.search_knowledge(query, limit=min(limit, 100))
    session.out.rows(found["results"], COLUMNS, nothing="nothing found")


@knowledge.command()
@click.argument("text")
@click.option("--issue", "issue_id", metavar="ID", help="The issue that it belongs to.")
@formatted
@click.pass_obj
def add(session: Session, text: str, issue_id: str | None) -> None:
    """Add a note that later agents find (`-` reads standard input, `@FILE` a file).

    \b
    Examples:
      orchestrator knowledge add "The billing API is frozen until March"
      orchestrator knowledge add @decision.md --issue bug-17
    """
    session.out.document(session.client.add_note(read_text(text, "the note"), issue_id=issue_id))

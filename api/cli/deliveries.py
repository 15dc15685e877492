"""``events dead-letters`` and ``events consumers``: pushes that failed, and how far durable readers are."""

from __future__ import annotations

from typing import Any

import click

from api.cli.failures import USAGE, Failure
from api.cli.options import Command, formatted, limited
from api.cli.output import Column
from api.cli.session import Session

#: Stands for every dead letter where an id is expected.
ALL = "all"
LETTERS = (
    Column("Letter", "id"),
    Column("Type", "event.event_type"),
    Column("Target", "target"),
    Column("Reason", "reason"),
    Column("Attempts", "attempts"),
    Column("Error", "last_error"),
)
CONSUMERS = (
    Column("Consumer", "consumer"),
    Column("Types", "event_type"),
    Column("Acked", "acked_cursor"),
    Column("Delivered", "delivered_cursor"),
    Column("Lag", "lag"),
    Column("Redeliveries", "redeliveries"),
    Column("Overdue", "overdue"),
)


@click.command("dead-letters", cls=Command)
@click.option("--show", "show_id", metavar="ID", help="Show this one with its event instead of listing.")
@click.option("--redrive", "redrive_id", metavar="ID", help="Deliver this one again, or `all`.")
@click.option("--purge", "purge_id", metavar="ID", help="Throw this one away, or `all`.")
@click.option("--filter", metavar="FILTER", help="Of `all` only those whose event matches.")
@limited()
@formatted
@click.pass_obj
def dead_letters(
    session: Session,
    show_id: str | None,
    redrive_id: str | None,
    purge_id: str | None,
    filter: str | None,
    limit: int,
) -> None:
    """List deliveries that were given up, with the reason; show, repeat or remove them.

    \b
    Examples:
      orchestrator events dead-letters
      orchestrator events dead-letters --show LETTER --format json
      orchestrator events dead-letters --redrive all --filter 'event_type:deployed'
      orchestrator events dead-letters --purge LETTER
    """
    chosen = [given for given in (show_id, redrive_id, purge_id) if given is not None]
    if len(chosen) > 1:
        raise Failure("take one of --show, --redrive and --purge", USAGE)
    if filter is not None and (show_id is not None or chosen != [ALL]):
        raise Failure("--filter goes with --redrive all or --purge all", USAGE)
    client = session.client
    if show_id is not None:
        session.out.document(client.dead_letter(show_id))
    elif redrive_id is not None:
        session.out.document(client.redrive_all(filter=filter) if redrive_id == ALL else client.redrive(redrive_id))
    elif purge_id is not None:
        session.out.document(client.purge_all(filter=filter) if purge_id == ALL else client.purge(purge_id))
    else:
        session.out.rows(_list(session, limit), LETTERS, nothing="no dead letters")


def _list(session: Session, limit: int) -> list[dict[str, Any]]:
    letters: list[dict[str, Any]] = []
    cursor: str | None = None
    while len(letters) < limit:
        page = session.client.dead_letters(limit=min(1000, limit - len(letters)), cursor=cursor)
        letters += page["dead_letters"]
        cursor = page["next_cursor"]
        if cursor is None:
            break
    return letters


@click.command(cls=Command)
@click.option("--remove", metavar="NAME", help="Forget this one, whatever types it read.")
@formatted
@click.pass_obj
def consumers(session: Session, remove: str | None) -> None:
    """List durable readers of the log with their lag: retained events that they have not acknowledged.

    A removed name that is used again begins anew.

    \b
    Examples:
      orchestrator events consumers
      orchestrator events consumers --format json
      orchestrator events consumers --remove mail-sender
    """
    if remove is not None:
        session.out.document(session.client.remove_consumer(remove))
        return
    session.out.rows(session.client.consumers()["consumers"], CONSUMERS, nothing="no durable consumers")

"""``events``: the project's event log."""

from __future__ import annotations

import contextlib
import json
from typing import Any

import click

from api.cli.deliveries import consumers, dead_letters
from api.cli.failures import FAILED, USAGE, Failure
from api.cli.options import Group, formatted, limited
from api.cli.output import Column, plain
from api.cli.reading import read_object
from api.cli.session import Session

COLUMNS = (
    Column("Cursor", "cursor"),
    Column("Time", "timestamp"),
    Column("Type", "event_type"),
    Column("Topic", "topic"),
    Column("Publisher", "publisher"),
    Column("Data", "data"),
)
#: Fields of an event that an import publishes again; the log gives the rest.
_IMPORTED = ("event_id", "publisher", "correlation_id", "ttl_seconds", "priority", "references", "round")


@click.group(cls=Group)
def events() -> None:
    """Publish, read and follow events.

    \b
    Examples:
      orchestrator events publish code_changed --topic implementation '{"files": ["a.py"]}'
      orchestrator events subscribe 'agent_*'
      orchestrator events list --topic security --format json
    """


@events.command("list")
@click.option("--type", "event_type", metavar="TYPE", help="Only these types (a,b).")
@click.option("--topic", metavar="TOPIC", help="Only this topic.")
@click.option("--filter", metavar="FILTER", help="Such as 'data.severity:high|critical,publisher:!bot-*'.")
@click.option("--since", metavar="CURSOR", help="A cursor, earliest or latest (default earliest).")
@limited()
@formatted
@click.pass_obj
def list_(session: Session, /, limit: int, since: str | None, **query: str | None) -> None:
    """List retained events, oldest first.

    \b
    Examples:
      orchestrator events list
      orchestrator events list --type agent_failed,agent_killed --since 120
      orchestrator events list --filter 'priority:high' --format csv
    """
    session.out.rows(_read(session, limit, since, query), COLUMNS, nothing="no events")


def _read(session: Session, limit: int, since: str | None, query: dict[str, Any]) -> list[dict[str, Any]]:
    """Retained events over as many pages as ``limit`` needs; a gap is told."""
    found: list[Any] = []
    position = since or "earliest"
    while len(found) < limit:
        page = session.client.events(**query, since=position, limit=min(1000, limit - len(found)))
        if page.get("gap"):
            session.out.warn(f"events after cursor {position} are no longer retained")
        found += page["events"]
        if not page.get("more_available") or not page["events"]:
            break
        position = page["next_cursor"]
    return found


@events.command()
@click.argument("event_type", metavar="TYPE")
@click.argument("data", default="{}")
@click.option("--topic", required=True, metavar="TOPIC", help="Where to publish it.")
@click.option("--correlation-id", metavar="ID", help="What it belongs to.")
@click.option("--ttl", "ttl_seconds", type=click.IntRange(1, 86400), metavar="SECONDS", help="How long it is kept.")
@click.option("--priority", type=click.Choice(("low", "normal", "high")))
@click.option("--event-id", metavar="ID", help="Publishing again under it does nothing.")
@formatted
@click.pass_obj
def publish(session: Session, /, event_type: str, data: str, **fields: Any) -> None:
    """Publish an event; DATA is a JSON object, `@FILE`, or `-` for standard input.

    \b
    Examples:
      orchestrator events publish deployed --topic deployment
      orchestrator events publish code_changed --topic implementation '{"files": ["a.py"]}'
      jq -n '{ok: true}' | orchestrator events publish checked --topic testing -
    """
    topic = fields.pop("topic")
    session.out.document(session.client.publish(event_type, topic, read_object(data, "DATA"), **fields))


@events.command()
@click.argument("event_type", metavar="[TYPE]", default="*")
@click.option("--filter", metavar="FILTER", help="Which of them.")
@click.option("--since", metavar="CURSOR", help="A cursor, earliest or latest (default latest).")
@click.option("--consumer", metavar="NAME", help="A durable name: go on where it stopped.")
@click.option("--count", type=click.IntRange(1), metavar="N", help="End after so many.")
@click.option("--wait", "wait_s", type=click.FloatRange(0), metavar="SECONDS", help="End after this long without any.")
@click.option("--json", "as_json", is_flag=True, help="One JSON object a line.")
@click.pass_obj
def subscribe(session: Session, /, event_type: str, count: int | None, wait_s: float | None, **given: Any) -> int:
    """Follow events until Ctrl-C. A sidecar that restarts is waited for, for a minute.

    TYPE is one type, a list (a,b) or * for all. With --count, exits with 1 when fewer came within --wait.

    \b
    Examples:
      orchestrator events subscribe
      orchestrator events subscribe agent_completed,agent_failed --json
      orchestrator events subscribe deployed --count 1 --wait 60
    """
    as_json = given["as_json"] or not session.out.is_terminal()
    seen = 0
    with contextlib.suppress(KeyboardInterrupt):
        for event in _follow(session, event_type, wait_s, given):
            if as_json:
                session.out.line(event)
            else:
                session.out.text(event_line(event))
            seen += 1
            if count is not None and seen >= count:
                return 0
    return FAILED if count is not None and wait_s is not None else 0


def _follow(session: Session, event_type: str, wait_s: float | None, given: dict[str, Any]) -> Any:
    def tell(page: Any) -> None:
        session.out.warn(f"events are missing: the oldest retained one is {page.get('oldest_cursor') or 'unknown'}")

    since = given["since"] or (None if given["consumer"] else "latest")
    if wait_s is None:
        return session.client.iterate_events(
            event_type,
            filter=given["filter"],
            since=since,
            consumer=given["consumer"],
            patience_s=60.0,
            on_gap=tell,
        )
    return _until_silence(session, event_type, wait_s, since, given, tell)


def _until_silence(
    session: Session, event_type: str, wait_s: float, since: str | None, given: dict[str, Any], tell: Any
) -> Any:
    from api.client.cursor import EventCursor

    poll_ms = min(300_000, int(wait_s * 1000))
    cursor = EventCursor(event_type, given["filter"], since, given["consumer"], None, poll_ms, tell)
    while True:
        page = session.client.send(cursor.request())
        yield from cursor.take(page)
        if not page["events"]:
            return


@events.command()
@click.option("--type", "event_type", metavar="TYPE", help="Only these types (a,b).")
@click.option("--topic", metavar="TOPIC", help="Only this topic.")
@click.option("--since", metavar="CURSOR", help="From this cursor on (default earliest).")
@click.pass_obj
def export(session: Session, event_type: str | None, topic: str | None, since: str | None) -> None:
    """Print all retained events, one JSON object a line, for `events import` or other programs.

    \b
    Examples:
      orchestrator events export > events.jsonl
      orchestrator events export --topic security | jq .data
    """
    for event in _read(session, 1_000_000, since, {"event_type": event_type, "topic": topic}):
        session.out.line(event)


@events.command("import")
@click.argument("file", type=click.File("r", encoding="utf-8"))
@click.pass_obj
def import_(session: Session, file: Any) -> None:
    """Publish the events of a file that `events export` wrote (`-` is standard input).

    Events that the project already has are left out, so an import can be repeated after a failure.

    \b
    Examples:
      orchestrator events import events.jsonl
      orchestrator events export --project-id a | orchestrator events import - --project-id b
    """
    published = known = 0
    for number, line in enumerate(file, 1):
        if not line.strip():
            continue
        event = _parse_line(line, number)
        fields = {name: event[name] for name in _IMPORTED if event.get(name) is not None}
        answer = session.client.publish(event["event_type"], event["topic"], event.get("data") or {}, **fields)
        # A known event_id is answered as published, for it is: the first time.
        if answer.get("duplicate"):
            known += 1
        else:
            published += 1
    session.out.note(f"{published} published, {known} were there already")


def _parse_line(line: str, number: int) -> dict[str, Any]:
    try:
        event = json.loads(line)
    except (ValueError, RecursionError) as error:
        raise Failure(f"line {number} is not JSON: {error}", USAGE) from error
    if not isinstance(event, dict) or not isinstance(event.get("event_type"), str) or "topic" not in event:
        raise Failure(f"line {number} is not an event (event_type and topic are needed)", USAGE)
    return event


def event_line(event: Any) -> str:
    """One event on one line, for a reader."""
    moment = str(event.get("timestamp", ""))[11:19]
    data = plain(event.get("data") or {}).replace("\n", " ")
    return f"{moment} {event['event_type']} [{event['topic']}] {event['publisher']} {data[:400]}"


events.add_command(dead_letters)
events.add_command(consumers)

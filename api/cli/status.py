"""``status``: what the sidecar does and how it is."""

from __future__ import annotations

import time
from typing import TYPE_CHECKING, Any

import click

from api.cli.options import Command, formatted
from api.cli.session import Session

if TYPE_CHECKING:
    from rich.console import Console

_STYLES = {"healthy": "green", "ok": "green", "degraded": "yellow", "unhealthy": "red", "failed": "red"}
#: Seconds between two looks for a sidecar that is starting.
_LOOK_S = 0.1


@click.command(cls=Command)
@click.option(
    "--wait",
    "wait_s",
    type=click.FloatRange(0, 3600),
    default=0.0,
    metavar="SECONDS",
    help="Wait up to so long for a sidecar that is starting.",
)
@formatted
@click.pass_obj
def status(session: Session, wait_s: float) -> int:
    """Show health, agents, storage, events and response times.

    Exits with 1 when the sidecar is unhealthy, 3 when none answers.

    \b
    Examples:
      orchestrator status
      orchestrator status --wait 30
      orchestrator status --format json
    """
    health = _health(session, wait_s)
    counts = session.open_client.status()
    document = {"url": session.open_client.url, "health": health, "status": counts}
    session.out.document(document, render=lambda console: _render(console, document))
    return 1 if health["status"] == "unhealthy" else 0


def _health(session: Session, wait_s: float) -> Any:
    """What ``/health`` says; for ``wait_s`` seconds no answer is taken as "not yet"."""
    from api.client import SidecarUnavailable

    deadline = time.monotonic() + wait_s
    while True:
        try:
            return session.open_client.health()
        except SidecarUnavailable:
            if time.monotonic() >= deadline:
                raise
        time.sleep(_LOOK_S)
        session.forget()


def _render(console: Console, document: dict[str, Any]) -> None:
    from rich.text import Text

    health, counts = document["health"], document["status"]
    head = Text("Sidecar ")
    head.append(str(health["status"]), style=f"bold {_STYLES.get(health['status'], '')}".strip())
    head.append(f" at {document['url']}, version {health['version']}, up {duration(health['uptime_seconds'])}")
    console.print(head)
    agents, storage = counts["agents"], counts["storage"]
    events, performance = counts["events"], counts["performance"]
    lines = [
        (
            "Agents",
            f"{agents['active']} active, {agents['queued']} queued, {agents['completed']} completed, "
            f"{agents['failed']} failed",
        ),
        ("Results", f"{storage['results_stored']} stored, {storage['total_size_mb']:.1f} MB"),
        (
            "Events",
            f"{events['total_published']} published, {events['active_subscriptions']} subscriptions, "
            f"{events['dead_letter_queue_size']} dead letters",
        ),
        (
            "Answers",
            f"p95 {performance['p95_response_time_ms']:.1f} ms, {performance['requests_per_second']:.1f} a second, "
            f"{performance['errors_per_minute']} errors a minute",
        ),
        ("Checks", ", ".join(f"{name} {_short(value)}" for name, value in health["checks"].items())),
    ]
    for name, text in lines:
        console.print(Text(f"  {name:<8} {text}"))


def _short(value: Any) -> str:
    if isinstance(value, dict):
        return str(value.get("status", "ok"))
    return f"{value:.0f}" if isinstance(value, float) else str(value)


def duration(seconds: float) -> str:
    """``seconds`` for a reader: ``5s``, ``3m 20s``, ``2h 5m``, ``3d 4h``."""
    total = int(seconds)
    if total < 60:
        return f"{total}s"
    if total < 3600:
        return f"{total // 60}m {total % 60}s"
    if total < 86400:
        return f"{total // 3600}h {total % 3600 // 60}m"
    return f"{total // 86400}d {total % 86400 // 3600}h"

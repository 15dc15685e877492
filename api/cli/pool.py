"""``pool``: the door that agents go through to start."""

from __future__ import annotations

import time

import click

from api.cli.failures import FAILED
from api.cli.options import Group, formatted
from api.cli.session import Session

#: Seconds between two looks at a pool that drains.
LOOK_S = 0.5


@click.group(cls=Group)
def pool() -> None:
    """Show the pool of agents; pause, drain and resume it.

    \b
    Examples:
      orchestrator pool show
      orchestrator pool drain --wait 600
      orchestrator pool resume
    """


@pool.command()
@formatted
@click.pass_obj
def show(session: Session) -> None:
    """Show its state, slots and queue.

    \b
    Examples:
      orchestrator pool show
      orchestrator pool show --format json
    """
    session.out.document(session.client.pool())


@pool.command()
@formatted
@click.pass_obj
def pause(session: Session) -> None:
    """Start no more agents; what is spawned waits in the queue, what runs goes on.

    \b
    Examples:
      orchestrator pool pause
    """
    session.out.document(session.client.pause_pool())


@pool.command()
@click.option(
    "--wait", "wait_s", type=click.FloatRange(0), default=0.0, metavar="SECONDS", help="Wait until nothing runs."
)
@formatted
@click.pass_obj
def drain(session: Session, wait_s: float) -> int:
    """Start no more agents and refuse new ones, so that the pool runs empty.

    What is queued stays queued, over a restart of the sidecar too; the restart also opens the pool again.
    With --wait the exit code is 1 when something still runs after that time.

    \b
    Examples:
      orchestrator pool drain
      orchestrator pool drain --wait 600 && orchestrator stop
    """
    deadline = time.monotonic() + wait_s
    state = session.client.drain_pool()
    while not state["is_drained"] and time.monotonic() < deadline:
        time.sleep(LOOK_S)
        state = session.client.pool()
    session.out.document(state)
    return 0 if state["is_drained"] or not wait_s else FAILED


@pool.command()
@formatted
@click.pass_obj
def resume(session: Session) -> None:
    """Start agents again.

    \b
    Examples:
      orchestrator pool resume
    """
    session.out.document(session.client.resume_pool())

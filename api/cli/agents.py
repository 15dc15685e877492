"""``agent``: spawn, watch, talk to and end agents."""

from __future__ import annotations

import sys
from collections.abc import Mapping
from typing import TYPE_CHECKING, Any

import click

from api.cli.failures import FAILED, Failure
from api.cli.options import Group, formatted, limited
from api.cli.output import Column
from api.cli.paging import collect
from api.cli.reading import read_pairs, read_text
from api.cli.session import Session

if TYPE_CHECKING:
    from rich.console import Console

STATUSES = ("queued", "starting", "running", "stopping", "completed", "failed", "killed", "timed_out")
COLUMNS = (
    Column("Agent", "agent_id"),
    Column("Type", "agent_type"),
    Column("Issue", "issue_id"),
    Column("Status", "status"),
    Column("Pid", "process_id"),
    Column("Exit", "exit_code"),
    Column("Attempt", "attempt"),
    Column("Started", "started_at"),
    Column("Progress", lambda row: progress_text(row)),
)


@click.group(cls=Group)
def agent() -> None:
    """Spawn, watch, talk to and end agents.

    \b
    Examples:
      orchestrator agent spawn code-reviewer --issue bug-17 "Review the last commit"
      orchestrator agent list --status running
      orchestrator agent logs AGENT --follow
    """


@agent.command()
@click.argument("agent_type", metavar="TYPE")
@click.argument("task")
@click.option("--issue", "issue_id", required=True, metavar="ID", help="The issue that it works on.")
@click.option("--runtime", metavar="NAME", help="Another runtime than the profile's.")
@click.option("--command", metavar="COMMAND", help="Another command than the profile's (quoted as for a shell).")
@click.option("--workspace", type=click.Choice(("shared", "scratch", "worktree")), help="Where it works.")
@click.option("--env", "environment", multiple=True, metavar="NAME=VALUE", help="A variable for it; may be repeated.")
@click.option("--require", "requirements", multiple=True, metavar="NAME", help="A context requirement.")
@click.option("--priority", type=click.Choice(("low", "normal", "high")), help="Its place in the queue.")
@click.option("--restart", type=click.Choice(("never", "on-failure", "always")), help="When to start it again.")
@click.option("--timeout", type=click.FloatRange(0, min_open=True), metavar="SECONDS", help="Longest run.")
@click.option("--wait", is_flag=True, help="Wait for its end; exit with 1 unless it completed.")
@formatted
@click.pass_obj
def spawn(session: Session, /, agent_type: str, task: str, issue_id: str, wait: bool, **given: Any) -> int:
    """Start an agent of a role on a task (`-` reads the task from standard input, `@FILE` from a file).

    \b
    Examples:
      orchestrator agent spawn security-auditor --issue audit-1 "Look for secrets"
      orchestrator agent spawn python-specialist --issue bug-17 @task.md --timeout 600 --wait
      orchestrator agent spawn devops-engineer --issue ci --command 'bash ./check.sh' "Check CI"
    """
    import shlex

    try:
        command = shlex.split(given["command"]) if given["command"] is not None else None
    except ValueError as error:
        raise click.BadParameter(str(error), param_hint="--command") from error
    spawned = session.client.spawn(
        agent_type,
        issue_id,
        read_text(task, "the task"),
        context_requirements=given["requirements"] or None,
        environment=read_pairs(given["environment"], "--env") or None,
        priority=given["priority"],
        runtime=given["runtime"],
        command=command,
        restart=given["restart"],
        timeout_seconds=given["timeout"],
        workspace=given["workspace"],
    )
    if not wait:
        # The token stays out of terminals and their histories.
        session.out.document({key: value for key, value in spawned.items() if key != "jwt_token"})
        return 0
    session.out.note(f"agent {spawned['agent_id']} {'queued' if spawned.get('queued') else 'started'}")
    record = session.client.wait_for_agent(spawned["agent_id"])
    session.out.document(record, render=lambda console: _render_end(console, session, dict(record)))
    return 0 if record["status"] == "completed" else FAILED


def _render_end(console: Console, session: Session, record: dict[str, Any]) -> None:
    """What an agent delivered, as in a run's report; where it left nothing, how it ended."""
    from api.cli.report import missing_outcome, outcome_of, render_outcome

    result_id = record.get("result_id")
    delivered = outcome_of(session.client.result(result_id), agent=record) if result_id else None
    render_outcome(console, delivered or missing_outcome(record, record))


@agent.command("list")
@click.option("--status", type=click.Choice(STATUSES), help="Only these.")
@click.option("--type", "agent_type", metavar="TYPE", help="Only of this role.")
@click.option("--issue", "issue_id", metavar="ID", help="Only of this issue.")
@limited()
@formatted
@click.pass_obj
def list_(session: Session, /, status: str | None, agent_type: str | None, issue_id: str | None, limit: int) -> None:
    """List agents, newest first.

    \b
    Examples:
      orchestrator agent list
      orchestrator agent list --status running --issue bug-17
      orchestrator agent list --format json | jq -r '.[].agent_id'
    """
    agents = collect(
        lambda size, cursor: session.client.agents(
            status=status, agent_type=agent_type, issue_id=issue_id, limit=size, cursor=cursor
        ),
        "agents",
        limit,
    )
    session.out.rows(agents, COLUMNS, nothing="no agents")


@agent.command()
@click.argument("agent_id", metavar="AGENT")
@formatted
@click.pass_obj
def show(session: Session, agent_id: str) -> None:
    """Show all that is known of one agent.

    \b
    Examples:
      orchestrator agent show AGENT
      orchestrator agent show AGENT --format yaml
    """
    session.out.document(session.client.agent(agent_id))


@agent.command()
@click.argument("agent_id", metavar="AGENT")
@click.option("--stream", type=click.Choice(("stdout", "stderr")), default="stdout", show_default=True)
@click.option("--since", type=click.IntRange(0), default=0, metavar="BYTE", help="Begin at this byte.")
@click.option("--follow", "-f", is_flag=True, help="Go on until the agent has ended.")
@click.pass_obj
def logs(session: Session, agent_id: str, stream: str, since: int, follow: bool) -> None:
    """Print an agent's raw output (on a terminal without its control characters).

    \b
    Examples:
      orchestrator agent logs AGENT
      orchestrator agent logs AGENT --stream stderr --follow
      orchestrator agent logs AGENT > agent.log
    """
    if follow:
        for data in session.client.follow_output(agent_id, stream, since=since):
            session.out.raw(data)
            since += len(data)
    while (piece := session.client.output(agent_id, stream, since=since))["data"]:
        session.out.raw(piece["data"])
        since = piece["next_offset"]
    if piece["truncated_at"] is not None:
        session.out.note(f"nothing was kept of {stream} from byte {piece['truncated_at']} on")


@agent.command()
@click.argument("agent_id", metavar="AGENT")
@click.pass_obj
def attach(session: Session, agent_id: str) -> int:
    """Show an agent's output as it comes, and send it each line that you type, until it ends.

    Ctrl-C detaches; the agent goes on.

    \b
    Examples:
      orchestrator agent attach AGENT
      printf 'use tabs\\n' | orchestrator agent attach AGENT
    """
    import threading

    session.client.agent(agent_id)
    sender = threading.Thread(target=_send_lines, args=(session, agent_id), name="attach-input", daemon=True)
    sender.start()
    try:
        for data in session.client.follow_output(agent_id):
            session.out.raw(data)
    except KeyboardInterrupt:
        session.out.note(f"detached; 'orchestrator agent attach {agent_id}' comes back")
        return 0
    return 0 if session.client.agent(agent_id)["status"] == "completed" else FAILED


def _send_lines(session: Session, agent_id: str) -> None:
    from api.client import ClientError

    for line in sys.stdin:
        if not line.strip():
            continue
        try:
            session.client.send_input(agent_id, line.rstrip("\n"))
        except ClientError as error:
            session.out.warn(f"not sent: {error}")
            return


@agent.command()
@click.argument("agent_id", metavar="AGENT")
@click.argument("text")
@click.option("--data", metavar="JSON", help="An object to go with it.")
@formatted
@click.pass_obj
def send(session: Session, agent_id: str, text: str, data: str | None) -> None:
    """Send a message to a running agent (`-` reads it from standard input, `@FILE` from a file).

    \b
    Examples:
      orchestrator agent send AGENT "Keep the public names as they are"
      orchestrator agent send AGENT @notes.md
    """
    from api.cli.reading import read_object

    extra = read_object(data, "--data") if data else None
    session.out.document(session.client.send_input(agent_id, read_text(text, "the message"), extra))


@agent.command()
@click.argument("agent_ids", metavar="AGENT...", nargs=-1, required=True)
@click.option("--force", is_flag=True, help="Kill at once, without grace.")
@click.option("--grace", type=click.FloatRange(0, 300), metavar="SECONDS", help="Between TERM and KILL (default 5).")
@click.pass_obj
def kill(session: Session, agent_ids: tuple[str, ...], force: bool, grace: float | None) -> None:
    """End agents and all that they started; returns when nothing of them is left.

    \b
    Examples:
      orchestrator agent kill AGENT
      orchestrator agent kill AGENT OTHER --force
    """
    from api.client import APIError

    missed = []
    for agent_id in agent_ids:
        try:
            record = session.client.terminate(agent_id, force=force or None, grace_s=grace)
        except APIError as error:
            if error.status in (401, 403):
                raise
            missed.append(f"{agent_id}: {error.message} ({error.code})")
            continue
        session.out.note(f"{agent_id} {record.get('status', 'ended')}")
    if missed:
        raise Failure("; ".join(missed), FAILED)


def progress_text(agent: Mapping[str, Any]) -> str:
    """How far an agent is, for a reader: by its last ``progress``, a text or ``message`` and ``percent``."""
    if agent.get("is_verifying"):
        return "its work is being verified"
    progress = agent.get("progress")
    if isinstance(progress, dict):
        percent = progress.get("percent")
        share = f" ({percent:g}%)" if isinstance(percent, (int, float)) else ""
        return f"{progress.get('message') or ''}{share}".strip()
    return str(progress) if progress else ""

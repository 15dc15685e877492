"""How an attempt's end is told: its result when it gave none, and its event (pure)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import msgspec

from agentpool.messages import AgentExited, Verification
from agentpool.states import AgentState, Outcome
from orchestrator.models import JSON, AgentRecord, EventDraft, ResultDraft

#: The publisher of the supervisor's own events.
SUPERVISOR = "supervisor"
#: What of a text agent's stdout becomes part of its result; the whole is in the output log.
MAX_OUTPUT_BYTES = 256 * 1024
#: The words of an outcome in an error's text.
REASONS = {
    Outcome.FAILED: "it failed",
    Outcome.TIMED_OUT: "it ran out of its time",
    Outcome.STALLED: "it stalled: neither output nor CPU use for its idle limit",
    Outcome.KILLED: "it was ended on request",
    Outcome.LOST: "its pool worker or the sidecar died under it",
    Outcome.QUOTA: "it ran into a quota of its model's service",
    Outcome.NO_OUTPUT: "it ended without the output that its role expects",
}
#: The words of a limit that ended an attempt; the outcome is ``failed`` as for any other reason.
LIMITS = {
    "cpu_limit": "it used more CPU time than its limit",
    "memory_limit": "it used more memory than its limit",
    "process_limit": "it had more processes than its limit",
}


def describe_end(exited: AgentExited, outcome: Outcome, decided_by: str, notes: Sequence[str] = ()) -> str | None:
    """One sentence on why an attempt failed, with the last words of its stderr; None when it did not.

    Args:
        exited: the end.
        outcome, decided_by: what ``classify`` came to.
        notes: what could not be taken of what it said.
    """
    if outcome in (Outcome.SUCCEEDED, Outcome.PARTIAL):
        return None
    if decided_by == "verifier" and exited.verification is not None:
        return _describe_refusal(exited.verification)
    how = LIMITS.get(exited.ended_by) or REASONS[outcome]
    if outcome is Outcome.NO_OUTPUT and decided_by == "terminal":
        how = "it said that it had nothing to give"  # whatever its role expects
    if exited.signal is not None:
        how += f" (signal {exited.signal})"
    elif exited.exit_code is not None:
        how += f" (exit code {exited.exit_code})"
    tail = exited.stderr_tail.decode(errors="replace").strip()
    if not tail and notes and exited.exit_code == 0:
        tail = notes[-1]  # else nothing would say why one that ended well is not taken to have
    return f"{how}: {tail[-1000:]}" if tail else how


def _describe_refusal(verification: Verification) -> str:
    """Why work that was said to be done did not pass, with the last words of who checked it."""
    name = " ".join(verification.command)
    if verification.error:
        return f"its work could not be verified: {verification.error}"
    how = f"its work did not pass {name!r}"
    if verification.ended_by == "wall_limit":
        how = f"its work could not be verified: {name!r} ran out of its time"
    elif verification.ended_by in LIMITS:
        how = f"its work could not be verified: {name!r} was ended, {LIMITS[verification.ended_by]}"
    elif verification.signal is not None:
        how += f" (signal {verification.signal})"
    elif verification.exit_code is not None:
        how += f" (exit code {verification.exit_code})"
    tail = verification.output_tail.decode(errors="replace").strip()
    return f"{how}: {tail[-1000:]}" if tail else how


def exit_result(record: AgentRecord, exited: AgentExited, error: str | None, output: str) -> ResultDraft:
    """The result of an attempt that gave none: ``success``, or ``failed`` with ``error``; with the output's tail."""
    known = usage_of(exited)
    result: JSON = {
        "status": "success" if error is None else "failed",
        "files_created": [],
        "files_modified": [],
        "files_deleted": [],
        "decisions": [],
        "metrics": {name: known[name] for name in ("cpu_seconds", "max_rss_bytes") if name in known},
        "artifacts": {},
        "errors": [] if error is None else [error],
        "warnings": [],
        "next_steps": [],
        "output": output,
    }
    return ResultDraft(
        agent_id=record.agent_id,
        agent_type=record.agent_type,
        issue_id=record.issue_id,
        result=result,
        attempt=record.attempt,
        source="exit",
    )


def end_event(record: AgentRecord) -> EventDraft:
    """The one event that tells an attempt's end; its id makes it be published once, whoever tries again."""
    event_type = {
        AgentState.COMPLETED: "agent_completed",
        AgentState.KILLED: "agent_killed",
    }.get(AgentState(record.status), "agent_failed")
    data: dict[str, Any] = {
        **_identity(record),
        "status": record.status,
        "outcome": record.outcome,
        "attempt": record.attempt,
    }
    for name in ("result_id", "exit_code", "signal", "error"):
        value = getattr(record, name)
        if value is not None:
            data[name] = value
    for name in ("truncated_at", "truncated_by"):  # which the next attempt's record does not hold any more
        if name in record.evidence:
            data[name] = record.evidence[name]
    return supervisor_event(event_type, record, data, key=f"{record.attempt}.end")


def outcome_of_start(reason: str) -> Outcome:
    """How an attempt ended that could not be started for ``reason`` (that of LaunchFailed, or another error's)."""
    return Outcome.LOST if reason == "worker_lost" else Outcome.FAILED


def unstarted_end(outcome: Outcome, error: str, *, result_id: str | None, survivors: JSON, ended_at: float) -> JSON:
    """What the record of an agent says that has no process: it waited, or could not be started.

    ``survivors`` is what the end of the attempt before found, where it waited to be started again; else empty.
    """
    checked_by = "the sweep after its pool worker" if outcome is Outcome.LOST else "never started"
    return {
        "outcome": outcome.value,
        "error": error,
        "result_id": result_id,
        "ended_at": ended_at,
        "survivors": survivors or {"count": 0, "checked_by": [checked_by], "swept": 0},
    }


def losses_reason(losses: int) -> str:
    """Why an agent gets no restart after the loss of its keeper, as the end of its error."""
    return f"; it is not started again: that has happened to it {losses} times in a row"


def quarantine_reason(record: AgentRecord, quarantine: JSON) -> str:
    """Why a role gets no restart, as the end of an error."""
    limit, window_s = quarantine["restart_limit"], quarantine["restart_window_seconds"]
    return (
        f"; it is not started again: {record.agent_type} has restarted {limit} times within {window_s:g} s "
        "in this project (quarantine)"
    )


def quarantine_event(record: AgentRecord, quarantine: JSON) -> EventDraft:
    """The event that a role has restarted too often in its project."""
    data = {**_identity(record), "status": record.status, "attempt": record.attempt, **quarantine}
    return supervisor_event("agent_quarantined", record, data, key="quarantined")


def supervisor_event(event_type: str, record: AgentRecord, data: JSON | None = None, *, key: str) -> EventDraft:
    """An event of the supervisor's own about an agent, on topic ``coordination``."""
    return EventDraft(
        event_type=event_type,
        publisher=SUPERVISOR,
        topic="coordination",
        event_id=f"{record.agent_id}.{key}",
        correlation_id=record.request.correlation_id,
        data=data if data is not None else {**_identity(record), "status": record.status, "attempt": record.attempt},
    )


def _identity(record: AgentRecord) -> JSON:
    identity: JSON = {
        "agent_id": record.agent_id,
        "agent_type": record.agent_type,
        "issue_id": record.issue_id,
    }
    if record.request.run_id:
        identity["run_id"] = record.request.run_id
    return identity


def usage_of(exited: AgentExited) -> JSON:
    """``usage`` of an agent's record: what was measured, so that nothing is taken for a zero."""
    usage: JSON = msgspec.to_builtins(exited.usage)
    return {name: value for name, value in usage.items() if value is not None}

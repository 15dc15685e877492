"""How an attempt ended, from all that is known of its end."""

from __future__ import annotations

from typing import Any

import msgspec

from agentpool.messages import AgentExited
from agentpool.states import Outcome

#: What ended an attempt from outside, as an outcome; any other reason is somebody's wish to kill it.
OUTCOME_OF_REASON = {
    "wall_limit": Outcome.TIMED_OUT,
    "idle_limit": Outcome.STALLED,
    "cpu_limit": Outcome.FAILED,
    "memory_limit": Outcome.FAILED,
    "process_limit": Outcome.FAILED,
    "worker_lost": Outcome.LOST,
    "supervisor_lost": Outcome.LOST,
    "not_found_on_restart": Outcome.LOST,
}
OUTCOME_OF_STATUS = {"success": Outcome.SUCCEEDED, "partial": Outcome.PARTIAL, "failed": Outcome.FAILED}


def classify(
    exited: AgentExited, result_status: str | None = None, *, is_verified: bool | None = None
) -> tuple[Outcome, dict[str, Any]]:
    """The outcome of an attempt, and the evidence for it.

    The strongest witness decides: who ended it, then the system (signal, exit code), then what was said on
    the pipe or in the result (the worse of the two), then the verifier. A command that exits 0 after
    saying that it failed has failed; one that says success and exits 1 has failed too.

    Args:
        exited: the end as the pool saw it.
        result_status: ``success``, ``failed`` or ``partial`` of its last result, None without one.
        is_verified: what an independent check of its work said; None when there was none.
    """
    evidence: dict[str, Any] = {"survivors": exited.survivors.count, "checked_by": list(exited.survivors.checked_by)}
    for key, value in (
        ("exit_code", exited.exit_code),
        ("signal", exited.signal),
        ("ended_by", exited.ended_by or None),
        ("result_status", result_status),
        ("is_verified", is_verified),
    ):
        if value is not None:
            evidence[key] = value
    verdict: dict[str, Any] = msgspec.json.decode(exited.terminal) if exited.terminal else {}
    if verdict:
        evidence["terminal"] = verdict
    if exited.truncated_at:
        evidence["truncated_at"] = dict(exited.truncated_at)
        evidence["truncated_by"] = dict(exited.truncated_by)
    outcome, decided_by = _decide(exited, verdict, result_status, is_verified)
    evidence["decided_by"] = decided_by
    return outcome, evidence


def _decide(
    exited: AgentExited, verdict: dict[str, Any], result_status: str | None, is_verified: bool | None
) -> tuple[Outcome, str]:
    if exited.ended_by:
        return OUTCOME_OF_REASON.get(exited.ended_by, Outcome.KILLED), "ended_by"
    said = _outcome(verdict.get("outcome"))
    if said in (Outcome.QUOTA, Outcome.NO_OUTPUT):
        return said, "terminal"
    if exited.signal is not None:
        return Outcome.FAILED, "signal"
    if exited.exit_code != 0:
        return Outcome.FAILED, "exit_code"
    if said is not None and said not in (Outcome.SUCCEEDED, Outcome.PARTIAL):
        return said, "terminal"
    by_result = OUTCOME_OF_STATUS.get(result_status or "")
    if by_result is Outcome.FAILED:
        return Outcome.FAILED, "result_status"
    if is_verified is False:
        return Outcome.FAILED, "verifier"
    if by_result is Outcome.PARTIAL or (by_result is None and said is Outcome.PARTIAL):
        return Outcome.PARTIAL, "result_status" if by_result else "terminal"
    return Outcome.SUCCEEDED, "result_status" if by_result else "exit_code"


def _outcome(value: object) -> Outcome | None:
    try:
        return Outcome(str(value)) if value is not None else None
    except ValueError:
        return Outcome.FAILED

"""How an attempt ended, from all that is known of its end."""

from __future__ import annotations

from typing import Any, Literal

import msgspec

from agentpool.messages import AgentExited, Verification
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
#: Outcomes that a verdict on the pipe tells whatever the exit code is.
TOLD = (Outcome.QUOTA, Outcome.NO_OUTPUT)
OUTCOME_OF_STATUS = {"success": Outcome.SUCCEEDED, "partial": Outcome.PARTIAL, "failed": Outcome.FAILED}


class EndRules(msgspec.Struct, frozen=True, kw_only=True, forbid_unknown_fields=True):
    """What the end of a command means that does not say so itself.

    Attributes:
        expects: what an attempt that ends well must have given, or its outcome is ``no_output``: ``nothing``,
            ``output`` (a byte of stdout, or a result) or ``result``.
        quota_exit_codes: exit codes (1 to 255) that mean ``quota``.
        quota_phrases: words that mean ``quota`` where a failed attempt has them among the last of its stdout or stderr
            (4 KiB of each), whatever their case.
    """

    expects: Literal["nothing", "output", "result"] = "nothing"
    quota_exit_codes: tuple[int, ...] = ()
    quota_phrases: tuple[str, ...] = ()


#: For a command that nothing is known of.
NO_RULES = EndRules()


def classify(
    exited: AgentExited, result_status: str | None = None, rules: EndRules = NO_RULES
) -> tuple[Outcome, dict[str, Any]]:
    """The outcome of an attempt, and the evidence for it.

    The strongest witness decides: who ended it, then a verdict of TOLD on the pipe, then the system (signal, exit
    code), then what was said on the pipe or in the result (the worse of the two) and what the rules expect, then the
    verifier. A command that exits 0 after saying that it failed has failed; one that says success and exits 1 has
    failed too. Words of a quota are looked for where any of these but the first and the last says that it failed.

    Args:
        exited: the end as the pool saw it.
        result_status: ``success``, ``failed`` or ``partial`` of its last result, None without one.
        rules: what is known of the command beforehand.
    """
    verdict: dict[str, Any] = msgspec.json.decode(exited.terminal) if exited.terminal else {}
    evidence = _evidence(exited, verdict, result_status)
    outcome, decided_by = _decide(exited, verdict, result_status, rules)
    # The verifier's complaint is about the work, whatever words that has.
    if outcome is Outcome.FAILED and decided_by != "verifier" and (phrase := _quota_phrase(exited, rules)):
        outcome, decided_by, evidence["quota_phrase"] = Outcome.QUOTA, "quota_phrase", phrase
    evidence["decided_by"] = decided_by
    return outcome, evidence


def _evidence(exited: AgentExited, verdict: dict[str, Any], result_status: str | None) -> dict[str, Any]:
    evidence: dict[str, Any] = {"survivors": exited.survivors.count, "checked_by": list(exited.survivors.checked_by)}
    for key, value in (
        ("exit_code", exited.exit_code),
        ("signal", exited.signal),
        ("ended_by", exited.ended_by or None),
        ("result_status", result_status),
        ("terminal", verdict or None),
        ("verification", _shown(exited.verification)),
    ):
        if value is not None:
            evidence[key] = value
    if exited.truncated_at:
        evidence["truncated_at"] = dict(exited.truncated_at)
        evidence["truncated_by"] = dict(exited.truncated_by)
    return evidence


def _shown(verification: Verification | None) -> dict[str, Any] | None:
    """A verification as plain values: what is set of it, the output as text."""
    if verification is None:
        return None
    shown: dict[str, Any] = {"is_passed": verification.is_passed, "command": list(verification.command)}
    for key in ("exit_code", "signal", "ended_by", "error"):
        value = getattr(verification, key)
        if value not in (None, ""):
            shown[key] = value
    return shown | {"output_tail": verification.output_tail.decode(errors="replace")}


def _decide(
    exited: AgentExited, verdict: dict[str, Any], result_status: str | None, rules: EndRules
) -> tuple[Outcome, str]:
    if exited.ended_by:
        return OUTCOME_OF_REASON.get(exited.ended_by, Outcome.KILLED), "ended_by"
    said = _outcome(verdict.get("outcome"))
    if said in TOLD:
        return said, "terminal"
    if exited.signal is not None:
        return Outcome.FAILED, "signal"
    if exited.exit_code != 0:
        return (Outcome.QUOTA if exited.exit_code in rules.quota_exit_codes else Outcome.FAILED), "exit_code"
    if said is not None and said not in (Outcome.SUCCEEDED, Outcome.PARTIAL):
        return said, "terminal"
    by_result = OUTCOME_OF_STATUS.get(result_status or "")
    if by_result is Outcome.FAILED:
        return Outcome.FAILED, "result_status"
    if by_result is None and _is_missing(exited, rules):
        return Outcome.NO_OUTPUT, "expects"
    if exited.verification is not None and not exited.verification.is_passed:
        return Outcome.FAILED, "verifier"
    if by_result is Outcome.PARTIAL or (by_result is None and said is Outcome.PARTIAL):
        return Outcome.PARTIAL, "result_status" if by_result else "terminal"
    return Outcome.SUCCEEDED, "result_status" if by_result else "exit_code"


def _is_missing(exited: AgentExited, rules: EndRules) -> bool:
    """Whether an attempt that gave no result lacks what it was to give."""
    return rules.expects == "result" or (rules.expects == "output" and not exited.usage.stdout_bytes)


def _quota_phrase(exited: AgentExited, rules: EndRules) -> str | None:
    """The first phrase of the rules that the last words have; None where somebody ended it, or none is there."""
    if exited.ended_by or not rules.quota_phrases:
        return None
    words = b"\n".join((exited.stdout_tail, exited.stderr_tail)).decode(errors="replace").casefold()
    return next((phrase for phrase in rules.quota_phrases if phrase.casefold() in words), None)


def _outcome(value: object) -> Outcome | None:
    try:
        return Outcome(str(value)) if value is not None else None
    except ValueError:
        return Outcome.FAILED

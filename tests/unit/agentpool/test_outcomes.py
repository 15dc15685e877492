"""Every end has one outcome, and says why."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agentpool.messages import AgentExited, Survivors, Usage, Verification
from agentpool.outcomes import EndRules, classify
from agentpool.states import Outcome

CHECK = ("pytest", "-q")
PASSED = Verification(command=CHECK, exit_code=0)
REFUSED = Verification(command=CHECK, exit_code=1, output_tail=b"2 failed \xff")
OUT_OF_TIME = Verification(command=CHECK, signal=9, ended_by="wall_limit")
UNSTARTED = Verification(command=CHECK, error="pytest: no such command")


def end(**fields: Any) -> AgentExited:
    """An end; by itself with code 0 unless said otherwise."""
    terminal = fields.pop("terminal", None)
    values: dict[str, Any] = {
        "agent_id": "a",
        "attempt": 1,
        "exit_code": 0,
        "signal": None,
        "ended_by": "",
        "terminal": msgspec.json.encode({"outcome": terminal, "evidence": {}}) if terminal else b"",
        "usage": Usage(),
        "survivors": Survivors(count=0, checked_by=("cgroup",)),
        "stdout_tail": b"",
        "stderr_tail": b"",
        **fields,
    }
    return AgentExited(**values)


@pytest.mark.parametrize(
    ("fields", "status", "outcome", "decided_by"),
    [
        ({}, None, Outcome.SUCCEEDED, "exit_code"),
        ({}, "success", Outcome.SUCCEEDED, "result_status"),
        ({}, "partial", Outcome.PARTIAL, "result_status"),
        ({}, "failed", Outcome.FAILED, "result_status"),
        ({"verification": REFUSED}, "success", Outcome.FAILED, "verifier"),
        ({"verification": REFUSED}, "partial", Outcome.FAILED, "verifier"),
        ({"verification": PASSED}, "success", Outcome.SUCCEEDED, "result_status"),
        ({"verification": PASSED}, "partial", Outcome.PARTIAL, "result_status"),
        ({"verification": PASSED}, "failed", Outcome.FAILED, "result_status"),
        ({"verification": OUT_OF_TIME}, "success", Outcome.FAILED, "verifier"),
        ({"verification": UNSTARTED}, None, Outcome.FAILED, "verifier"),
        ({"terminal": "failed"}, None, Outcome.FAILED, "terminal"),
        ({"terminal": "failed"}, "success", Outcome.FAILED, "terminal"),
        ({"terminal": "quota", "exit_code": 1}, None, Outcome.QUOTA, "terminal"),
        ({"terminal": "no_output"}, None, Outcome.NO_OUTPUT, "terminal"),
        ({"terminal": "succeeded", "exit_code": 1}, "success", Outcome.FAILED, "exit_code"),
        ({"terminal": "what?"}, None, Outcome.FAILED, "terminal"),
        ({"exit_code": 3}, None, Outcome.FAILED, "exit_code"),
        ({"exit_code": None, "signal": 11}, "success", Outcome.FAILED, "signal"),
        ({"exit_code": None, "signal": 15, "ended_by": "wall_limit"}, "success", Outcome.TIMED_OUT, "ended_by"),
        ({"exit_code": None, "signal": 9, "ended_by": "idle_limit"}, None, Outcome.STALLED, "ended_by"),
        ({"exit_code": None, "signal": 9, "ended_by": "memory_limit"}, None, Outcome.FAILED, "ended_by"),
        ({"exit_code": None, "ended_by": "worker_lost"}, None, Outcome.LOST, "ended_by"),
        ({"exit_code": None, "signal": 15, "ended_by": "operator"}, None, Outcome.KILLED, "ended_by"),
    ],
)
def test_the_strongest_witness_decides(
    fields: dict[str, Any], status: str | None, outcome: Outcome, decided_by: str
) -> None:
    """Prevents an exit code 0 from hiding a failure that was said, and a success that was said from hiding a crash."""
    found, evidence = classify(end(**fields), status)
    assert (found, evidence["decided_by"]) == (outcome, decided_by)
    assert evidence["survivors"] == 0


def test_what_the_verifier_said_is_evidence() -> None:
    """A failure whose proof cannot be looked at."""
    _, evidence = classify(end(verification=REFUSED), "success")
    assert evidence["verification"] == {
        "is_passed": False,
        "command": ["pytest", "-q"],
        "exit_code": 1,
        "output_tail": "2 failed \N{REPLACEMENT CHARACTER}",
    }
    assert classify(end(verification=UNSTARTED))[1]["verification"]["error"] == "pytest: no such command"
    assert "verification" not in classify(end())[1]


QUOTA = EndRules(quota_exit_codes=(75,), quota_phrases=("Usage limit reached", "status: 429"))


@pytest.mark.parametrize(
    ("fields", "status", "outcome", "decided_by"),
    [
        ({"exit_code": 75}, None, Outcome.QUOTA, "exit_code"),
        ({"exit_code": 75}, "success", Outcome.QUOTA, "exit_code"),
        ({"exit_code": 74}, None, Outcome.FAILED, "exit_code"),
        ({"exit_code": 1, "stderr_tail": b"Error: USAGE LIMIT REACHED|17\n"}, None, Outcome.QUOTA, "quota_phrase"),
        ({"exit_code": 1, "stdout_tail": b"\xff last status: 429 Too Many"}, None, Outcome.QUOTA, "quota_phrase"),
        ({"terminal": "failed", "stdout_tail": b"usage limit reached"}, None, Outcome.QUOTA, "quota_phrase"),
        ({"stdout_tail": b"usage limit reached"}, "failed", Outcome.QUOTA, "quota_phrase"),
        ({"stdout_tail": b"I have documented 'usage limit reached'"}, "success", Outcome.SUCCEEDED, "result_status"),
        ({"verification": REFUSED, "stdout_tail": b"usage limit reached"}, "success", Outcome.FAILED, "verifier"),
        ({"ended_by": "cpu_limit", "stderr_tail": b"usage limit reached"}, None, Outcome.FAILED, "ended_by"),
        ({"ended_by": "killed", "exit_code": 75}, None, Outcome.KILLED, "ended_by"),
    ],
)
def test_a_quota_is_known_by_the_rules(
    fields: dict[str, Any], status: str | None, outcome: Outcome, decided_by: str
) -> None:
    """Prevents an agent from being started again and again against a closed door, and words that only mention one."""
    found, evidence = classify(end(**fields), status, QUOTA)
    assert (found, evidence["decided_by"]) == (outcome, decided_by)
    if decided_by == "quota_phrase":
        assert evidence["quota_phrase"] in QUOTA.quota_phrases
    if "verification" not in fields:
        without = classify(end(**fields), status)[0]
        assert without is (Outcome.FAILED if outcome is Outcome.QUOTA else outcome)


@pytest.mark.parametrize(
    ("expects", "fields", "status", "outcome"),
    [
        ("nothing", {}, None, Outcome.SUCCEEDED),
        ("output", {}, None, Outcome.NO_OUTPUT),
        ("output", {"usage": Usage(stdout_bytes=1)}, None, Outcome.SUCCEEDED),
        ("output", {"usage": Usage(stderr_bytes=9)}, None, Outcome.NO_OUTPUT),
        ("output", {}, "success", Outcome.SUCCEEDED),
        ("result", {"usage": Usage(stdout_bytes=1)}, None, Outcome.NO_OUTPUT),
        ("result", {}, "partial", Outcome.PARTIAL),
        ("result", {"verification": REFUSED}, None, Outcome.NO_OUTPUT),
        ("result", {"exit_code": 1}, None, Outcome.FAILED),
        ("result", {"ended_by": "wall_limit"}, None, Outcome.TIMED_OUT),
    ],
)
def test_silence_is_no_output_where_more_is_expected(
    expects: Any, fields: dict[str, Any], status: str | None, outcome: Outcome
) -> None:
    """Prevents an agent that did nothing from passing for one that had nothing to do, unless its role says so."""
    assert classify(end(**fields), status, EndRules(expects=expects))[0] is outcome

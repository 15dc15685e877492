"""Every end has one outcome, and says why."""

from __future__ import annotations

from typing import Any

import msgspec
import pytest

from agentpool.messages import AgentExited, Survivors, Usage
from agentpool.outcomes import classify
from agentpool.states import Outcome


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
    ("fields", "status", "verified", "outcome", "decided_by"),
    [
        ({}, None, None, Outcome.SUCCEEDED, "exit_code"),
        ({}, "success", None, Outcome.SUCCEEDED, "result_status"),
        ({}, "partial", None, Outcome.PARTIAL, "result_status"),
        ({}, "failed", None, Outcome.FAILED, "result_status"),
        ({}, "success", False, Outcome.FAILED, "verifier"),
        ({}, "success", True, Outcome.SUCCEEDED, "result_status"),
        ({"terminal": "failed"}, None, None, Outcome.FAILED, "terminal"),
        ({"terminal": "failed"}, "success", None, Outcome.FAILED, "terminal"),
        ({"terminal": "quota", "exit_code": 1}, None, None, Outcome.QUOTA, "terminal"),
        ({"terminal": "no_output"}, None, None, Outcome.NO_OUTPUT, "terminal"),
        ({"terminal": "succeeded", "exit_code": 1}, "success", None, Outcome.FAILED, "exit_code"),
        ({"terminal": "what?"}, None, None, Outcome.FAILED, "terminal"),
        ({"exit_code": 3}, None, None, Outcome.FAILED, "exit_code"),
        ({"exit_code": None, "signal": 11}, "success", None, Outcome.FAILED, "signal"),
        ({"exit_code": None, "signal": 15, "ended_by": "wall_limit"}, "success", None, Outcome.TIMED_OUT, "ended_by"),
        ({"exit_code": None, "signal": 9, "ended_by": "idle_limit"}, None, None, Outcome.STALLED, "ended_by"),
        ({"exit_code": None, "signal": 9, "ended_by": "memory_limit"}, None, None, Outcome.FAILED, "ended_by"),
        ({"exit_code": None, "ended_by": "worker_lost"}, None, None, Outcome.LOST, "ended_by"),
        ({"exit_code": None, "signal": 15, "ended_by": "operator"}, None, None, Outcome.KILLED, "ended_by"),
    ],
)
def test_the_strongest_witness_decides(
    fields: dict[str, Any], status: str | None, verified: bool | None, outcome: Outcome, decided_by: str
) -> None:
    """Prevents an exit code 0 from hiding a failure that was said, and a success that was said from hiding a crash."""
    found, evidence = classify(end(**fields), status, is_verified=verified)
    assert (found, evidence["decided_by"]) == (outcome, decided_by)
    assert evidence["survivors"] == 0

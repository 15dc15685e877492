"""The words for an attempt's end."""

from __future__ import annotations

import pytest

from agentpool.messages import AgentExited, Survivors, Usage
from agentpool.outcomes import EndRules, classify
from orchestrator.agents.ends import describe_end


@pytest.mark.parametrize(
    ("terminal", "expects", "words"),
    [
        (b'{"outcome": "no_output", "evidence": {}}', "nothing", "it said that it had nothing to give (exit code 0)"),
        (b"", "result", "it ended without the output that its role expects (exit code 0)"),
    ],
)
def test_an_error_tells_who_missed_the_output(terminal: bytes, expects: str, words: str) -> None:
    """An agent that had said so itself was told to lack what its role, which expected nothing, expects."""
    exited = AgentExited(
        agent_id="a",
        attempt=1,
        exit_code=0,
        signal=None,
        ended_by="",
        usage=Usage(),
        survivors=Survivors(count=0, checked_by=("cgroup",)),
        terminal=terminal,
        stdout_tail=b"",
        stderr_tail=b"",
    )
    outcome, evidence = classify(exited, None, EndRules(expects=expects))  # type: ignore[arg-type]
    assert describe_end(exited, outcome, evidence["decided_by"]) == words

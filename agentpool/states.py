"""The states of an agent and the one table of legal transitions."""

from __future__ import annotations

from enum import StrEnum

from agentpool.errors import IllegalTransition


class AgentState(StrEnum):
    """What an agent is doing, as ``status`` shows it."""

    QUEUED = "queued"
    STARTING = "starting"
    RUNNING = "running"
    STOPPING = "stopping"
    COMPLETED = "completed"
    FAILED = "failed"
    KILLED = "killed"
    TIMED_OUT = "timed_out"


class Outcome(StrEnum):
    """How an attempt ended, finer than its status."""

    SUCCEEDED = "succeeded"
    FAILED = "failed"
    PARTIAL = "partial"
    TIMED_OUT = "timed_out"
    STALLED = "stalled"
    KILLED = "killed"
    LOST = "lost"
    QUOTA = "quota"
    NO_OUTPUT = "no_output"


FINAL_STATES = frozenset({AgentState.COMPLETED, AgentState.FAILED, AgentState.KILLED, AgentState.TIMED_OUT})

#: Every legal step. A restart takes an ended attempt back to QUEUED.
TRANSITIONS: dict[AgentState, frozenset[AgentState]] = {
    AgentState.QUEUED: frozenset({AgentState.STARTING, AgentState.KILLED, AgentState.FAILED}),
    AgentState.STARTING: frozenset({AgentState.RUNNING, AgentState.STOPPING, AgentState.QUEUED, *FINAL_STATES}),
    AgentState.RUNNING: frozenset({AgentState.STOPPING, AgentState.QUEUED, *FINAL_STATES}),
    AgentState.STOPPING: frozenset({AgentState.QUEUED, *FINAL_STATES}),
    AgentState.COMPLETED: frozenset(),
    AgentState.FAILED: frozenset(),
    AgentState.KILLED: frozenset(),
    AgentState.TIMED_OUT: frozenset(),
}

#: The status that each outcome shows as.
STATUS_OF_OUTCOME: dict[Outcome, AgentState] = {
    Outcome.SUCCEEDED: AgentState.COMPLETED,
    Outcome.PARTIAL: AgentState.COMPLETED,
    Outcome.FAILED: AgentState.FAILED,
    Outcome.TIMED_OUT: AgentState.TIMED_OUT,
    Outcome.STALLED: AgentState.FAILED,
    Outcome.KILLED: AgentState.KILLED,
    Outcome.LOST: AgentState.FAILED,
    Outcome.QUOTA: AgentState.FAILED,
    Outcome.NO_OUTPUT: AgentState.FAILED,
}


def is_final(state: AgentState) -> bool:
    """Whether an agent in this state has ended for good."""
    return state in FINAL_STATES


def check_transition(source: AgentState, target: AgentState) -> None:
    """Raise IllegalTransition unless the table joins ``source`` to ``target``."""
    if target not in TRANSITIONS[source]:
        raise IllegalTransition(source, target)

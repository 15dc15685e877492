"""A pool worker's own loop, with a supervisor that the test plays."""

from __future__ import annotations

import socket
from typing import cast

import pytest

from agentpool import worker as workers
from agentpool.attempt import Attempt
from agentpool.channel import Channel
from agentpool.config import WorkerConfig
from agentpool.messages import AgentOutput
from agentpool.worker import Worker

BOUND_BYTES = 4096


class Talker:
    """As much of an attempt as positions are asked of; its output grows by a byte each time."""

    def __init__(self) -> None:
        self.pipes = self
        self.position = 0

    def positions(self) -> AgentOutput:
        """How far it is."""
        return AgentOutput(agent_id="a", attempt=1, stdout_bytes=self.position, stderr_bytes=0)


def test_positions_wait_for_a_supervisor_that_is_behind(monkeypatch: pytest.MonkeyPatch) -> None:
    """Agents that went on writing while nobody read took more and more of their worker's memory."""
    monkeypatch.setattr(workers, "POSITION_INTERVAL_S", 0.0)
    ours, theirs = socket.socketpair()
    channel, supervisor = Channel.for_worker(ours, bound=BOUND_BYTES), Channel.for_supervisor(theirs)
    worker, talker = Worker(channel, WorkerConfig(index=0, cgroup_dir=None)), Talker()

    def turn() -> None:
        worker.reactor.later(0.0, lambda: None)
        worker.reactor.turn()

    def talk() -> None:
        talker.position += 1
        worker.mark_output(cast(Attempt, talker))
        turn()

    try:
        while not channel.is_full:
            talk()
        for _ in range(1000):
            talk()
        assert channel.outgoing_bytes < 2 * BOUND_BYTES
        newest = 0
        while newest < talker.position:
            for fact in supervisor.receive() or ():
                assert isinstance(fact, AgentOutput)
                assert fact.stdout_bytes > newest
                newest = fact.stdout_bytes
            turn()
    finally:
        channel.close()
        supervisor.close()

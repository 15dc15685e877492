"""A pool worker's own loop, with a supervisor that the test plays."""

from __future__ import annotations

import os
import socket
from typing import cast

import pytest

from agentpool import worker as workers
from agentpool.attempt import Attempt, LeaderExit
from agentpool.channel import Channel
from agentpool.config import WorkerConfig
from agentpool.messages import AgentOutput
from agentpool.worker import Worker
from agentpool.zygotes import Left

BOUND_BYTES = 4096


class Talker:
    """As much of an attempt as a worker asks of one that runs; its output grows by a byte each time."""

    def __init__(self, pid: int = 0) -> None:
        self.pid = pid
        self.pipes = self
        self.position = 0
        self.exit: LeaderExit | None = None

    def before_reap(self) -> None:
        """Nothing of it is left."""

    def leader_exited(self, leader_exit: LeaderExit) -> None:
        """Keep how."""
        self.exit = leader_exit

    left = leader_exited

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


@pytest.mark.parametrize("is_warm", [False, True])
def test_a_number_is_a_leaders_until_it_has_been_reaped(monkeypatch: pytest.MonkeyPatch, is_warm: bool) -> None:
    """While its work was verified an agent kept its number: who got that next was spared from every sweep."""
    ours, theirs = socket.socketpair()
    worker = Worker(Channel.for_worker(ours, bound=BOUND_BYTES), WorkerConfig(index=0, cgroup_dir=None))
    pid = os.posix_spawn("/bin/true", ["true"], {})
    leader = Talker(pid)
    try:
        if is_warm:
            worker.claim(pid)
            os.waitpid(pid, 0)
            left = Left(pid=pid, exit_code=0, signal=None, cpu_seconds=0.0, max_rss_bytes=0)
            worker.zygote_left(cast(Attempt, leader), left)
        else:
            worker.adopt(pid, cast(Attempt, leader))
            monkeypatch.setattr(workers, "next_exited", iter([pid, None]).__next__)
            worker._reap()
        assert leader.exit is not None
        assert leader.exit.exit_code == 0
        assert not worker.is_own(pid)
    finally:
        ours.close()
        theirs.close()

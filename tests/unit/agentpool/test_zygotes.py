"""A worker's end of its zygote, with a real one."""

from __future__ import annotations

import os
import signal
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest

from agentpool.attempt import Attempt
from agentpool.config import WorkerConfig
from agentpool.launching import LaunchPlan
from agentpool.reactor import Reactor
from agentpool.zygotes import Left, ZygoteLink

#: Never pinged by itself while a test runs; 4 looks without an answer are a hang.
CONFIG = WorkerConfig(index=0, cgroup_dir=None, ping_interval_s=3600.0, ping_deadline_s=4 * 3600.0)


class Waiting:
    """An attempt that only notes what it is told."""

    def __init__(self) -> None:
        self.pid = 0
        self.spec = SimpleNamespace(nonce="n")

    def started(self, pid: int) -> None:
        """The agent exists."""
        self.pid = pid

    def fail_launch(self, error: Exception) -> None:
        """It could not be started."""
        raise error

    def kill_leaf(self) -> None:
        """It has none."""


class Owner:
    """Notes what became of agents."""

    def __init__(self) -> None:
        self.left: list[Left] = []
        self.orphans: list[Waiting] = []

    def zygote_left(self, _attempt: Attempt, left: Left) -> None:
        """An agent ended."""
        self.left.append(left)

    def zygote_lost(self, _link: ZygoteLink, orphans: list[Attempt]) -> None:
        """The zygote is gone."""
        self.orphans += cast("list[Waiting]", orphans)


class Bench:
    """One link, its loop and its owner."""

    def __init__(self, place: Path) -> None:
        self.reactor = Reactor()
        self.owner = Owner()
        self.link = ZygoteLink(self.reactor, self.owner, CONFIG)
        self._place = place
        self._pipes: list[int] = []

    def start(self) -> None:
        """Order an agent that stays, and serve the loop until it exists."""
        waiting = Waiting()
        plan = LaunchPlan(
            program="",
            argv=("staying:stay",),
            env={},
            cwd=str(self._place),
            rlimits=(),
            nice=0,
            has_stdin=False,
            entrance=None,
        )
        pipes = self.link.fork(plan, cast("Attempt", waiting))
        self._pipes += [pipes.stdout, pipes.stderr]
        while not waiting.pid:
            self.reactor.turn()

    def close(self) -> None:
        """End the zygote, and with it the agents."""
        self.link.close()
        os.waitpid(self.link.pid, 0)
        for fd in self._pipes:
            os.close(fd)
        self.reactor._poll.close()  # type: ignore[union-attr]


@pytest.fixture
def bench(tmp_path: Path) -> Iterator[Bench]:
    """A link with a zygote that has answered once."""
    (tmp_path / "staying.py").write_text("import time\n\ndef stay(agent):\n    time.sleep(600)\n", encoding="utf-8")
    bench = Bench(tmp_path)
    bench.start()
    yield bench
    bench.close()


def test_a_fork_in_a_long_queue_is_no_hang(bench: Bench) -> None:
    """Prevents a deadline that begins with the order: the last of many waits for all before it, and so do pings."""
    for _ in range(4):
        for _ in range(4):
            bench.link._look()
        bench.start()
    assert not bench.link.is_lost
    os.kill(bench.link.pid, 0)


def test_a_zygote_that_stays_silent_is_killed(bench: Bench) -> None:
    """Prevents a hang without an end, and one that ends what would have answered at the next look."""
    for _ in range(5):
        bench.link._look()
    os.kill(bench.link.pid, signal.SIGSTOP)  # from here on it cannot even end by itself
    assert not bench.link.is_lost
    bench.link._look()
    while not bench.link.is_lost:
        bench.reactor.turn()
    assert len(bench.owner.orphans) == 1


def test_what_cannot_be_killed_is_given_up(bench: Bench) -> None:
    """Prevents agents that never end because their parent is in uninterruptible sleep: its stream has no end."""
    for _ in range(20):
        bench.link._look()
    assert bench.link.is_lost
    assert len(bench.owner.orphans) == 1

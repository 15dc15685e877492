"""The end of an attempt, where what is about to happen next to it cannot be timed with real processes."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

from agentpool.agentpipes import AgentPipes
from agentpool.attempt import Attempt, Host, LeaderExit
from agentpool.config import WorkerConfig
from agentpool.disk import Rations
from agentpool.messages import AgentExited, Fact, Survivors
from agentpool.reactor import Reactor
from agentpool.runtimes import get_runtime
from agentpool.specs import Limits, Verifier
from agentpool.testing import make_spec
from agentpool.tree import Tree
from agentpool.watchdog import Watchdog


class EndedTree:
    """A tree of which so many processes are left for good."""

    def __init__(self, left: int) -> None:
        self._left = left

    def survivors(self, *, was_empty: bool = False) -> Survivors:
        """Those."""
        return Survivors(count=0 if was_empty else self._left)


class FakeHost:
    """As much of a worker as an attempt needs that starts nothing."""

    def __init__(self) -> None:
        self.config = WorkerConfig(index=0, cgroup_dir=None)
        self.rations = Rations(0)
        self.reactor = Reactor()
        self.facts: list[Fact] = []
        self.emit = self.facts.append

    def is_congested(self) -> bool:
        """Never."""
        return False

    def finished(self, _attempt: Attempt) -> None:
        """Nothing to forget."""

    def __getattr__(self, _name: str) -> Any:
        return None


def an_ended(host: FakeHost, directory: Path, limits: Limits, *, left: int = 0) -> Attempt:
    """An attempt whose leader has exited with 0 and whose verifier is a missing program."""
    verifier = Verifier(argv=("no-such-program-at-all",), env={}, timeout_s=30.0)
    spec = make_spec("a", directory, ("/bin/true",), limits=limits, verifier=verifier)
    attempt = Attempt(cast(Host, host), spec)
    attempt.pipes = AgentPipes(cast(Host, host), spec, get_runtime(spec.runtime), lambda: None)
    attempt.tree = cast(Tree, EndedTree(left))
    attempt.exit = LeaderExit(exit_code=0, signal=None)
    return attempt


def end_of(host: FakeHost) -> AgentExited:
    """The one end that was told."""
    (exited,) = [fact for fact in host.facts if isinstance(fact, AgentExited)]
    return exited


def test_a_limit_reached_after_the_exit_keeps_nobody_from_looking_at_the_work(tmp_path: Path) -> None:
    """An agent that was done in its last second was told as out of time, for what it had left in the background."""
    host = FakeHost()
    attempt = an_ended(host, tmp_path, Limits(wall_s=0.0))
    watchdog = Watchdog(attempt, attempt.spec.limits)
    host.reactor.turn()
    watchdog.stop()
    attempt.over("")
    exited = end_of(host)
    assert exited.ended_by == ""
    assert exited.verification is not None
    assert "no such command" in exited.verification.error


def test_nothing_is_verified_while_something_of_the_attempt_is_left(tmp_path: Path) -> None:
    """A check beside processes that cannot be killed: they wrote into what it read, and were counted twice."""
    host = FakeHost()
    an_ended(host, tmp_path, Limits(), left=2).over("")
    exited = end_of(host)
    assert exited.survivors.count == 2
    assert exited.verification is not None
    assert not exited.verification.is_passed
    assert exited.verification.error == "2 of its processes cannot be ended"

"""Orphans of nobody known."""

from __future__ import annotations

import os
import signal
import subprocess

import pytest

from agentpool import strangers
from agentpool.proctable import ProcessTable, environment_of
from agentpool.strangers import Strangers
from tests.support.waiting import until

AGENTS = {f"agent-{number}": f"nonce-{number:04d}" for number in range(20)}


def test_an_orphan_is_not_read_once_for_each_agent(monkeypatch: pytest.MonkeyPatch) -> None:
    """Beside 500 agents with a daemon each a worker read 250,000 environments, for two seconds, every two seconds."""
    read: list[int] = []

    def reading(pid: int) -> bytes:
        read.append(pid)
        return environment_of(pid)

    monkeypatch.setattr(strangers, "environment_of", reading)
    command = ["/bin/sleep", "300"]
    named = subprocess.Popen(command, env={"NONCE": "nonce-0007"}, start_new_session=True)
    nameless = subprocess.Popen(command, env={}, start_new_session=True)
    orphans = {named.pid, nameless.pid}
    looker, table = Strangers(lambda pid: pid not in orphans), ProcessTable()
    monkeypatch.setattr(strangers, "MIN_AGE_S", 0.0)
    try:
        until(lambda: b"nonce-0007" in environment_of(named.pid), what="its own environment")
        assert looker.look(AGENTS, set(), table) == 0
        assert sorted(read) == sorted(orphans)
        read.clear()
        looker.look(AGENTS, set(), table)
        assert read == [nameless.pid], "whose the other one is was known"
        # Each lives as long as an agent that it may be of, and no longer.
        others = {agent: nonce for agent, nonce in AGENTS.items() if agent != "agent-7"}
        assert looker.look(others, set(), table) == 1
        assert named.wait(10) == -signal.SIGKILL
        assert os.waitid(os.P_PID, nameless.pid, os.WEXITED | os.WNOHANG) is None
        assert looker.look({"agent-later": "nonce-later"}, set(), table) == 1
        assert nameless.wait(10) == -signal.SIGKILL
    finally:
        for process in (named, nameless):
            process.kill()
            process.wait()

"""Ending what a dead worker kept."""

from __future__ import annotations

import subprocess
import time

import pytest

from agentpool.settling import Keepless, sweep


def test_what_a_dying_zygote_forked_last_is_swept_too(monkeypatch: pytest.MonkeyPatch) -> None:
    """An agent that its zygote had forked in the moment of the worker's death lived on: it came after the only look."""
    nonce = f"nonce-of-test-settling-{time.monotonic_ns()}"
    zygote = subprocess.Popen(["/bin/sleep", "600"])
    late: list[subprocess.Popen[bytes]] = []
    sleep = time.sleep

    def after_a_look(seconds: float) -> None:
        if not late:
            late.append(subprocess.Popen(["/bin/sleep", "600"], env={"NONCE": nonce}))
            zygote.kill()
        sleep(seconds)

    monkeypatch.setattr(time, "sleep", after_a_look)
    agent = Keepless(agent_id="a", pid=None, start_ticks=0, nonce=nonce, leaf_path=None)
    try:
        left = sweep([agent], also_reap=[zygote.pid])
        assert left["a"].survivors.count == 0
        assert late[0].poll() is not None
    finally:
        for process in (zygote, *late):
            process.kill()
            process.wait()

"""Faults 6 and 18 of the warm parent: one that is stopped or hangs, with agents of its own and with more to come."""

from __future__ import annotations

import os
import signal
from pathlib import Path
from typing import Any

import pytest

from agentpool.errors import LaunchFailed
from tests.support.pools import is_living, local_bench, stat_of, worker_keeping
from tests.support.waiting import until_async

pytestmark = pytest.mark.chaos

AGENTS = """
import os, signal, time

def stay(agent):
    agent.progress("ready")
    time.sleep(600)

def quick(agent):
    return {"status": "success"}

def stop_parent(agent):
    os.kill(os.getppid(), signal.SIGSTOP)
    agent.progress("stopped")
    time.sleep(600)

def stop_parent_and_leave(agent):
    os.kill(os.getppid(), signal.SIGSTOP)
    return {"status": "success"}
"""
#: A module whose hook keeps forks waiting as long as a file is there.
HELD = """
import os, time

def wait_for_room():
    while os.path.exists({path!r}):
        time.sleep(0.01)

os.register_at_fork(before=wait_for_room)
"""
#: Soon enough for a test; only an agent's own silence makes the pool wait, so a slow machine changes nothing.
PINGS: dict[str, Any] = {"workers": 1, "ping_interval_s": 0.1}


@pytest.fixture(params=[True, False], ids=["cgroups", "no-cgroups"])
def cgroups(request: pytest.FixtureRequest) -> bool:
    """With and without cgroups."""
    return bool(request.param)


@pytest.fixture
def place(tmp_path: Path) -> dict[str, Any]:
    """A workspace with agents in it."""
    (tmp_path / "warm.py").write_text(AGENTS, encoding="utf-8")
    return {"runtime": "python", "workspace": str(tmp_path)}


async def test_fault_6_an_agent_that_stops_its_warm_parent_can_be_ended(
    tmp_path: Path, place: dict[str, Any], cgroups: bool
) -> None:
    """It stayed `stopping` for ever, a zombie of the stopped parent, and its slot was lost."""
    async with local_bench(tmp_path, cgroups=cgroups, **PINGS) as (bench, pool):
        neighbour = await bench.launch("neighbour", argv=("warm:stay",), **place)
        await bench.launch("a", argv=("warm:stop_parent",), **place)
        await bench.said("a")
        await pool.kill("a", grace_s=0.0)
        exited = await bench.exited("a")
        assert (exited.signal, exited.ended_by, exited.survivors.count) == (signal.SIGKILL, "killed", 0)
        left = await bench.run("b", argv=("warm:stop_parent_and_leave",), **place)
        assert (left.exit_code, left.survivors.count) == (0, 0)
        assert is_living(neighbour.pid), "others of that parent go on"
        await pool.kill("neighbour")
        assert (await bench.exited("neighbour")).signal == signal.SIGTERM
        assert pool.stats().running == 0


async def test_fault_6_a_spawn_behind_a_stopped_warm_parent_starts(tmp_path: Path, place: dict[str, Any]) -> None:
    """Each later agent of that worker stayed `starting` for ever, and had no process that could be killed."""
    async with local_bench(tmp_path, **PINGS) as (bench, _):
        started = await bench.launch("a", argv=("warm:stay",), **place)
        parent = worker_keeping(started.pid)
        os.kill(parent, signal.SIGSTOP)
        await until_async(lambda: (stat_of(parent) or "?")[0] == "T", what="the parent is stopped")
        assert (await bench.run("b", argv=("warm:quick",), **place)).exit_code == 0
        assert is_living(started.pid)


async def test_fault_18_a_hung_warm_parent_is_replaced(
    tmp_path: Path, place: dict[str, Any], cgroups: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """No answer had a deadline: what waited for a fork that hung, and what ended meanwhile, was never told."""
    hold, modules = tmp_path / "hold", tmp_path / "modules"
    modules.mkdir()
    (modules / "held_forks.py").write_text(HELD.format(path=str(hold)), encoding="utf-8")
    monkeypatch.syspath_prepend(str(modules))
    config = {**PINGS, "ping_deadline_s": 3.0, "preload": ("held_forks",), "cgroups": cgroups}
    async with local_bench(tmp_path, **config) as (bench, pool):
        started = await bench.launch("a", argv=("warm:stay",), **place)
        parent = worker_keeping(started.pid)
        hold.touch()
        with pytest.raises(LaunchFailed) as caught:
            await bench.launch("b", argv=("warm:quick",), **place)
        assert (caught.value.reason, caught.value.is_permanent) == ("resources", False)
        exited = await bench.exited("a")
        assert (exited.signal, exited.survivors.count) == (signal.SIGKILL, 0)
        assert not is_living(parent)
        assert not is_living(started.pid)
        hold.unlink()
        assert (await bench.run("c", argv=("warm:quick",), **place)).exit_code == 0
        assert (bench.losses(), pool.stats().running) == ([], 0)

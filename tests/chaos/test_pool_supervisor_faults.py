"""Fault 21 for the pool: the supervisor is killed, its agents are gone, and the next one settles what is left."""

from __future__ import annotations

import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentpool import cgroups
from agentpool.base import Leftover
from agentpool.proctable import read_entry
from agentpool.settling import settle
from agentpool.testing import child, ignore, make_spec, say, script, wait
from tests.support.pools import is_living
from tests.support.processes import assert_no_survivors, processes_with
from tests.support.waiting import until
from tests.support.warm import daemon_of, place_of_daemons

pytestmark = pytest.mark.chaos

SUPERVISOR = """
import asyncio, json, signal, sys
from pathlib import Path
from agentpool.config import PoolConfig
from agentpool.local import LocalPool
from agentpool.messages import AgentRecord
from agentpool.testing import make_spec

async def main(place, mark, commands, cgroups, fields):
    pool = LocalPool(PoolConfig(cgroups=cgroups))
    await pool.start()
    for number, command in enumerate(commands):
        name = f"a{number}"
        await pool.enqueue(name, share_key="s").ready()
        await pool.launch(make_spec(name, Path(place), tuple(command), nonce=f"{mark}-{name}", **fields))
    ready = 0
    async for fact in pool.facts():
        ready += isinstance(fact, AgentRecord)
        if ready == len(commands):
            print("ready", *pool.worker_pids(), flush=True)

if __name__ == "__main__":
    signal.signal(signal.SIGINT, signal.default_int_handler)  # who runs the tests may have it ignored
    asyncio.run(main(*json.loads(sys.argv[1])))
"""


def start_supervisor(
    tmp_path: Path, commands: list[tuple[str, ...]], *, cgroups: bool, **fields: Any
) -> subprocess.Popen[str]:
    """A program with a pool and running agents, whose nonces hold ``tmp_path``; ``fields`` are of their specs."""
    import json

    program = tmp_path / "supervisor.py"
    program.write_text(SUPERVISOR, encoding="utf-8")
    arguments = json.dumps([str(tmp_path), str(tmp_path), commands, cgroups, fields])
    return subprocess.Popen(
        [sys.executable, str(program), arguments],
        stdout=subprocess.PIPE,
        stderr=subprocess.DEVNULL,
        text=True,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )


def await_ready(supervisor: subprocess.Popen[str]) -> list[int]:
    """Wait until all agents have spoken; the workers' pids."""
    assert supervisor.stdout is not None
    for line in supervisor.stdout:
        if line.startswith("ready"):
            return [int(pid) for pid in line.split()[1:]]
    raise AssertionError("the supervisor ended before its agents were ready")


READY = say({"type": "heartbeat"})


@pytest.mark.parametrize("cgroups", [True, False], ids=["cgroups", "no-cgroups"])
@pytest.mark.parametrize("number", [signal.SIGKILL, signal.SIGSEGV])
def test_fault_21_agents_are_gone_within_5_s_of_their_supervisor(
    tmp_path: Path, cgroups: bool, number: int, chaos_rounds: int
) -> None:
    """Prevents agents that work on, unseen and unpaid for, after their supervisor was killed (119 in the long run)."""
    agents = 20 if chaos_rounds == 1 else 119
    steps = [[child("daemon", ignore(), wait()), ignore(), READY, wait()], [child("fork", wait()), READY, wait()]]
    commands = [script(sys.executable, *steps[index % 2]) for index in range(agents)]
    with start_supervisor(tmp_path, commands, cgroups=cgroups) as supervisor:
        workers = await_ready(supervisor)
        assert len(processes_with(str(tmp_path), besides=[supervisor.pid])) >= 2 * agents
        supervisor.send_signal(number)
        supervisor.wait()
        assert_no_survivors(str(tmp_path), timeout_s=5.0)
        until(lambda: not [pid for pid in workers if read_entry(pid) is not None and read_entry(pid).state != "Z"])  # type: ignore[union-attr]


def kill_all(supervisor: subprocess.Popen[str], workers: list[int]) -> None:
    """Kill supervisor and workers so that none of them can see another's end."""
    for pid in workers:
        os.kill(pid, signal.SIGSTOP)
    supervisor.kill()
    supervisor.wait()
    for pid in workers:
        os.kill(pid, signal.SIGKILL)


def test_fault_21_what_both_left_is_settled_at_the_next_start(tmp_path: Path) -> None:
    """Prevents orphans when supervisor and workers die in one moment, and an agent from running twice."""
    commands = [script(sys.executable, child("setsid", ignore(), wait()), READY, wait()) for _ in range(5)]
    with start_supervisor(tmp_path, commands, cgroups=False) as supervisor:
        kill_all(supervisor, await_ready(supervisor))
        left = until(lambda: processes_with(str(tmp_path)))
        assert len(left) >= 5
        leftovers = [
            Leftover(agent_id=f"a{n}", attempt=1, pid=1 << 22, start_ticks=1, nonce=f"{tmp_path}-a{n}")
            for n in range(5)
        ]
        settled = settle(leftovers)
        assert [item.survivors for item in settled] == [0] * 5
        assert all(item.ended >= 1 for item in settled)
        assert processes_with(str(tmp_path)) == []
        assert [item.ended for item in settle(leftovers)] == [0] * 5


def test_fault_21_a_warm_agents_daemon_is_settled_too(tmp_path: Path) -> None:
    """What a ``python`` agent had forked carried no nonce: it outlived its sidecar, and no later one found it."""
    place = place_of_daemons(tmp_path)
    with start_supervisor(tmp_path, [("daemons:stays",)] * 2, cgroups=False, **place) as supervisor:
        workers = await_ready(supervisor)
        daemons = [daemon_of(tmp_path, name) for name in ("a0", "a1")]
        kill_all(supervisor, workers)
        leftovers = [
            Leftover(agent_id=f"a{n}", attempt=1, pid=1 << 22, start_ticks=1, nonce=f"{tmp_path}-a{n}")
            for n in range(2)
        ]
        settled = settle(leftovers)
        left = [pid for pid in daemons if is_living(pid)]
        for pid in left:
            os.kill(pid, signal.SIGKILL)  # nobody else would
        assert left == []
        assert [item.survivors for item in settled] == [0, 0]
        assert all(item.ended >= 1 for item in settled)


def test_fault_21_trees_end_when_supervisor_and_workers_die_at_once(tmp_path: Path) -> None:
    """Prevents agents, and what left their sessions, from living on until somebody starts the sidecar again."""
    if (base := cgroups.make_base(cgroups.find_parent())) is None:
        pytest.skip("this system has no cgroup that can be written")
    cgroups.remove(base)
    commands = [script(sys.executable, child("daemon", ignore(), wait()), READY, wait()) for _ in range(5)]
    with start_supervisor(tmp_path, commands, cgroups=True) as supervisor:
        workers = await_ready(supervisor)
        assert len(processes_with(str(tmp_path), besides=[supervisor.pid])) >= 10
        kill_all(supervisor, workers)
        assert_no_survivors(str(tmp_path), timeout_s=5.0)
    until(lambda: cgroups.settle_abandoned(cgroups.find_parent()) == 0)


def test_settling_knows_a_living_leader(tmp_path: Path) -> None:
    """Prevents a running leftover from being reported as long gone."""
    spec = make_spec("a", tmp_path, script(sys.executable, ignore(), child("setsid", ignore(), wait()), wait()))
    process = subprocess.Popen(spec.argv, env=spec.env, start_new_session=True)
    try:
        until(lambda: len(processes_with(spec.nonce)) == 2)
        entry = read_entry(process.pid)
        assert entry is not None
        (settled,) = settle(
            [Leftover(agent_id="a", attempt=1, pid=entry.pid, start_ticks=entry.start_ticks, nonce=spec.nonce)]
        )
        assert (settled.was_alive, settled.ended, settled.survivors) == (True, 2, 0)
    finally:
        process.kill()
        process.wait()


def test_a_program_that_forgets_to_stop_its_pool_still_ends(tmp_path: Path) -> None:
    """Prevents an exit that hangs in multiprocessing's join of workers that were never told."""
    with start_supervisor(tmp_path, [script(sys.executable, READY, wait())], cgroups=True) as supervisor:
        await_ready(supervisor)
        supervisor.send_signal(signal.SIGINT)
        assert supervisor.wait(timeout=10) != 0
        assert_no_survivors(str(tmp_path), timeout_s=5.0)

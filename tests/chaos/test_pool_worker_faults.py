"""Faults 13–15, 18 and 19: pool workers that are killed, crash or hang; and the warm parent's death."""

from __future__ import annotations

import asyncio
import contextlib
import multiprocessing
import os
import random
import signal
import sys
from pathlib import Path
from typing import Any

import psutil
import pytest
from structlog.testing import capture_logs

from agentpool.config import WorkerConfig
from agentpool.errors import LaunchFailed, SlotLost, UnknownAgent
from agentpool.handle import WorkerHandle
from agentpool.messages import AgentStarted, VerifierStarted, WorkerLost
from agentpool.proctable import snapshot
from agentpool.specs import Verifier
from agentpool.testing import child, ignore, leave, result, say, script, wait, write
from tests.support.pools import is_living, local_bench, stat_of, worker_keeping
from tests.support.processes import processes_with
from tests.support.supervisors import running_supervisor, settings
from tests.support.waiting import until, until_async

pytestmark = pytest.mark.chaos

READY = say({"type": "progress", "message": "ready"})


async def test_fault_13_others_go_on_when_an_idle_worker_is_killed(tmp_path: Path) -> None:
    """Prevents the wedge of a shared queue whose semaphore died with its holder."""
    async with local_bench(tmp_path, workers=2) as (bench, pool):
        started = await bench.launch("a", {"do": "echo", "lines": 1}, result(), leave())
        idle = next(pid for pid in pool.worker_pids() if pid != worker_keeping(started.pid))
        os.kill(idle, signal.SIGKILL)
        lost = await bench.fact(WorkerLost)
        assert (lost.pid, lost.exit_code, lost.agents, lost.is_replaced) == (idle, -signal.SIGKILL, (), True)
        pool.send("a", "m", b'{"type":"message","message_id":"m","text":"still there"}')
        assert (await bench.exited("a")).exit_code == 0
        await until_async(lambda: len(pool.worker_pids()) == 2, what="a new worker")
        exits = await asyncio.gather(*(bench.run(f"b{number}", leave()) for number in range(4)))
        assert [exited.exit_code for exited in exits] == [0] * 4


@pytest.mark.parametrize("cgroups", [True, False], ids=["cgroups", "no-cgroups"])
async def test_what_an_agent_used_is_known_when_its_worker_is_killed(tmp_path: Path, cgroups: bool) -> None:
    """A lost agent's record said that it had used no CPU and no memory, which nobody had measured."""
    async with local_bench(tmp_path, workers=1, cgroups=cgroups) as (bench, _):
        work = [{"do": "spin", "seconds": 0.4}, {"do": "allocate", "megabytes": 64}]
        started = await bench.launch("a", *work)
        await bench.said("a")
        os.kill(worker_keeping(started.pid), signal.SIGKILL)
        exited = await bench.exited("a")
        assert (exited.ended_by, exited.survivors.count) == ("worker_lost", 0)
        assert exited.usage.cpu_seconds is not None
        assert exited.usage.max_rss_bytes is not None
        assert 0.2 <= exited.usage.cpu_seconds <= 10
        assert 64 << 20 <= exited.usage.max_rss_bytes <= 200 << 20
        assert exited.usage.stdin_bytes is None, "the worker alone knew"


async def test_fault_14_a_worker_killed_mid_frame_harms_nobody_else(tmp_path: Path) -> None:
    """Prevents a torn frame from being read as one, and from stopping other workers."""
    async with local_bench(tmp_path, workers=2, fact_buffer_bytes=1 << 16) as (bench, _):
        text = '{"type":"log","message":"' + "x" * 5000 + '"}\n'
        go = {"do": "echo", "lines": 1}
        flood = await bench.launch("flood", go, write(text, times=3000), wait())
        other = await bench.launch("other", go, write(text, times=3000), result(), leave())
        keeper = worker_keeping(flood.pid)
        assert keeper != worker_keeping(other.pid)
        bench.is_consuming.clear()  # the channels fill: both workers stand in the middle of a frame
        for name in ("flood", "other"):
            bench.pool.send(name, "go", b'{"type":"message","message_id":"go","text":"go"}')
        await until_async(lambda: min(len(bench.log(name)) for name in ("flood", "other")) > 3 << 20)
        os.kill(keeper, signal.SIGKILL)
        bench.is_consuming.set()
        assert (await bench.exited("flood")).ended_by == "worker_lost"
        assert (await bench.exited("other")).exit_code == 0
        assert len(bench.records("other", "log")) == 3000
        assert len(bench.records("other", "result")) == 1


async def test_fault_15_only_the_crashed_worker_restarts(tmp_path: Path) -> None:
    """Prevents a crash from taking the whole pool along; the traceback is kept."""
    with capture_logs() as logs:
        async with local_bench(tmp_path, workers=2) as (bench, pool):
            started = await bench.launch("a", READY, wait())
            safe = await bench.launch("b", READY, {"do": "echo", "lines": 1}, leave())
            crashing = worker_keeping(started.pid)
            survivor = worker_keeping(safe.pid)
            os.kill(crashing, signal.SIGSEGV)
            lost = await bench.fact(WorkerLost)
            assert (lost.exit_code, lost.agents) == (-signal.SIGSEGV, ("a",))
            exited = await bench.exited("a")
            assert (exited.ended_by, exited.survivors.count) == ("worker_lost", 0)
            assert survivor in pool.worker_pids()
            pool.send("b", "m", b'{"type":"message","message_id":"m","text":"x"}')
            assert (await bench.exited("b")).exit_code == 0
    traces = [entry["traceback"] for entry in logs if entry["event"] == "pool.worker.traceback"]
    assert any("reactor.py" in trace for trace in traces)


async def test_fault_18_a_hung_worker_is_killed_with_its_traceback(tmp_path: Path) -> None:
    """Prevents a worker that hangs for ever with all its agents."""
    with capture_logs() as logs:
        async with local_bench(tmp_path, workers=1, ping_interval_s=0.1, ping_deadline_s=0.5) as (bench, pool):
            await bench.launch("a", READY, wait())
            await bench.said("a")
            (worker,) = pool.worker_pids()
            os.kill(worker, signal.SIGSTOP)
            assert (await bench.exited("a")).ended_by == "worker_lost"
            await until_async(lambda: pool.worker_pids() not in ((), (worker,)), what="a new worker")
            assert (await bench.run("b", leave())).exit_code == 0
            assert not is_living(worker)
    events = [entry["event"] for entry in logs]
    assert "pool.worker.hung" in events
    assert any("Current thread" in entry.get("traceback", "") for entry in logs)


@pytest.mark.parametrize("cgroups", [True, False], ids=["cgroups", "no-cgroups"])
async def test_fault_19_the_agents_of_a_killed_worker_are_ended_and_told(tmp_path: Path, cgroups: bool) -> None:
    """Prevents agents that go on, or zombies that stay, after the worker that kept them is gone."""

    def zombies() -> set[int]:
        stats = {int(name): stat_of(int(name)) for name in os.listdir("/proc") if name.isdigit()}
        return {pid for pid, stat in stats.items() if stat == ("Z", os.getpid())}

    before = zombies()
    async with local_bench(tmp_path, workers=1, cgroups=cgroups, ping_interval_s=0.1) as (bench, pool):
        for number, how in enumerate(("fork", "setsid", "daemon")):
            await bench.launch(f"a{number}", child(how, ignore(), READY, wait()), ignore(), wait())
            await bench.said(f"a{number}")
        (worker,) = pool.worker_pids()
        os.kill(worker, signal.SIGKILL)
        for number in range(3):
            exited = await bench.exited(f"a{number}")
            assert (exited.ended_by, exited.exit_code, exited.survivors.count) == ("worker_lost", None, 0)
            assert len(bench.exits(f"a{number}")) == 1
        assert processes_with(bench.mark) == []
        assert pool.stats().running == 0
        await until_async(lambda: not zombies() - before, what="no zombie more")


@pytest.mark.parametrize("cgroups", [True, False], ids=["cgroups", "no-cgroups"])
async def test_fault_19_a_verifier_dies_with_its_worker(tmp_path: Path, cgroups: bool) -> None:
    """Prevents a check of an agent's work that outlives whoever waits for what it says."""
    async with local_bench(tmp_path, workers=1, cgroups=cgroups, ping_interval_s=0.1) as (bench, pool):
        env = {"PATH": os.environ.get("PATH", os.defpath), "ORCHESTRATOR_AGENT_NONCE": f"{bench.mark}-a"}
        told = tmp_path / "nameless"
        nameless = child("fork", ignore(), {"do": "touch", "path": str(told)}, wait(), clear_env=True)
        steps = (ignore(), child("setsid", ignore(), wait()), nameless, wait())
        checking = Verifier(argv=script(sys.executable, *steps), env=env, timeout_s=300.0)
        await bench.launch("a", leave(), verifier=checking)
        await bench.fact(VerifierStarted)
        await until_async(lambda: len(processes_with(bench.mark)) == 2, what="the verifier and its child")
        await until_async(lambda: told.exists() and "\n" in told.read_text(), what="its child without an environment")
        (worker,) = pool.worker_pids()
        os.kill(worker, signal.SIGKILL)
        exited = await bench.exited("a")
        assert (exited.ended_by, exited.verification, exited.survivors.count) == ("worker_lost", None, 0)
        assert processes_with(bench.mark) == []
        assert not is_living(int(told.read_text()))


async def test_what_an_agent_used_is_not_lost_with_its_verifier(tmp_path: Path) -> None:
    """An agent that had used an hour of CPU was told to have used what its verifier did in its first second."""
    async with local_bench(tmp_path, workers=1) as (bench, pool):
        checking = Verifier(argv=("/bin/sleep", "300"), env={}, timeout_s=300.0)
        await bench.launch("a", {"do": "spin", "seconds": 0.5}, leave(), verifier=checking)
        await bench.fact(VerifierStarted)
        os.kill(pool.worker_pids()[0], signal.SIGKILL)
        exited = await bench.exited("a")
        assert exited.ended_by == "worker_lost"
        assert (exited.usage.cpu_seconds or 0.0) >= 0.5


@pytest.mark.parametrize("cgroups", [True, False], ids=["cgroups", "no-cgroups"])
async def test_a_stop_does_not_break_off_a_burial(tmp_path: Path, cgroups: bool) -> None:
    """A pool that stopped just after a worker had died left that one's agents running."""
    async with local_bench(tmp_path, workers=1, cgroups=cgroups) as (bench, pool):
        for number in range(10):
            await bench.launch(f"a{number}", child("setsid", ignore(), READY, wait()), ignore(), wait())
            await bench.said(f"a{number}")
        os.kill(pool.worker_pids()[0], signal.SIGKILL)
        await until_async(lambda: not pool.worker_pids(), what="the loss is seen")
    assert processes_with(bench.mark) == []
    assert [bench.exits(f"a{number}")[0].ended_by for number in range(10)] == ["worker_lost"] * 10


async def test_a_crash_loop_is_reported_and_not_looped(tmp_path: Path) -> None:
    """Prevents a worker that crashes at once from being restarted as fast as the machine can."""
    limits = {"worker_restart_limit": 2, "worker_restart_window_s": 30.0}
    async with local_bench(tmp_path, workers=1, **limits) as (bench, pool):
        for number in range(3):
            await until_async(lambda: pool.worker_pids(), what="a worker")
            (worker,) = pool.worker_pids()
            os.kill(worker, signal.SIGKILL)
            lost = await bench.fact(WorkerLost, lambda fact, pid=worker: fact.pid == pid)  # type: ignore[misc]
            assert lost.is_replaced is (number < 2)
        stats = pool.stats()
        assert (stats.workers_held_back, stats.capacity, stats.limited_by) == (1, 0, "workers")
        assert pool.enqueue("a", share_key="tests").position == 1
        assert pool.stats().running == 0


async def test_a_slot_is_given_back_when_the_last_worker_dies_before_the_launch(tmp_path: Path) -> None:
    """Prevents a slot that is lost with the worker, and one that is granted before there is another worker."""
    async with local_bench(tmp_path, workers=1) as (bench, pool):
        spec = await bench.spec("a", leave())
        await pool.enqueue("a", share_key="tests").ready()
        (worker,) = pool.worker_pids()
        os.kill(worker, signal.SIGKILL)
        await until_async(lambda: not pool.worker_pids(), what="the loss is seen")
        with pytest.raises(SlotLost):
            await pool.launch(spec)
        again = pool.enqueue("a", share_key="tests")
        assert (again.position, pool.stats().running) == (1, 0)
        await again.ready()
        assert pool.stats().workers == 1
        await pool.launch(spec)
        assert (await bench.exited("a")).exit_code == 0


async def test_a_worker_that_is_held_back_shows_in_the_health(tmp_path: Path) -> None:
    """A sidecar that had lost half of its workers for crashing again and again called itself healthy."""
    async with running_supervisor(tmp_path, settings(workers=2)) as supervisor:
        assert (await supervisor.health())["checks"]["pool"] == "ok"
        while not supervisor.pool.stats().workers_held_back:
            lost = supervisor.pool.stats().workers_lost
            os.kill(supervisor.pool.worker_pids()[0], signal.SIGKILL)
            await until_async(lambda lost=lost: supervisor.pool.stats().workers_lost > lost, what="the loss is seen")  # type: ignore[misc]
            await until_async(
                lambda: len(supervisor.pool.worker_pids()) == 2 or supervisor.pool.stats().workers_held_back,
                what="it is replaced or held back",
            )
        health = await supervisor.health()
        assert (health["status"], health["checks"]["pool"]) == ("degraded", "degraded")


async def test_workers_killed_at_random_lose_no_agent(tmp_path: Path, chaos_seed: int, chaos_rounds: int) -> None:
    """Prevents launches that never answer and agents that never end when workers die around them."""
    chance = random.Random(chaos_seed)
    config = {"workers": 2, "worker_restart_limit": 1000}
    async with local_bench(tmp_path, **config) as (bench, pool):
        names = [f"a{number}" for number in range(40 * chaos_rounds)]

        async def start(name: str) -> str:
            await asyncio.sleep(chance.random() * 1.0)
            try:
                await bench.launch(name, say({"type": "heartbeat"}), {"do": "sleep", "seconds": 0.2}, leave())
            except LaunchFailed as error:
                return error.reason
            except SlotLost:
                return "never started"
            return "started"

        async def kill() -> None:
            for _ in range(4 * chaos_rounds):
                await asyncio.sleep(chance.random() * 0.5)
                if pids := pool.worker_pids():
                    os.kill(chance.choice(pids), signal.SIGKILL)

        *starts, _ = await asyncio.gather(*(start(name) for name in names), kill())
        assert set(map(str, starts)) <= {"started", "worker_lost", "never started"}
        for name, what in zip(names, starts, strict=True):
            if what == "started":
                assert (await bench.exited(name)).survivors.count == 0
            assert len(bench.exits(name)) == int(what == "started")
        assert processes_with(bench.mark) == []
        assert pool.stats().running == 0


async def test_a_worker_whose_start_is_broken_off_is_discarded(chaos_seed: int, chaos_rounds: int) -> None:
    """A pool that stopped while it replaced a worker left that one's process and descriptors behind."""
    chance = random.Random(chaos_seed)
    for _ in range(5 * chaos_rounds):
        handle = WorkerHandle(WorkerConfig(index=0, cgroup_dir=None), lambda *_: None, lambda *_: None)
        starting = asyncio.create_task(handle.start())
        await asyncio.sleep(chance.random() * 0.02)
        starting.cancel()
        assert isinstance((await asyncio.gather(starting, return_exceptions=True))[0], asyncio.CancelledError)
        await handle.discard()
        assert handle.pid == 0 or not is_living(handle.pid)
    assert multiprocessing.active_children() == []


@pytest.mark.parametrize("cgroups", [True, False], ids=["cgroups", "no-cgroups"])
async def test_the_death_of_the_warm_parent_ends_its_agents_and_it_is_replaced(tmp_path: Path, cgroups: bool) -> None:
    """Prevents warm agents that are forgotten, or a runtime that is gone for good, when their parent dies."""
    (tmp_path / "warm.py").write_text(
        "import time\n"
        "def stay(agent):\n    agent.progress('ready')\n    time.sleep(600)\n"
        "def quick(agent):\n    return {'status': 'success'}\n",
        encoding="utf-8",
    )
    place: dict[str, Any] = {"runtime": "python", "workspace": str(tmp_path)}
    async with local_bench(tmp_path, workers=1, cgroups=cgroups) as (bench, _):
        started = await bench.launch("a", argv=("warm:stay",), **place)
        await bench.said("a")
        os.kill(worker_keeping(started.pid), signal.SIGKILL)  # its parent is the zygote
        exited = await bench.exited("a")
        assert (exited.signal, exited.survivors.count) == (signal.SIGKILL, 0)
        assert (await bench.run("b", argv=("warm:quick",), **place)).exit_code == 0
        assert bench.losses() == []


@pytest.mark.parametrize("victims", ["parent", "worker", "both"])
@pytest.mark.parametrize("cgroups", [True, False], ids=["cgroups", "no-cgroups"])
async def test_nothing_outlives_a_warm_parent_that_dies_amid_its_forks(
    tmp_path: Path, cgroups: bool, victims: str
) -> None:
    """Prevents an agent that was forked when nobody could be told any more, and lives on unseen."""
    (tmp_path / "warm.py").write_text("import time\ndef stay(agent):\n    time.sleep(600)\n", encoding="utf-8")
    place: dict[str, Any] = {"runtime": "python", "workspace": str(tmp_path), "argv": ("warm:stay",)}
    async with local_bench(tmp_path, workers=1, cgroups=cgroups) as (bench, pool):
        first = await bench.launch("first", **place)
        parent, worker = worker_keeping(first.pid), pool.worker_pids()[0]
        killed = {"parent": [parent], "worker": [worker], "both": [parent, worker]}[victims]
        names = [f"a{number}" for number in range(40)]
        launches = [asyncio.create_task(bench.launch(name, **place)) for name in names]
        await asyncio.wait(launches, return_when=asyncio.FIRST_COMPLETED)
        for pid in killed:
            os.kill(pid, signal.SIGKILL)
        outcomes = await asyncio.gather(*launches, return_exceptions=True)
        started = {name: one for name, one in zip(names, outcomes, strict=True) if isinstance(one, AgentStarted)}
        assert started
        assert {one.reason for one in outcomes if isinstance(one, LaunchFailed)} <= {"resources", "worker_lost"}
        for name in started:  # some may have had the next parent
            with contextlib.suppress(UnknownAgent):
                await pool.kill(name, grace_s=0.0)
        ends = [await bench.exited(name) for name in ("first", *started)]
        assert {end.survivors.count for end in ends} == {0}
        await asyncio.to_thread(until, lambda: not working_in(tmp_path), what=lambda: f"gone: {working_in(tmp_path)}")


def working_in(directory: Path) -> list[int]:
    """Living processes whose current directory it is: what tells a warm agent from its parent."""
    found = []
    for process in psutil.process_iter():
        with contextlib.suppress(psutil.Error, OSError):
            if process.status() != psutil.STATUS_ZOMBIE and process.cwd() == str(directory):
                found.append(process.pid)
    return found


async def wardens() -> list[int]:
    """The wardens of this process."""

    def look() -> list[int]:
        own = [entry.pid for entry in snapshot().values() if entry.ppid == os.getpid() and entry.state != "Z"]
        return [pid for pid in own if b"warden" in Path(f"/proc/{pid}/cmdline").read_bytes().split(b"\0")]

    return await asyncio.to_thread(look)


async def test_a_killed_warden_is_replaced_without_anyone_noticing(tmp_path: Path) -> None:
    """Prevents a pool that goes on unguarded, and agents that suffer from the loss of their guard."""
    async with local_bench(tmp_path, workers=1, ping_interval_s=0.05) as (bench, pool):
        if "cgroup" not in pool.features():
            pytest.skip("this system has no cgroup that can be written")
        await bench.launch("a", argv=("sh", "-c", "read line"))
        (first,) = await wardens()
        os.kill(first, signal.SIGKILL)
        while not set(await wardens()) - {first}:
            await asyncio.sleep(0.01)
        pool.send("a", "m", b"go")
        assert (await bench.exited("a")).exit_code == 0
        assert bench.losses() == []
    assert await wardens() == []


async def test_a_worker_that_is_lost_as_the_pool_stops_is_buried(tmp_path: Path) -> None:
    """Prevents a stop in the same turn of the loop from breaking off what ends a lost worker's agents."""
    async with local_bench(tmp_path, workers=1) as (bench, pool):
        started = await bench.launch("a", wait())
        (handle,) = pool._crew.handles.values()
        os.kill(handle.pid, signal.SIGSTOP)  # it cannot end its agents by itself
        handle._lose("gone")
        await pool._crew.stop(0.1)
        assert (await bench.exited("a")).ended_by == "worker_lost"
        assert not is_living(started.pid)
        assert handle.exit_code == -signal.SIGKILL


async def test_a_worker_killed_mid_frame_while_the_pool_stops_is_buried_once(tmp_path: Path) -> None:
    """Prevents two burials of one worker, the second of which broke off the stop: the warden and cgroups were left."""
    async with local_bench(tmp_path, workers=1) as (bench, pool):
        started = await bench.launch("a", wait())
        (handle,) = pool._crew.handles.values()
        os.kill(handle.pid, signal.SIGSTOP)  # it cannot end its agents by itself
        stopping = asyncio.create_task(pool._crew.stop(0.1))
        await until_async(lambda: handle.is_stopping, what="the stop has begun")
        handle._lose("protocol: the stream ended inside a frame")
        await stopping
        assert (await bench.exited("a")).ended_by == "worker_lost"
        assert not is_living(started.pid)
        assert pool._crew._warden is None

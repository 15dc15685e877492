"""Faults 34/35 as far as logs go, 75–77: descriptors, processes, memory and disk that run out."""

from __future__ import annotations

import asyncio
import json
import os
import resource
import signal
import sys
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentpool.errors import LaunchFailed
from agentpool.launching import CPU_HARD_MARGIN_S
from agentpool.platforms import raise_descriptor_limit
from agentpool.specs import Limits, Verifier
from agentpool.testing import child, leave, say, wait
from tests.support.pools import descriptors_of, local_bench
from tests.support.processes import processes_with

pytestmark = pytest.mark.chaos


@pytest.fixture
def few_descriptors() -> Iterator[None]:
    """A soft limit of 256 open files, as some systems set it."""
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (256, hard))
    yield
    resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))


async def test_fault_75_119_agents_with_a_soft_limit_of_256(tmp_path: Path, few_descriptors: None) -> None:
    """Prevents EMFILE at the 81st agent: the soft limit is raised at the start."""
    async with local_bench(tmp_path, workers=2) as (bench, pool):
        await asyncio.gather(*(bench.launch(f"a{number}", wait(), runtime="jsonl") for number in range(119)))
        assert pool.stats().running == 119
        await asyncio.gather(*(pool.kill(f"a{number}", grace_s=1) for number in range(119)))
        for number in range(119):
            assert (await bench.exited(f"a{number}")).survivors.count == 0


async def test_admission_stays_below_the_descriptors_that_there_are(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents admission of agents for which a hard limit leaves no descriptors."""
    monkeypatch.setattr("agentpool.local.raise_descriptor_limit", lambda: 128)
    async with local_bench(tmp_path, workers=1) as (bench, pool):
        stats = pool.stats()
        assert (stats.capacity, stats.limited_by) == (8, "descriptors")
        tickets = [pool.enqueue(f"a{number}", share_key="s") for number in range(9)]
        assert [ticket.position for ticket in tickets] == [0] * 8 + [1]
        assert bench.facts == []


def test_the_soft_limit_is_raised_to_the_hard_one_at_most(few_descriptors: None) -> None:
    """Prevents a start that fails because it asks for more than it may have."""
    _, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    assert raise_descriptor_limit(300) == 300
    assert raise_descriptor_limit(hard + 1) == hard if hard != resource.RLIM_INFINITY else True


async def test_fault_75_a_worker_without_descriptors_fails_the_launch_only(tmp_path: Path) -> None:
    """Prevents EMFILE in a worker from killing it, or from leaking what was opened before."""
    async with local_bench(tmp_path, workers=1) as (bench, pool):
        (worker,) = pool.worker_pids()
        await bench.run("warm-up", leave())
        before = descriptors_of(worker)
        soft, hard = resource.prlimit(worker, resource.RLIMIT_NOFILE)
        for room in range(5):
            resource.prlimit(worker, resource.RLIMIT_NOFILE, (before + room, hard))
            with pytest.raises(LaunchFailed) as caught:
                await bench.launch(f"a{room}", wait())
            assert (caught.value.reason, caught.value.is_permanent) == ("resources", False)
            assert descriptors_of(worker) == before
        resource.prlimit(worker, resource.RLIMIT_NOFILE, (soft, hard))
        assert (await bench.run("b", leave())).exit_code == 0
        assert bench.losses() == []


async def test_fault_76_a_process_limit_refuses_and_recovers(tmp_path: Path) -> None:
    """Prevents a refused fork from being permanent, or from taking the worker down."""
    command: list[str] = []
    if os.geteuid() == 0:
        # The limit does nothing for root: the pool runs as another user, who may read what root may.
        command = ["setpriv", "--reuid=54321", "--regid=54321", "--clear-groups"]
        command += ["--inh-caps=-all,+dac_override", "--ambient-caps=-all,+dac_override"]
    command += [sys.executable, "-c", PROCESS_LIMIT_PROGRAM, str(tmp_path)]
    process = await asyncio.create_subprocess_exec(
        *command,
        stdout=asyncio.subprocess.PIPE,
        stderr=asyncio.subprocess.STDOUT,
        env={**os.environ, "PYTHONPATH": str(Path(__file__).parents[2])},
    )
    out, _ = await process.communicate()
    assert out.decode().splitlines()[-1:] == ["refused resources False, then 0"], out.decode()


#: One process is more than the user may have; the worker is there already, and must outlive the refusal.
PROCESS_LIMIT_PROGRAM = """
import asyncio, resource, sys
from pathlib import Path
from agentpool.config import PoolConfig
from agentpool.errors import LaunchFailed
from agentpool.local import LocalPool
from agentpool.messages import AgentExited
from agentpool.testing import make_spec

async def main():
    pool = LocalPool(PoolConfig(workers=1, cgroups=False))
    await pool.start()
    (worker,) = pool.worker_pids()
    soft, hard = resource.prlimit(worker, resource.RLIMIT_NPROC)
    resource.prlimit(worker, resource.RLIMIT_NPROC, (1, hard))
    spec = make_spec("a", Path(sys.argv[1]), ("/bin/true",), runtime="text")
    await pool.enqueue("a", share_key="s").ready()
    try:
        await pool.launch(spec)
        said = "not refused"
    except LaunchFailed as error:
        said = f"refused {error.reason} {error.is_permanent}"
    resource.prlimit(worker, resource.RLIMIT_NPROC, (soft, hard))
    await pool.enqueue("a", share_key="s").ready()
    await pool.launch(spec)
    async for fact in pool.facts():
        if isinstance(fact, AgentExited):
            break
    assert pool.worker_pids() == (worker,)
    await pool.stop()
    print(f"{said}, then {fact.exit_code}")

asyncio.run(main())
"""


@pytest.mark.parametrize("cgroups", [True, False], ids=["cgroups", "no-cgroups"])
async def test_fault_77_a_fork_bomb_dies_alone(tmp_path: Path, cgroups: bool) -> None:
    """Prevents one agent's fork bomb from taking the others, or the machine, along."""
    async with local_bench(tmp_path, workers=1, cgroups=cgroups) as (bench, pool):
        await bench.launch("other", {"do": "echo", "lines": 1}, leave())
        exited = await bench.run(
            "bomb", {"do": "bomb"}, limits=Limits(processes=40, nice=10), grace_s=0.2, timeout_s=60
        )
        assert exited.ended_by == "process_limit"
        assert exited.survivors.count == 0
        assert processes_with(f"{bench.mark}-bomb") == []
        pool.send("other", "m", b'{"type":"message","message_id":"m","text":"x"}')
        assert (await bench.exited("other")).exit_code == 0


@pytest.mark.parametrize("cgroups", [True, False], ids=["cgroups", "no-cgroups"])
async def test_fault_77_a_memory_hog_dies_alone(tmp_path: Path, cgroups: bool) -> None:
    """Prevents one agent's appetite, or its children's sum, from starving the others."""
    hog = {"do": "allocate", "megabytes": 70}
    async with local_bench(tmp_path, workers=1, cgroups=cgroups) as (bench, _):
        alone = await bench.run("alone", {"do": "allocate", "megabytes": 400}, limits=Limits(memory_bytes=128 << 20))
        assert (alone.ended_by, alone.exit_code) in (("memory_limit", None), ("", 1))
        assert bench.records("alone") == []
        family = [child("fork", hog), child("setsid", hog), wait()]
        together = await bench.run("family", *family, limits=Limits(memory_bytes=128 << 20), grace_s=0.2)
        assert (together.ended_by, together.survivors.count) == ("memory_limit", 0)
        assert (await bench.run("other", leave())).exit_code == 0


@pytest.mark.parametrize("cgroups", [True, False], ids=["cgroups", "no-cgroups"])
async def test_cpu_limit_ends_a_burner(tmp_path: Path, cgroups: bool) -> None:
    """Prevents an agent from burning a core for ever, or from being ended long before or after its limit."""
    async with local_bench(tmp_path, workers=1, cgroups=cgroups) as (bench, _):
        exited = await bench.run("a", {"do": "spin", "seconds": 60}, limits=Limits(cpu_s=1))
        assert exited.ended_by == "cpu_limit"
        # CPU time does not depend on what else runs. The kernel counts it by ticks (up to 10 ms each, some of which
        # belong to others), so it may be some hundredths off; the hard limit is the last bound.
        assert 0.8 <= (exited.usage.cpu_seconds or 0) <= 1 + CPU_HARD_MARGIN_S + 0.5


@pytest.mark.parametrize("cgroups", [True, False], ids=["cgroups", "no-cgroups"])
async def test_cpu_limit_ends_a_burner_that_ignores_it(tmp_path: Path, cgroups: bool) -> None:
    """Prevents an agent from outliving its limit by ignoring the signals that tell it of that."""
    script = "trap '' XCPU TERM; while :; do :; done"
    async with local_bench(tmp_path, workers=1, cgroups=cgroups) as (bench, _):
        exited = await bench.run("a", argv=("sh", "-c", script), limits=Limits(cpu_s=1), grace_s=0.2, timeout_s=30)
        assert (exited.ended_by, exited.signal) == ("cpu_limit", signal.SIGKILL)
        assert 0.8 <= (exited.usage.cpu_seconds or 0) <= 1 + CPU_HARD_MARGIN_S + 0.5
        assert exited.survivors.count == 0


#: So many children as the first argument says, one after the other, that each use 0.3 s of CPU: waited for, orphaned,
#: or orphaned in a session of their own.
BURNERS = """
import os, sys, time
count, how = int(sys.argv[1]), sys.argv[2]
for _ in range(count):
    reader, writer = os.pipe()
    if os.fork() == 0:
        if how == "elsewhere":
            os.setsid()
        if how != "waited" and os.fork():
            os._exit(0)
        while time.process_time() < 0.3:
            pass
        os._exit(0)
    os.wait()
    os.close(writer)
    os.read(reader, 1)
    os.close(reader)
time.sleep(0.6)
"""


@pytest.mark.parametrize("how", ["waited", "orphaned", "elsewhere"])
async def test_cpu_limit_counts_what_has_ended_once(tmp_path: Path, how: str) -> None:
    """Without cgroups an agent whose children each stayed below its limit used CPU without end."""
    async with local_bench(tmp_path, workers=1, cgroups=False) as (bench, _):
        many, few = (sys.executable, "-c", BURNERS, "20", how), (sys.executable, "-c", BURNERS, "2", how)
        exits = await asyncio.gather(
            bench.run("many", argv=many, limits=Limits(cpu_s=1), grace_s=0.2, timeout_s=60),
            bench.run("few", argv=few, limits=Limits(cpu_s=1), timeout_s=60),
        )
        assert [(exited.ended_by, exited.survivors.count) for exited in exits] == [("cpu_limit", 0), ("", 0)]


@pytest.mark.parametrize("how", ["waited", "orphaned", "elsewhere"])
async def test_cpu_limit_counts_what_a_verifier_has_left_behind(tmp_path: Path, how: str) -> None:
    """Without cgroups what a verifier's orphans had used was looked for in the tree of the agent, which was gone."""
    env = {"PATH": os.environ.get("PATH", os.defpath)}
    async with local_bench(tmp_path, workers=1, cgroups=False) as (bench, _):
        env["ORCHESTRATOR_AGENT_NONCE"] = f"{bench.mark}-a"
        burning = Verifier(argv=(sys.executable, "-c", BURNERS, "20", how), env=env, timeout_s=60.0)
        exited = await bench.run("a", leave(), verifier=burning, limits=Limits(cpu_s=1), grace_s=0.2, timeout_s=60)
        assert exited.verification is not None
        assert (exited.verification.ended_by, exited.survivors.count) == ("cpu_limit", 0)


async def test_limits_reach_the_process(tmp_path: Path) -> None:
    """Prevents limits that are accepted and never set."""
    limits = Limits(open_files=64, file_size_bytes=1 << 20, cpu_s=50, nice=5)
    names = ["RLIMIT_NOFILE", "RLIMIT_FSIZE", "RLIMIT_CPU", "RLIMIT_CORE"]
    async with local_bench(tmp_path, workers=1) as (bench, _):
        await bench.run(
            "a",
            {"do": "show", "what": "limits", "names": names},
            {"do": "show", "what": "place"},
            leave(),
            limits=limits,
        )
        first, second = (json.loads(record.payload)["value"] for record in bench.records("a", "progress"))
        assert first == {"RLIMIT_NOFILE": 64, "RLIMIT_FSIZE": 1 << 20, "RLIMIT_CPU": 50, "RLIMIT_CORE": 0}
        assert second["nice"] == min(19, os.nice(0) + 5)  # 19 is the nicest there is
        assert second["session"] == second["pid"]
        assert second["directory"] == str(tmp_path / "a")


@pytest.mark.parametrize("runtime", ["jsonl", "text"])
async def test_a_log_that_takes_no_more_is_cut_and_said_so(tmp_path: Path, runtime: str) -> None:
    """Prevents a full disk (35: a file size limit) from stopping the worker, or the agent that it still drains."""
    go = tmp_path / "go"
    waits = "while [ ! -e go ]; do sleep 0.02; done; "
    writes = "head -c 4194304 /dev/zero | tr '\\0' '\\n'; echo '{\"type\":\"result\",\"result\":{}}'"
    async with local_bench(tmp_path, workers=1) as (bench, pool):
        await bench.launch("a", argv=("sh", "-c", waits + writes), runtime=runtime, workspace=str(tmp_path))
        (worker,) = pool.worker_pids()
        soft, hard = resource.prlimit(worker, resource.RLIMIT_FSIZE)
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (1 << 20, hard))
        go.touch()
        exited = await bench.exited("a")
        resource.prlimit(worker, resource.RLIMIT_FSIZE, (soft, hard))
        assert exited.exit_code == 0
        assert exited.truncated_at == {"stdout": 1 << 20}
        assert exited.usage.stdout_bytes > 4 << 20
        assert len(bench.records("a", "result")) == (1 if runtime == "jsonl" else 0)
        assert bench.losses() == []


async def test_a_thousand_in_sequence_leave_nothing(tmp_path: Path, chaos_rounds: int) -> None:
    """Prevents slow leaks: descriptors, zombies, cgroups or slots that stay with each agent."""
    async with local_bench(tmp_path, workers=2, max_running=50) as (bench, pool):
        await bench.run("first", say({"type": "heartbeat"}), leave())
        before = [descriptors_of(pid) for pid in pool.worker_pids()]
        count = 300 * chaos_rounds

        async def one(number: int) -> None:
            ticket = pool.enqueue(f"a{number}", share_key=f"s{number % 3}")
            await ticket.ready()
            spec = await bench.spec(f"a{number}", argv=("/bin/true",), runtime="text")
            await pool.launch(spec)

        await asyncio.gather(*(one(number) for number in range(count)))
        for number in range(count):
            assert (await bench.exited(f"a{number}", timeout_s=120)).survivors.count == 0
        assert [descriptors_of(pid) for pid in pool.worker_pids()] == before
        assert pool.stats().running == 0
        assert processes_with(bench.mark) == []

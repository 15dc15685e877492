"""Faults 1–6 and 8–12: agents that will not end, that hide, that end at the wrong moment. With and without cgroups."""

from __future__ import annotations

import asyncio
import os
import random
import shlex
import signal
import stat
import subprocess
import sys
import time
import uuid
from pathlib import Path
from typing import Any

import pytest

from agentpool.base import Leftover
from agentpool.errors import LaunchFailed, UnknownAgent
from agentpool.messages import AgentExited
from agentpool.proctable import ProcessEntry, read_entry
from agentpool.settling import Keepless, settle, sweep
from agentpool.signalling import signal_process
from agentpool.specs import Limits
from agentpool.testing import child, ignore, leave, say, script, wait, write
from tests.support.pids import stranger_with
from tests.support.pools import Bench, descriptors_of, is_living, local_bench, stat_of
from tests.support.processes import processes_with
from tests.support.waiting import until, until_async
from tests.support.warm import daemon_of, place_of_daemons

pytestmark = pytest.mark.chaos

READY = say({"type": "progress", "message": "ready"})


@pytest.fixture(params=[True, False], ids=["cgroups", "no-cgroups"])
def cgroups(request: pytest.FixtureRequest) -> bool:
    """Whether the pool may use cgroups; it must keep its promises without."""
    return bool(request.param)


def assert_gone(bench: Bench, exited: AgentExited) -> None:
    """The record says that nothing is left and how that was checked, and the system agrees."""
    assert exited.survivors.count == 0
    assert exited.survivors.checked_by
    assert processes_with(bench.mark) == []


async def test_fault_1_child_in_the_group_ignores_term(tmp_path: Path, cgroups: bool) -> None:
    """Prevents a stubborn child that outlives the leader which obeyed."""
    async with local_bench(tmp_path, cgroups=cgroups) as (bench, pool):
        await bench.launch("a", child("fork", ignore(), READY, wait()), wait())
        await bench.said("a")
        await pool.kill("a", grace_s=0.3)
        exited = await bench.exited("a")
        assert exited.signal == signal.SIGTERM
        assert exited.survivors.swept == 1
        assert_gone(bench, exited)


@pytest.mark.parametrize("how", ["setsid", "daemon"])
async def test_fault_2_descendants_that_left_the_session(tmp_path: Path, cgroups: bool, how: str) -> None:
    """Prevents daemons that escape by setsid or a double fork."""
    async with local_bench(tmp_path, cgroups=cgroups) as (bench, pool):
        await bench.launch("a", child(how, ignore(), READY, wait()), wait())
        await bench.said("a")
        await pool.kill("a", grace_s=0.2)
        assert_gone(bench, await bench.exited("a"))


async def test_fault_2_descendant_without_session_and_environment(tmp_path: Path, cgroups: bool) -> None:
    """Prevents a daemon that cleared its environment too from outliving the worker that could know it."""
    pidfile = tmp_path / "pids"
    hidden = child("daemon", {"do": "touch", "path": str(pidfile)}, wait(), clear_env=True)
    async with local_bench(tmp_path, cgroups=cgroups, workers=1) as (bench, _):
        await bench.run("a", hidden, {"do": "sleep", "seconds": 0.3}, leave())
        pid = int(pidfile.read_text())
        async with asyncio.timeout(10):
            while is_living(pid):
                await asyncio.sleep(0.05)


#: Leaves a daemon behind, in a session and a cgroup of its own where it has one to leave, and ends when that sleeps:
#: the exec closes ``told``.
ESCAPING = """
import os, signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
ready, told = os.pipe()
if os.fork():
    os.close(told)
    os.read(ready, 1)
    sys.exit()
os.setsid()
own = next((line[3:].strip() for line in open('/proc/self/cgroup') if line.startswith('0::')), '/')
for root in ('/sys/fs/cgroup', '/sys/fs/cgroup/unified'):
    elsewhere = os.path.join(os.path.dirname(root + own), 'elsewhere')
    if '/agentpool-' in own and os.path.isdir(root + own):
        os.makedirs(elsewhere, exist_ok=True)
        open(elsewhere + '/cgroup.procs', 'w').write('0')
os.close(ready)
null = os.open(os.devnull, os.O_RDWR)
for fd in (0, 1, 2):
    os.dup2(null, fd)
os.execvp('sleep', ['sleep', '300'])
"""


#: Instead of sleeping as what it is.
HIDING = """
open({0!r}, 'w').write(str(os.getpid()))
os.execve('/bin/sleep', ['sleep', '300'], {{}})
"""


async def test_fault_2_daemon_that_left_its_cgroup(tmp_path: Path, cgroups: bool) -> None:
    """A process that wrote itself into another cgroup, as its user may, outlived its agent: survivors were 0."""
    async with local_bench(tmp_path, cgroups=cgroups, workers=1) as (bench, _):
        exited = await bench.run("a", argv=(sys.executable, "-c", ESCAPING))
        assert (exited.exit_code, exited.survivors.swept) == (0, 1)
        assert_gone(bench, exited)


async def test_fault_2_a_daemon_without_cgroup_and_environment(tmp_path: Path, cgroups: bool) -> None:
    """One that had cleared its environment as well lived as long as its worker, beside agents of others."""
    pidfile = tmp_path / "pid"
    code = ESCAPING.replace("os.execvp('sleep', ['sleep', '300'])", HIDING.format(str(pidfile)))
    async with local_bench(tmp_path, cgroups=cgroups, workers=1) as (bench, _):
        assert (await bench.run("a", argv=(sys.executable, "-c", code))).exit_code == 0
        pid = int(pidfile.read_text())
        await until_async(lambda: not is_living(pid), what="its end, though the worker lives")


async def test_fault_2_daemon_of_a_warm_agent(tmp_path: Path, cgroups: bool) -> None:
    """A daemon of a ``python`` agent, forked and never executed, had its parent's environment, and so no nonce."""
    place = place_of_daemons(tmp_path)
    async with local_bench(tmp_path, cgroups=cgroups, workers=1) as (bench, pool):
        await bench.launch("stays", argv=("daemons:stays",), **place)
        other = await asyncio.to_thread(daemon_of, tmp_path, "stays")
        exited = await bench.run("leaves", argv=("daemons:leaves",), **place)
        assert not is_living(await asyncio.to_thread(daemon_of, tmp_path, "leaves"))
        assert (exited.exit_code, exited.survivors.count, exited.survivors.swept) == (0, 0, 1)
        assert is_living(other), "another agent's daemon lives"
        await pool.kill("stays", grace_s=0)
        assert (await bench.exited("stays")).survivors.count == 0
        assert not is_living(other)


async def test_fault_2_a_nonce_that_a_warm_agent_cannot_carry_is_refused(tmp_path: Path) -> None:
    """Prevents an agent whose descendants nobody could know."""
    async with local_bench(tmp_path, workers=1) as (bench, _):
        with pytest.raises(LaunchFailed, match="nonce"):
            await bench.launch("a", argv=("daemons:leaves",), nonce="n" * 257, **place_of_daemons(tmp_path))
        place = {"nonce": "n" * 254 + "-a", **place_of_daemons(tmp_path)}
        assert (await bench.run("b", argv=("daemons:leaves",), **place)).survivors.swept == 1


async def test_fault_3_a_tree_of_shells_dies_whole(tmp_path: Path, cgroups: bool) -> None:
    """Prevents wrappers (npm, sh) whose real command goes on after them."""
    tree = "sh -c 'sleep 600 & sleep 600' & sh -c \"sh -c 'sleep 600'\" & echo '{\"type\":\"heartbeat\"}'; wait"
    async with local_bench(tmp_path, cgroups=cgroups) as (bench, pool):
        await bench.launch("a", argv=("sh", "-c", tree))
        await bench.said("a", "heartbeat")
        await pool.kill("a", grace_s=0.5)
        assert_gone(bench, await bench.exited("a"))


async def test_fault_4_grandchild_holds_stdout_open(tmp_path: Path, cgroups: bool) -> None:
    """Prevents an exit that is only seen when the last holder of the pipe is gone."""
    async with local_bench(tmp_path, cgroups=cgroups) as (bench, _):
        begun = time.monotonic()
        exited = await bench.run("a", child("daemon", ignore(), {"do": "sleep", "seconds": 600}), leave(3))
        assert exited.exit_code == 3
        assert time.monotonic() - begun < 10
        assert_gone(bench, exited)


async def test_fault_5_helper_servers_left_behind(tmp_path: Path, cgroups: bool) -> None:
    """Prevents servers that an agent started and forgot from piling up over runs."""
    async with local_bench(tmp_path, cgroups=cgroups) as (bench, _):
        helpers = [child(how, wait()) for how in ("fork", "setsid", "daemon")]
        for number in range(5):
            exited = await bench.run(f"a{number}", *helpers, leave())
            assert exited.exit_code == 0
            assert_gone(bench, exited)


async def test_fault_6_a_stopped_agent_is_noticed(tmp_path: Path, cgroups: bool) -> None:
    """Prevents an agent that hangs for ever because nothing watches it."""
    async with local_bench(tmp_path, cgroups=cgroups) as (bench, _):
        started = await bench.launch("a", READY, wait(), limits=Limits(idle_s=0.5), grace_s=0.2)
        await bench.said("a")
        os.kill(started.pid, signal.SIGSTOP)
        exited = await bench.exited("a")
        assert exited.ended_by == "idle_limit"
        assert_gone(bench, exited)


async def test_a_working_agent_is_not_idle(tmp_path: Path, cgroups: bool) -> None:
    """Prevents the idle limit from ending an agent that says nothing but computes, or is quiet and speaks in time."""
    async with local_bench(tmp_path, cgroups=cgroups) as (bench, _):
        limits = Limits(idle_s=1.0)
        talk = [step for _ in range(8) for step in (say({"type": "heartbeat"}), {"do": "sleep", "seconds": 0.3})]
        exits = await asyncio.gather(
            bench.run("busy", {"do": "spin", "seconds": 2.5}, leave(), limits=limits),
            bench.run("talks", *talk, leave(), limits=limits),
        )
        assert [exited.ended_by for exited in exits] == ["", ""]


async def test_an_agent_whose_heaviest_child_has_ended_is_not_idle(tmp_path: Path) -> None:
    """Without cgroups the CPU time of a child that had ended was a mark, and all work below that counted as idling."""
    burn = "import time\nwhile time.process_time() < {}: pass"
    command = "; ".join(shlex.join((sys.executable, "-c", burn.format(seconds))) for seconds in (1.6, 1.5))
    async with local_bench(tmp_path, cgroups=False) as (bench, _):
        exited = await bench.run("a", argv=("sh", "-c", command + "; exit 3"), limits=Limits(idle_s=1.0), timeout_s=60)
        assert (exited.ended_by, exited.exit_code) == ("", 3)


async def test_wall_limit_ends_an_agent(tmp_path: Path) -> None:
    """Prevents an agent that works for ever."""
    async with local_bench(tmp_path) as (bench, _):
        exited = await bench.run("a", wait(), limits=Limits(wall_s=0.2))
        assert (exited.ended_by, exited.signal) == ("wall_limit", signal.SIGTERM)


async def test_fault_8_commands_that_cannot_start_leak_nothing(tmp_path: Path, chaos_rounds: int) -> None:
    """Prevents descriptors, directories or slots that leak with every failed start (10,000 in the long run)."""
    plain = tmp_path / "plain"
    plain.write_text("not a program", encoding="utf-8")
    broken = tmp_path / "broken"
    broken.write_text("#!/no/such/interpreter\n", encoding="utf-8")
    broken.chmod(broken.stat().st_mode | stat.S_IXUSR)
    commands = {"not_found": ("no-such-command",), "not_executable": (str(plain),)}
    async with local_bench(tmp_path, workers=1) as (bench, pool):
        (worker,) = pool.worker_pids()

        async def fail(command: tuple[str, ...]) -> LaunchFailed:
            with pytest.raises(LaunchFailed) as caught:
                await bench.launch("a", argv=command)
            return caught.value

        await fail((str(broken),))
        before = descriptors_of(worker)
        for _ in range(1000 if chaos_rounds == 1 else 5000):
            for reason, command in commands.items():
                error = await fail(command)
                assert (error.reason, error.is_permanent) == (reason, True)
        for _ in range(100):
            assert (await fail((str(broken),))).reason == "not_found"
        assert descriptors_of(worker) == before
        assert pool.stats().running == 0
        assert list((tmp_path / "a").iterdir()) == []


def test_fault_9_another_start_time_is_another_process(tmp_path: Path) -> None:
    """Prevents a signal to whoever has got the pid of a process that is long gone; a wrong start time stands for it."""
    pid = os.posix_spawn(sys.executable, script(sys.executable, wait()), {})
    try:
        entry = read_entry(pid)
        assert entry is not None
        assert not signal_process(pid, entry.start_ticks + 1, signal.SIGKILL)
        stranger = Leftover(agent_id="a", attempt=1, pid=pid, start_ticks=entry.start_ticks - 1, nonce="not-in-there")
        (settled,) = settle([stranger])
        assert (settled.was_alive, settled.ended, settled.survivors) == (False, 0, 0)
        assert os.waitpid(pid, os.WNOHANG) == (0, 0)
        assert signal_process(pid, entry.start_ticks, signal.SIGKILL)
    finally:
        os.kill(pid, signal.SIGKILL)
        os.waitpid(pid, 0)


def dead_leader(nonce: str, *, with_daemon: bool = False) -> tuple[ProcessEntry, int]:
    """A leader that ran, ended and was reaped, and the daemon that it left (else 0).

    The daemon carries the nonce, and is in a session of its own: while one is in the leader's, the kernel keeps the
    leader's number from others.
    """
    mine, theirs = os.pipe()
    code = (
        "import os, sys, signal\n"
        f"if {with_daemon} and os.fork() == 0:\n"
        "    os.setsid(); signal.signal(signal.SIGTERM, signal.SIG_IGN)\n"
        "    os.write(int(sys.argv[1]), b'%d\\n' % os.getpid()); os.close(int(sys.argv[1])); signal.pause()\n"
        "os.close(int(sys.argv[1])); sys.stdin.read()\n"
    )
    leader = subprocess.Popen(
        [sys.executable, "-c", code, str(theirs)],
        env={**os.environ, "ORCHESTRATOR_AGENT_NONCE": nonce},
        stdin=subprocess.PIPE,
        pass_fds=[theirs],
        start_new_session=True,
    )
    os.close(theirs)
    with open(mine, "rb") as reader:
        said = reader.read()
    entry = read_entry(leader.pid)
    assert entry is not None
    leader.communicate()
    return entry, int(said or 0)


@pytest.mark.parametrize("with_daemon", [True, False], ids=["daemon-left", "nothing-left"])
def test_fault_9_a_stranger_with_the_pid_of_a_dead_agent_is_not_touched(with_daemon: bool) -> None:
    """Whoever got a dead leader's number was taken for its tree, and killed by the sweep after a worker's death."""
    nonce = uuid.uuid4().hex
    entry, daemon = dead_leader(nonce, with_daemon=with_daemon)
    with stranger_with(entry.pid, ["/bin/sleep", "600"], after_ticks=entry.start_ticks) as stranger:
        assert not signal_process(entry.pid, entry.start_ticks, signal.SIGKILL)
        agent = Keepless(agent_id="a", pid=entry.pid, start_ticks=entry.start_ticks, nonce=nonce, leaf_path=None)
        left = sweep([agent])["a"].survivors
        assert (left.count, left.swept) == (0, int(with_daemon))
        if with_daemon:
            until(lambda: not is_living(daemon))
        leftover = Leftover(agent_id="a", attempt=1, pid=entry.pid, start_ticks=entry.start_ticks, nonce=nonce)
        (settled,) = settle([leftover])
        assert (settled.was_alive, settled.ended, settled.survivors) == (False, 0, 0)
        assert os.waitpid(stranger, os.WNOHANG) == (0, 0), "the stranger lives"


async def test_fault_10_a_signal_just_after_the_exit_keeps_the_true_code(
    tmp_path: Path, cgroups: bool, chaos_seed: int, chaos_rounds: int
) -> None:
    """Prevents an exit code 7 that becomes 255 or 'killed' because a kill came a moment too late."""
    chance = random.Random(chaos_seed)
    async with local_bench(tmp_path, cgroups=cgroups) as (bench, pool):
        for number in range(20 * chaos_rounds):
            name = f"a{number}"
            started = await bench.launch(name, argv=("sh", "-c", "exit 7"), runtime="text")
            while is_living(started.pid):
                await asyncio.sleep(0)
            await asyncio.sleep(chance.random() * 0.002)
            try:
                await pool.kill(name, grace_s=chance.choice([0.0, 1.0]))
            except UnknownAgent:
                pass  # its end is known already
            exited = await bench.exited(name)
            assert (exited.exit_code, exited.signal) == (7, None)


async def test_fault_11_stop_during_start(tmp_path: Path, cgroups: bool, chaos_seed: int, chaos_rounds: int) -> None:
    """Prevents an agent that was cancelled while it started and runs on unseen."""
    chance = random.Random(chaos_seed)
    async with local_bench(tmp_path, cgroups=cgroups) as (bench, pool):
        for number in range(15 * chaos_rounds):
            task = asyncio.create_task(bench.launch(f"a{number}", wait()))
            await asyncio.sleep(chance.random() * 0.01)
            task.cancel()
            await asyncio.gather(task, return_exceptions=True)
            if not task.cancelled():
                await pool.kill(f"a{number}", grace_s=0)
        async with asyncio.timeout(10):
            while pool.stats().running or processes_with(bench.mark):
                # A ticket whose launch never began is still the caller's to release.
                for number in range(15 * chaos_rounds):
                    if f"a{number}" not in pool._keepers:
                        pool._admission.free(f"a{number}")
                await asyncio.sleep(0.02)
        for number in range(15 * chaos_rounds):
            assert len(bench.exits(f"a{number}")) <= 1


@pytest.mark.parametrize("how", ["plain", "limited", "warm"])
async def test_a_kill_without_grace_during_the_start_is_a_kill(tmp_path: Path, cgroups: bool, how: str) -> None:
    """A kill without grace that came while the program started sent TERM, and its ``shutdown``, before KILL."""
    (tmp_path / "waiting.py").write_text("import signal\ndef main(agent):\n    signal.pause()\n", encoding="utf-8")
    ways: dict[str, dict[str, Any]] = {"limited": {"limits": Limits(cpu_s=60)}, "warm": {"runtime": "python"}}
    fields = ways.get(how, {})
    argv = ("waiting:main",) if how == "warm" else ("/bin/sleep", "600")
    async with local_bench(tmp_path, cgroups=cgroups, workers=1) as (bench, pool):
        await bench.run("warm-up", argv=("true",), runtime="text")
        for number in range(5):
            name = f"a{number}"
            spec = await bench.spec(name, argv=argv, workspace=str(tmp_path), **fields)
            ticket = pool.enqueue(name, share_key="tests")
            await ticket.ready()
            launching = asyncio.create_task(pool.launch(spec))
            await asyncio.sleep(0)  # its command is on the way, and the next one follows at once
            await pool.kill(name, grace_s=0)
            await launching  # the kill is behind it in the same pipe
            exited = await bench.exited(name)
            assert (exited.signal, exited.exit_code, exited.usage.stdin_bytes) == (signal.SIGKILL, None, 0), exited


@pytest.mark.parametrize(("cgroups", "count"), [(True, 10_000), (False, 2_000)])
async def test_fault_12_ten_thousand_orphans_leave_no_zombie(tmp_path: Path, cgroups: bool, count: int) -> None:
    """Prevents a subreaper that collects orphans and never buries them."""
    async with local_bench(tmp_path, cgroups=cgroups, workers=2) as (bench, pool):
        orphans = {"do": "orphans", "count": count // 4}
        await asyncio.gather(*(bench.run(f"a{number}", orphans, leave(), timeout_s=90) for number in range(4)))
        workers = set(pool.worker_pids())

        def zombies() -> list[int]:
            stats = {int(name): stat_of(int(name)) for name in os.listdir("/proc") if name.isdigit()}
            return [pid for pid, stat in stats.items() if stat is not None and stat[0] == "Z" and stat[1] in workers]

        async with asyncio.timeout(10):
            while zombies():
                await asyncio.sleep(0.05)


async def test_a_second_attempt_goes_on_in_the_same_logs(tmp_path: Path) -> None:
    """Prevents a retry that overwrites what the first attempt said."""
    async with local_bench(tmp_path, workers=1) as (bench, _):
        await bench.run("a", write("first\n"), leave(1))
        await bench.launch("a", write("second\n"), say({"type": "result", "result": {}}), leave(), attempt=2)
        await bench.fact(AgentExited, lambda fact: fact.attempt == 2)
        assert bench.log("a").startswith(b"first\nsecond\n")
        (record,) = bench.records("a", "result")
        assert record.offset == len(b"first\nsecond\n")

"""What every pool promises (``agentpool.base.Pool``), checked for each implementation."""

from __future__ import annotations

import asyncio
import json
from pathlib import Path

import pytest

from agentpool.base import Pool
from agentpool.errors import LaunchFailed, PoolClosed, PoolDraining, PoolError, PoolFull, UnknownAgent
from agentpool.messages import AgentExited, AgentRecord, AgentStarted, FeedLine, FeedState, InputState
from agentpool.specs import Limits
from agentpool.testing import ignore, leave, result, say, wait, write
from tests.support.pools import POOLS, PoolFactory, bench_of


@pytest.fixture(params=list(POOLS.values()), ids=list(POOLS))
def make_pool(request: pytest.FixtureRequest) -> PoolFactory:
    """Each implementation."""
    factory: PoolFactory = request.param
    return factory


async def test_facts_of_one_agent_come_in_order_and_end_once(make_pool: PoolFactory, tmp_path: Path) -> None:
    """Prevents a result that is shown after the end, or an end that is told twice."""
    async with bench_of(make_pool(), tmp_path) as bench:
        exited = await bench.run("a", say({"type": "progress", "message": "x"}), result("success", n=1), leave(0))
        kinds = [type(fact) for fact in bench.facts if type(fact) in (AgentStarted, AgentRecord, AgentExited)]
        assert kinds == [AgentStarted, AgentRecord, AgentRecord, AgentExited]
        assert [record.kind for record in bench.records("a")] == ["progress", "result"]
        assert (exited.exit_code, exited.signal, exited.ended_by) == (0, None, "")
        assert exited.survivors.count == 0
        assert json.loads(exited.terminal)["outcome"] == "succeeded"


async def test_exit_code_is_the_true_one(make_pool: PoolFactory, tmp_path: Path) -> None:
    """Prevents an exit code that is lost or replaced on its way."""
    async with bench_of(make_pool(), tmp_path) as bench:
        assert (await bench.run("a", leave(7))).exit_code == 7


async def test_offsets_name_the_byte_at_which_a_record_begins(make_pool: PoolFactory, tmp_path: Path) -> None:
    """Prevents records that cannot be found in the log again."""
    async with bench_of(make_pool(), tmp_path) as bench:
        await bench.run("a", write("words\n"), result(), leave())
        (record,) = bench.records("a", "result")
        log = bench.log("a")
        assert log[record.offset :].splitlines()[0] == record.payload
        chunk = await bench.pool.read_output(str(tmp_path / "a"), "stdout", record.offset, 1 << 20)
        assert chunk.data == log[record.offset :]
        assert chunk.next_offset == len(log)
        end = await bench.pool.read_output(str(tmp_path / "a"), "stdout", chunk.next_offset, 10)
        assert (end.data, end.next_offset) == (b"", len(log))


async def test_kill_ends_an_agent_with_the_reason(make_pool: PoolFactory, tmp_path: Path) -> None:
    """Prevents an end whose cause cannot be told from a crash."""
    async with bench_of(make_pool(), tmp_path) as bench:
        await bench.launch("a", say({"type": "progress", "message": "ready"}), wait())
        await bench.said("a")
        await bench.pool.kill("a", reason="unwanted")
        exited = await bench.exited("a")
        assert (exited.exit_code, exited.signal, exited.ended_by) == (None, 15, "unwanted")


async def test_an_agent_that_ignores_term_is_killed_after_the_grace(make_pool: PoolFactory, tmp_path: Path) -> None:
    """Prevents an agent that can refuse to end."""
    async with bench_of(make_pool(), tmp_path) as bench:
        await bench.launch("a", ignore(), say({"type": "progress", "message": "ready"}), wait())
        await bench.said("a")
        await bench.pool.kill("a", grace_s=0.1)
        assert (await bench.exited("a")).signal == 9


async def test_input_reaches_the_agent_and_its_fate_is_told(make_pool: PoolFactory, tmp_path: Path) -> None:
    """Prevents messages that vanish without a trace."""
    async with bench_of(make_pool(), tmp_path) as bench:
        await bench.launch("a", {"do": "echo", "lines": 1}, leave())
        bench.pool.send("a", "m1", b'{"type":"message","message_id":"m1","text":"hello"}')
        await bench.exited("a")
        assert [state for _, state in bench.inputs("a")] == ["queued", "written", "acknowledged"]
        assert json.loads(bench.records("a", "progress")[0].payload)["message"] == "hello"


async def test_input_for_an_agent_without_stdin_is_dead(make_pool: PoolFactory, tmp_path: Path) -> None:
    """Prevents messages that are queued for ever."""
    async with bench_of(make_pool(), tmp_path) as bench:
        await bench.launch("a", wait(), runtime="text")
        bench.pool.send("a", "m1", b"{}")
        state = await bench.fact(InputState, lambda fact: fact.state == "dead")
        assert state.reason == "no_stdin"
        await bench.pool.kill("a", grace_s=0)
        await bench.exited("a")


async def test_an_agent_that_is_ended_is_told_on_stdin(make_pool: PoolFactory, tmp_path: Path) -> None:
    """A pool that only signals: an agent that has no handler for it could not give what it had so far."""
    async with bench_of(make_pool(), tmp_path) as bench:
        steps = (ignore("SIGTERM"), say({"type": "heartbeat"}), {"do": "echo", "lines": 1}, leave(0))
        await bench.launch("a", *steps)
        await bench.said("a", "heartbeat")
        await bench.pool.kill("a", grace_s=30)
        exited = await bench.exited("a")
        assert (exited.exit_code, exited.ended_by) == (0, "killed")
        assert [json.loads(record.payload)["message"] for record in bench.records("a", "progress")] == ["shutdown"]


async def test_a_feed_reaches_all_its_agents_in_order(make_pool: PoolFactory, tmp_path: Path) -> None:
    """Prevents lines of a feed that overtake one another, and a retry that is never answered."""
    lines = [FeedLine(n, json.dumps({"type": "event", "text": f"line {n}"}).encode()) for n in range(1, 4)]
    async with bench_of(make_pool(), tmp_path) as bench:
        for agent_id in ("a", "b"):
            await bench.launch(agent_id, {"do": "echo", "lines": 3}, leave())
        bench.pool.feed(["a", "nobody", "b"], lines[:2])
        bench.pool.feed(["a", "b"], lines[2:], is_retry=True)
        for agent_id in ("a", "b"):
            taken = await bench.fact(FeedState, lambda fact, mine=agent_id: fact.agent_id == mine)  # type: ignore[misc]
            assert (taken.state, taken.sequence, taken.attempt) == ("taken", 3, 1)
            await bench.exited(agent_id)
            said = [json.loads(record.payload)["message"] for record in bench.records(agent_id, "progress")]
            assert said == ["line 1", "line 2", "line 3"]


async def test_a_feed_for_an_agent_without_stdin_is_refused(make_pool: PoolFactory, tmp_path: Path) -> None:
    """Prevents an agent that cannot read from being fed for ever."""
    async with bench_of(make_pool(), tmp_path) as bench:
        await bench.launch("a", wait(), runtime="text")
        bench.pool.feed(["a"], [FeedLine(1, b"{}")])
        assert (await bench.fact(FeedState)).state == "closed"
        await bench.pool.kill("a", grace_s=0)
        await bench.exited("a")


async def test_a_command_that_cannot_start_fails_the_launch_and_frees_the_slot(
    make_pool: PoolFactory, tmp_path: Path
) -> None:
    """Prevents slots that leak with every mistyped command."""
    async with bench_of(make_pool(max_running=1), tmp_path) as bench:
        for _ in range(3):
            with pytest.raises(LaunchFailed) as caught:
                await bench.launch("a", argv=("no-such-command-anywhere",))
            assert (caught.value.reason, caught.value.is_permanent) == ("not_found", True)
            assert caught.value.command == "no-such-command-anywhere"
            assert bench.pool.stats().running == 0
        with pytest.raises(LaunchFailed) as caught:
            await bench.launch("a", wait(), workspace=str(tmp_path / "missing"))
        assert caught.value.reason == "workspace"
        assert (await bench.run("b", leave(0))).exit_code == 0


async def test_unknown_agents_are_refused(make_pool: PoolFactory, tmp_path: Path) -> None:
    """Prevents a kill or a message that silently goes nowhere."""
    async with bench_of(make_pool(), tmp_path) as bench:
        with pytest.raises(UnknownAgent):
            await bench.pool.kill("nobody")
        with pytest.raises(UnknownAgent):
            bench.pool.send("nobody", "m", b"{}")
        await bench.run("a", leave())
        with pytest.raises(UnknownAgent):
            await bench.pool.kill("a")


async def test_slots_are_granted_in_turn_and_the_queue_is_bounded(make_pool: PoolFactory, tmp_path: Path) -> None:
    """Prevents more agents at once than allowed, and a queue that grows for ever."""
    async with bench_of(make_pool(max_running=1, queue_size=2), tmp_path) as bench:
        pool = bench.pool
        await bench.launch("a", wait())
        second = pool.enqueue("b", share_key="s")
        third = pool.enqueue("c", share_key="s", priority="high")
        assert (second.position, third.position) == (2, 1)
        with pytest.raises(PoolFull) as caught:
            pool.enqueue("d", share_key="s")
        assert caught.value.position == 3
        assert caught.value.retry_after_s > 0
        await pool.kill("a", grace_s=0)
        await bench.exited("a")
        async with asyncio.timeout(10):
            await third.ready()
        assert third.position == 0
        third.release()
        async with asyncio.timeout(10):
            await second.ready()
        second.release()
        assert pool.stats().running == 0


async def test_a_launch_needs_a_slot(make_pool: PoolFactory, tmp_path: Path) -> None:
    """Prevents agents that run beside admission."""
    async with bench_of(make_pool(), tmp_path) as bench:
        with pytest.raises(PoolError):
            await bench.pool.launch(await bench.spec("a", leave()))


async def test_drain_takes_nothing_new_and_resume_undoes_it(make_pool: PoolFactory, tmp_path: Path) -> None:
    """Prevents a pool that cannot be run empty for maintenance while callers go on to fill it."""
    async with bench_of(make_pool(max_running=1), tmp_path) as bench:
        await bench.launch("a", wait())
        waiting = bench.pool.enqueue("b", share_key="s")
        bench.pool.drain()
        with pytest.raises(PoolDraining) as caught:
            bench.pool.enqueue("c", share_key="s")
        assert caught.value.retry_after_s > 0
        await bench.pool.kill("a", grace_s=0)
        await bench.exited("a")
        stats = bench.pool.stats()
        assert (stats.is_draining, stats.running, stats.queued, waiting.position) == (True, 0, 1, 1)
        bench.pool.resume()
        await asyncio.wait_for(waiting.ready(), 10)
        assert not bench.pool.stats().is_draining
        waiting.release()


async def test_pause_holds_slots_back(make_pool: PoolFactory, tmp_path: Path) -> None:
    """Prevents a paused pool that goes on starting agents."""
    async with bench_of(make_pool(), tmp_path) as bench:
        bench.pool.pause()
        ticket = bench.pool.enqueue("a", share_key="s")
        assert ticket.position == 1
        assert bench.pool.stats().is_paused
        bench.pool.resume()
        assert ticket.position == 0
        ticket.release()


async def test_stop_ends_all_agents_and_then_the_facts(make_pool: PoolFactory, tmp_path: Path) -> None:
    """Prevents a shutdown that forgets agents or leaves its consumer waiting."""
    pool = make_pool(max_running=1)
    async with bench_of(pool, tmp_path) as bench:
        await bench.launch("a", wait())
        waiting = pool.enqueue("b", share_key="s")
    assert [fact.ended_by for fact in bench.exits("a")] == ["shutdown"]
    with pytest.raises(PoolClosed):
        await waiting.ready()
    with pytest.raises(PoolClosed):
        pool.enqueue("c", share_key="s")


async def test_output_over_the_cap_is_cut_and_said_so(make_pool: PoolFactory, tmp_path: Path) -> None:
    """Prevents an agent that fills the disk, and a cut that nobody is told of."""
    async with bench_of(make_pool(), tmp_path) as bench:
        exited = await bench.run("a", write("0123456789", times=1000), leave(), limits=Limits(output_bytes=4096))
        assert exited.truncated_at == {"stdout": 4096}
        assert exited.usage.stdout_bytes == 10_000
        assert bench.log("a") == (b"0123456789" * 1000)[:4096]
        chunk = await bench.pool.read_output(str(tmp_path / "a"), "stdout", 0, 10)
        assert chunk.truncated_at == 4096


async def test_output_goes_on_in_files_of_bounded_size(make_pool: PoolFactory, tmp_path: Path) -> None:
    """Prevents a single file without bound, and bytes that are lost, doubled or misplaced where one file ends."""
    limits = Limits(output_file_bytes=4096, output_bytes=20_000)
    first, second = b"0123456789" * 1000, b"abcdefghij" * 1500
    async with bench_of(make_pool(), tmp_path) as bench:
        await bench.run("a", write("0123456789", times=1000), leave(1), limits=limits)
        whole = await read_all(bench.pool, tmp_path / "a", 4096)
        assert whole == first
        await bench.launch("a", write("abcdefghij", times=1500), leave(), attempt=2, limits=limits)
        exited = await bench.fact(AgentExited, lambda fact: fact.attempt == 2)
        assert exited.truncated_at == {"stdout": 20_000}
        assert exited.stdout_tail == (first + second)[20_000 - 4096 : 20_000]
        for step in (1000, 4096, 5000, 1 << 20):
            assert await read_all(bench.pool, tmp_path / "a", step) == (first + second)[:20_000]
        sizes = {path.name: path.stat().st_size for path in (tmp_path / "a").glob("stdout.log*")}
        assert sizes == {f"stdout.log.{n}": min(4096, 20_000 - n) for n in range(4096, 20_000, 4096)} | {
            "stdout.log": 4096
        }
        chunk = await bench.pool.read_output(str(tmp_path / "a"), "stdout", 20_000, 10)
        assert (chunk.data, chunk.next_offset, chunk.truncated_at) == (b"", 20_000, 20_000)


async def read_all(pool: Pool, directory: Path, step: int) -> bytes:
    """A stream from its first byte on, ``step`` bytes at a time."""
    data = b""
    while (chunk := await pool.read_output(str(directory), "stdout", len(data), step)).data:
        assert chunk.offset == len(data)
        assert len(chunk.data) <= step
        data += chunk.data
        assert chunk.next_offset == len(data)
    return data

"""Faults 27–33: lines and floods that must not break the reader, and what an agent finds open."""

from __future__ import annotations

import json
import os
import signal
import sys
from pathlib import Path

import msgspec
import psutil
import pytest

from agentpool.messages import AgentExited, FeedLine, FeedState, InputState, WorkerLost
from agentpool.specs import Limits
from agentpool.streams import truncation_path
from agentpool.testing import leave, result, say, wait, write
from tests.support.pools import Bench, descriptors_of, is_living, local_bench
from tests.support.waiting import until_async

pytestmark = pytest.mark.chaos


def reasons(bench: Bench, agent_id: str) -> list[str]:
    """Why lines were refused, in order."""
    return [json.loads(record.payload)["reason"] for record in bench.records(agent_id, "bad_line")]


async def test_fault_27_a_line_over_64_kib_is_a_record(tmp_path: Path) -> None:
    """Prevents the 64 KiB limit of asyncio's StreamReader."""
    async with local_bench(tmp_path, workers=1) as (bench, _):
        await bench.run("a", result("success", text="x" * 900_000), leave())
        (record,) = bench.records("a", "result")
        assert len(msgspec.json.decode(record.payload)["result"]["text"]) == 900_000


async def test_a_line_over_one_mib_is_kept_and_not_parsed(tmp_path: Path) -> None:
    """Prevents a single line from filling the memory of the worker."""
    async with local_bench(tmp_path, workers=1) as (bench, _):
        await bench.run(
            "a", result("success", text="x" * 50_000), write("y" * 1_100_000 + "\n"), result("partial"), leave()
        )
        assert reasons(bench, "a") == ["too_long"]
        assert len(bench.records("a", "result")) == 2
        assert b"y" * 1_100_000 in bench.log("a")


async def test_fault_28_a_huge_stream_without_a_newline(tmp_path: Path, chaos_rounds: int) -> None:
    """Prevents memory that grows with a line that never ends (over a GiB, and so over the cap, in the long run)."""
    megabytes = 128 if chaos_rounds == 1 else 1100
    async with local_bench(tmp_path, workers=1) as (bench, pool):
        (worker,) = pool.worker_pids()
        before = psutil.Process(worker).memory_info().rss
        exited = await bench.run(
            "a", write("z" * 1024, times=megabytes * 1024), write("\n"), result(), leave(), timeout_s=120
        )
        grown = psutil.Process(worker).memory_info().rss - before
        assert exited.usage.stdout_bytes > megabytes << 20
        kept = sum(path.stat().st_size for path in (tmp_path / "a").glob("stdout.log*"))
        assert kept == min(exited.usage.stdout_bytes, Limits().output_bytes)
        assert exited.truncated_at == ({"stdout": kept} if kept < exited.usage.stdout_bytes else {})
        assert reasons(bench, "a") == ["too_long"]
        assert len(bench.records("a", "result")) == 1
        assert grown < 16 << 20


async def test_fault_29_a_flood_on_stderr_while_stdout_is_parsed(tmp_path: Path) -> None:
    """Prevents the deadlock of reading one pipe while the agent blocks on the other."""
    flood = [
        step
        for _ in range(20)
        for step in (write("e" * 1000 + "\n", stream="stderr", times=1000), say({"type": "heartbeat"}))
    ]
    async with local_bench(tmp_path, workers=1) as (bench, _):
        exited = await bench.run("a", *flood, leave())
        assert exited.usage.stderr_bytes == 20 * 1000 * 1001
        assert len(bench.records("a", "heartbeat")) == 20
        assert bench.log("a", "stderr") == (b"e" * 1000 + b"\n") * 20_000


@pytest.mark.parametrize("runtime", ["jsonl", "text"])
async def test_fault_29_floods_are_followed_across_their_files(tmp_path: Path, runtime: str) -> None:
    """Prevents bytes that a follower misses, or sees twice, where a flood goes on in its next file."""
    lines = 400_000
    limits = Limits(output_file_bytes=1 << 20)
    script = f"seq {lines} | tee /dev/stderr"
    async with local_bench(tmp_path, workers=1) as (bench, pool):
        (worker,) = pool.worker_pids()
        await bench.run("warm-up", leave())
        before = descriptors_of(worker)
        await bench.launch("a", argv=("sh", "-c", script), runtime=runtime, limits=limits)
        seen = {"stdout": b"", "stderr": b""}
        is_over = False
        while True:
            grown = False
            for stream in seen:
                chunk = await pool.read_output(str(tmp_path / "a"), stream, len(seen[stream]), 100_000)
                seen[stream] += chunk.data
                grown = grown or bool(chunk.data)
            if is_over and not grown:
                break
            is_over = bool(bench.exits("a"))
        expected = b"".join(b"%d\n" % number for number in range(1, lines + 1))
        assert seen == {"stdout": expected, "stderr": expected}
        exited = await bench.exited("a")
        assert exited.usage.stdout_bytes == exited.usage.stderr_bytes == len(expected)
        assert exited.stdout_tail == expected[-4096:]
        sizes = [path.stat().st_size for path in (tmp_path / "a").glob("std*.log*")]
        assert max(sizes) == 1 << 20
        assert len(sizes) == 2 * -(-len(expected) // (1 << 20))
        assert descriptors_of(worker) == before


async def test_the_end_of_a_lost_worker_tells_the_last_file(tmp_path: Path) -> None:
    """Prevents the end of an agent from showing its first file's tail when nobody but the logs can tell."""
    async with local_bench(tmp_path, workers=1) as (bench, pool):
        text = "0123456789" * 2000 + "\n"
        limits = Limits(output_file_bytes=4096, output_bytes=100_000)
        await bench.launch("a", write(text), say({"type": "heartbeat"}), wait(), limits=limits)
        await bench.said("a", "heartbeat")
        os.kill(pool.worker_pids()[0], signal.SIGKILL)
        exited = await bench.exited("a")
        assert exited.ended_by == "worker_lost"
        assert exited.usage.stdout_bytes > 20_000
        assert (text.encode()[-1000:] + b'{"type"') in exited.stdout_tail


async def test_the_end_of_a_lost_worker_tells_of_its_own_attempt_and_where_it_was_cut(tmp_path: Path) -> None:
    """Prevents an attempt from showing what the one before wrote, and a stream that was cut from seeming whole."""
    async with local_bench(tmp_path, workers=1) as (bench, pool):
        limits = Limits(output_bytes=8000)
        await bench.run("a", write("first\n"), write("first\n", stream="stderr"), leave(1), limits=limits)
        flood = [write("x" * 10_000), write("second\n", stream="stderr")]
        begins = {"stdout": 6, "stderr": 6}
        await bench.launch("a", *flood, wait(), attempt=2, limits=limits, output_begins=begins)
        mark = Path(truncation_path(str(tmp_path / "a"), "stdout"))
        await until_async(lambda: mark.exists() and mark.read_text() == "8000 cap 6", what="stdout is cut")
        await until_async(lambda: bench.log("a", "stderr") == b"first\nsecond\n", what="stderr is there")
        os.kill(pool.worker_pids()[0], signal.SIGKILL)
        await bench.fact(WorkerLost)
        second = bench.exits("a")[-1]
        assert (second.attempt, second.stdout_tail, second.stderr_tail) == (2, b"x" * 4096, b"second\n")
        assert (second.usage.stdout_bytes, second.usage.stderr_bytes) == (7994, 7)
        assert (second.truncated_at, second.truncated_by) == ({"stdout": 8000}, {"stdout": "cap"})
        await until_async(lambda: bool(pool.worker_pids()), what="another worker")
        begins = {"stdout": 8000, "stderr": 13}
        await bench.launch("a", wait(), attempt=3, limits=limits, output_begins=begins)
        os.kill(pool.worker_pids()[0], signal.SIGKILL)
        third = await bench.fact(AgentExited, lambda fact: fact.attempt == 3)
        assert (third.stdout_tail, third.stderr_tail, third.truncated_at) == (b"", b"", {})
        assert (third.usage.stdout_bytes, third.usage.stderr_bytes) == (0, 0)


async def test_fault_30_a_torn_last_line_is_never_a_result(tmp_path: Path) -> None:
    """Prevents half a result from counting because it happens to parse."""
    async with local_bench(tmp_path, workers=1) as (bench, _):
        whole = '{"type":"result","result":{"status":"success"}}'
        await bench.launch("a", say({"type": "progress", "message": "x"}), write(whole), wait())
        await bench.said("a")
        await until_async(lambda: bench.log("a").endswith(whole.encode()))
        await bench.pool.kill("a", grace_s=0)
        exited = await bench.exited("a")
        assert bench.records("a", "result") == []
        assert exited.terminal == b""
        assert bench.log("a").endswith(whole.encode())


BAD_LINES = {
    "not_finite": b'{"type":"result","result":{"n":NaN}}',
    "not_finite ": b'{"type":"result","result":{"n":1e999}}',
    "integer_too_large": b'{"type":"result","result":{"n":' + b"9" * 5000 + b"}}",
    "too_deep": b'{"type":"result","result":' + b"[" * 100_000 + b"]" * 100_000 + b"}",
    "too_deep ": b"[" * 100_000,
    "lone_surrogate": b'{"type":"result","result":{"s":"\\ud800"}}',
    "duplicate_key": b'{"type":"result","result":{"a":1,"a":2}}',
    "not_utf8": b'{"type":"result","result":{"s":"\xff\xfe"}}',
    "not_utf8 ": b"\x80\x81 words",
    "not_json": b'{"type":"result","result":{',
    "result_not_an_object": b'{"type":"result","result":[]}',
}


async def test_fault_31_each_unacceptable_line_is_one_bad_line_and_the_stream_lives(tmp_path: Path) -> None:
    """Prevents ValueError, RecursionError and surrogates of a line from ending the reader or reaching a store."""
    async with local_bench(tmp_path, workers=1) as (bench, _):
        lines = [write(data=line + b"\n") for line in BAD_LINES.values()]
        exited = await bench.run("a", *lines, result("success"), leave())
        assert reasons(bench, "a") == [reason.strip() for reason in BAD_LINES]
        assert len(bench.records("a", "result")) == 1
        assert bench.log("a").startswith(b"\n".join(BAD_LINES.values()))
        assert exited.exit_code == 0


async def test_a_flood_of_binary_goes_to_the_log_and_not_up(tmp_path: Path) -> None:
    """Prevents an agent from flooding the supervisor with reports of its bad lines."""
    async with local_bench(tmp_path, workers=1) as (bench, _):
        exited = await bench.run("a", write(data=b"\xff\x00\n", times=200_000), result(), leave())
        assert len(bench.records("a", "bad_line")) == 100
        assert len(bench.records("a", "result")) == 1
        assert exited.usage.stdout_bytes == (tmp_path / "a" / "stdout.log").stat().st_size


async def test_fault_32_identity_comes_from_the_pipe(tmp_path: Path) -> None:
    """Prevents one agent from speaking in another's name."""
    async with local_bench(tmp_path, workers=1) as (bench, _):
        await bench.launch("victim", wait())
        await bench.run(
            "liar", say({"type": "result", "agent_id": "victim", "result": {"agent_id": "victim"}}), leave()
        )
        assert bench.records("victim") == []
        assert len(bench.records("liar", "result")) == 1


@pytest.mark.parametrize("runtime", ["jsonl", "python"])
async def test_fault_33_an_agent_finds_three_descriptors(tmp_path: Path, runtime: str) -> None:
    """Prevents pipes, sockets or files of the worker, and of other agents, from reaching an agent."""
    (tmp_path / "seen.py").write_text(
        "import os\ndef main(agent):\n"
        "    return {'status': 'success', 'fds': sorted(int(n) for n in os.listdir('/proc/self/fd'))[:-1]}\n",
        encoding="utf-8",
    )
    async with local_bench(tmp_path, workers=1) as (bench, _):
        for number in range(3):
            await bench.launch(f"other{number}", wait())
        if runtime == "python":
            await bench.run("a", argv=("seen:main",), runtime="python", workspace=str(tmp_path))
            shown = json.loads(bench.records("a", "result")[0].payload)["result"]["fds"]
        else:
            await bench.run("a", {"do": "show", "what": "descriptors"}, leave())
            shown = json.loads(bench.records("a", "progress")[0].payload)["value"]
        assert shown == [0, 1, 2]


async def test_an_agent_that_does_not_read_is_bounded_and_reported(tmp_path: Path) -> None:
    """Prevents messages to a deaf agent from piling up in the worker, or blocking it."""
    async with local_bench(tmp_path, workers=1, input_bytes=256 << 10) as (bench, pool):
        await bench.launch("deaf", wait())
        line = json.dumps({"type": "message", "text": "x" * 10_000}).encode()
        for number in range(100):
            pool.send("deaf", f"m{number}", line)
        full = await bench.fact(InputState, lambda fact: fact.reason == "stdin_full")
        assert full.state == "dead"
        assert (await bench.run("other", leave())).exit_code == 0
        await pool.kill("deaf", grace_s=0)
        await bench.exited("deaf")
        last = dict(bench.inputs("deaf"))
        assert set(last.values()) == {"written", "dead"}
        ends = [fact.reason for fact in bench.facts if isinstance(fact, InputState) and fact.state == "dead"]
        assert {"stdin_full"} < set(ends) <= {"stdin_full", "stdin_closed", "agent_ended"}


#: Ignores TERM, and gives its result when it is told on stdin that it is being ended.
OBEDIENT = """
import signal, sys
signal.signal(signal.SIGTERM, signal.SIG_IGN)
print('{"type":"heartbeat"}', flush=True)
for line in sys.stdin:
    if line == '{"type":"shutdown"}\\n':
        print('{"type":"result","result":{"status":"partial"}}', flush=True)
        sys.exit(0)
"""


@pytest.mark.parametrize("by", ["kill", "wall_limit", "stop"])
async def test_an_agent_that_is_ended_is_told_on_stdin(tmp_path: Path, by: str) -> None:
    """An agent that is being ended never got the protocol's ``shutdown``, and could not give what it had so far."""
    limits = Limits(wall_s=1.0) if by == "wall_limit" else Limits()
    async with local_bench(tmp_path, workers=1) as (bench, pool):
        await bench.launch("a", argv=(sys.executable, "-c", OBEDIENT), limits=limits, grace_s=30)
        await bench.said("a", "heartbeat")
        if by == "kill":
            await pool.kill("a", grace_s=30)
        elif by == "stop":
            await pool.stop(grace_s=30)
        exited = await bench.exited("a")
        assert (exited.exit_code, exited.ended_by) == (0, {"kill": "killed", "stop": "shutdown"}.get(by, by))
        assert len(bench.records("a", "result")) == 1
        assert exited.usage.stdin_bytes == len('{"type":"shutdown"}\n')


@pytest.mark.parametrize("how", ["closed", "full", "none"])
async def test_an_agent_that_cannot_be_told_is_ended_all_the_same(tmp_path: Path, how: str) -> None:
    """Prevents a word on stdin that keeps the signal from following it."""
    argv: tuple[str, ...] = ("/bin/sh", "-c", 'exec 0<&-; echo "{\\"type\\":\\"heartbeat\\"}"; exec sleep 600')
    if how != "closed":
        argv = ("/bin/sleep", "600")
    async with local_bench(tmp_path, workers=1, input_bytes=256 << 10) as (bench, pool):
        await bench.launch("a", argv=argv, runtime="text" if how == "none" else "jsonl")
        if how == "closed":
            await bench.said("a", "heartbeat")
        elif how == "full":
            for number in range(2):
                pool.send("a", f"m{number}", b"x" * (200 << 10))
            await bench.fact(InputState, lambda fact: fact.reason == "stdin_full")
        await pool.kill("a", grace_s=30)
        exited = await bench.exited("a")
        assert (exited.signal, exited.ended_by, exited.survivors.count) == (signal.SIGTERM, "killed", 0)


async def test_a_full_feed_refuses_all_that_follows_until_it_is_tried_again(tmp_path: Path) -> None:
    """Prevents a small line that overtakes a large one for which there was no room."""
    go = tmp_path / "go"
    code = f"import os, sys, time\nwhile not os.path.exists({str(go)!r}): time.sleep(0.01)\nsys.stdin.read(1 << 18)"
    large, small = b'"' + b"x" * 60_000 + b'"', b'"x"'
    async with local_bench(tmp_path, workers=1, input_bytes=128 << 10) as (bench, pool):
        await bench.launch("late", argv=(sys.executable, "-c", f"{code}\nsys.stdin.read()"))
        pool.feed(["late"], [FeedLine(n, large) for n in range(1, 9)])
        for n in range(9, 19):
            pool.feed(["late"], [FeedLine(n, small)])
        full = await bench.fact(FeedState)
        assert full.state == "full"
        assert 1 < full.sequence < 8
        pool.feed(["late"], [FeedLine(full.sequence, large)], is_retry=True)
        again = await bench.fact(FeedState, lambda fact: fact is not full)
        assert (again.state, again.sequence) == ("full", full.sequence)
        go.touch()
        await bench.fact(FeedState, lambda fact: fact.state == "ready")
        pool.feed(["late"], [FeedLine(full.sequence, large)], is_retry=True)
        taken = await bench.fact(FeedState, lambda fact: fact.state == "taken")
        assert taken.sequence == full.sequence
        states = [fact.state for fact in bench.facts if isinstance(fact, FeedState)]
        assert states == ["full", "full", "ready", "taken"]
        await pool.kill("late", grace_s=0)
        await bench.exited("late")


async def test_a_slow_consumer_slows_the_flood_and_loses_nothing(tmp_path: Path) -> None:
    """Prevents memory that grows with a supervisor that is behind, and records that are dropped to avoid it."""
    line = json.dumps({"type": "log", "message": "x" * 2000})
    async with local_bench(tmp_path, workers=1, fact_buffer_bytes=1 << 20) as (bench, pool):
        bench.is_consuming.clear()
        started = await bench.launch("a", write(line + "\n", times=20_000), result(), leave())
        log = tmp_path / "a" / "stdout.log"

        def has_stalled() -> bool:
            (worker,) = pool.worker_pids()
            return (
                log.stat().st_size > 4 << 20
                and psutil.Process(started.pid).status() == psutil.STATUS_SLEEPING
                and is_living(worker)
            )

        await until_async(has_stalled)
        assert log.stat().st_size < 30 << 20
        bench.is_consuming.set()
        exited = await bench.exited("a", timeout_s=60)
        assert exited.exit_code == 0
        assert len(bench.records("a", "log")) == 20_000
        assert len(bench.records("a", "result")) == 1


async def test_a_closed_reader_is_not_an_agents_problem(tmp_path: Path) -> None:
    """Prevents SIGPIPE dispositions of the worker from reaching agents: theirs is the default."""
    async with local_bench(tmp_path, workers=1) as (bench, _):
        exited = await bench.run("a", argv=("sh", "-c", "yes | head -n1; exit 0"), runtime="text")
        assert (exited.exit_code, bench.log("a"), bench.log("a", "stderr")) == (0, b"y\n", b"")
        killed = await bench.run("b", {"do": "signal_self", "signal": "SIGPIPE"}, leave())
        assert killed.signal == signal.SIGPIPE

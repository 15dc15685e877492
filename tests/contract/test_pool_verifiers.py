"""What every pool promises of verifiers (``agentpool.specs.Verifier``)."""

from __future__ import annotations

import os
import sys
from collections.abc import Callable
from contextlib import AbstractAsyncContextManager
from pathlib import Path

import pytest

from agentpool.messages import AgentExited, InputState, VerifierStarted
from agentpool.specs import Limits, Verifier
from agentpool.testing import Step, child, ignore, leave, result, say, script, wait, write
from tests.support.pools import POOLS, Bench, PoolFactory, bench_of, is_living, local_bench
from tests.support.processes import processes_with
from tests.support.waiting import until_async

OpenBench = Callable[[], AbstractAsyncContextManager[Bench]]
NONCE = "ORCHESTRATOR_AGENT_NONCE"
READY = say({"type": "progress", "message": "ready"})


@pytest.fixture(params=list(POOLS.values()), ids=list(POOLS))
def open_bench(request: pytest.FixtureRequest, tmp_path: Path) -> OpenBench:
    """Opens each implementation."""
    factory: PoolFactory = request.param
    return lambda: bench_of(factory(), tmp_path)


def verifier(bench: Bench, *steps: Step, timeout_s: float = 30.0) -> Verifier:
    """One that does these steps, for agent ``a``."""
    env = {"PATH": os.environ.get("PATH", os.defpath), NONCE: f"{bench.mark}-a"}
    return Verifier(argv=script(sys.executable, *steps), env=env, timeout_s=timeout_s)


async def test_a_verifiers_word_comes_with_the_end(open_bench: OpenBench) -> None:
    """Work that nobody has looked at is told as done, or a complaint without its words."""
    async with open_bench() as bench:
        refusing = verifier(bench, write("two tests failed\n"), write("see above\n", stream="stderr"), leave(3))
        exited = await bench.run("a", result("success"), leave(), verifier=refusing)
        checked = exited.verification
        assert checked is not None
        assert (exited.exit_code, exited.ended_by) == (0, "")
        assert (checked.exit_code, checked.signal, checked.is_passed) == (3, None, False)
        assert checked.output_tail == b"two tests failed\nsee above"
        assert checked.command == refusing.argv
        kinds = [type(fact) for fact in bench.facts if isinstance(fact, VerifierStarted | AgentExited)]
        assert kinds == [VerifierStarted, AgentExited]
        assert (bench.directory / "a" / "verify-1" / "stdout.log").read_bytes() == b"two tests failed\n"
        assert b"two tests" not in bench.log("a")


async def test_a_verifier_that_is_content_says_so(open_bench: OpenBench) -> None:
    """A check whose success cannot be told from none."""
    async with open_bench() as bench:
        exited = await bench.run("a", leave(), verifier=verifier(bench, leave()))
        assert exited.verification is not None
        assert exited.verification.is_passed


@pytest.mark.parametrize(
    "steps",
    [
        (leave(3),),
        (result("failed"), leave()),
        (say({"type": "result", "result": {}, "outcome": "quota"}), leave()),
    ],
    ids=["code", "complaint", "quota"],
)
async def test_what_has_failed_already_is_not_verified(open_bench: OpenBench, steps: tuple[Step, ...]) -> None:
    """Minutes of tests over work that says itself that it is not done."""
    async with open_bench() as bench:
        exited = await bench.run("a", *steps, verifier=verifier(bench, leave()))
        assert exited.verification is None
        assert not [fact for fact in bench.facts if isinstance(fact, VerifierStarted)]


async def test_a_verifier_that_cannot_start_passes_nothing(open_bench: OpenBench) -> None:
    """A missing program that counts as a good word."""
    async with open_bench() as bench:
        missing = Verifier(argv=("no-such-program-at-all",), env={}, timeout_s=30.0)
        exited = await bench.run("a", leave(), verifier=missing)
        assert exited.verification is not None
        assert not exited.verification.is_passed
        assert "no such command" in exited.verification.error


async def test_a_kill_ends_the_verifier_too(open_bench: OpenBench) -> None:
    """An agent that cannot be ended while its work is looked at, or whose end is told as its own."""
    async with open_bench() as bench:
        await bench.launch("a", leave(), verifier=verifier(bench, wait()))
        started = await bench.fact(VerifierStarted)
        await bench.pool.kill("a", reason="unwanted")
        exited = await bench.exited("a")
        assert (exited.exit_code, exited.ended_by, exited.survivors.count) == (0, "unwanted", 0)
        assert not is_living(started.pid)
        assert len(bench.exits("a")) == 1
        assert bench.pool.stats().running == 0


@pytest.mark.parametrize("cgroups", [True, False], ids=["cgroups", "no-cgroups"])
async def test_nothing_of_a_verifier_is_left(tmp_path: Path, cgroups: bool) -> None:
    """What tests start in the background outlived them: servers, watchers, daemons."""
    async with local_bench(tmp_path, workers=1, cgroups=cgroups) as (bench, _):
        strays = [child(how, ignore(), wait()) for how in ("fork", "setsid", "daemon")]
        exited = await bench.run("a", result(), leave(), verifier=verifier(bench, *strays, leave()))
        assert exited.verification is not None
        assert exited.verification.is_passed
        assert exited.survivors.count == 0
        assert exited.survivors.swept >= 1
        assert processes_with(bench.mark) == []


@pytest.mark.parametrize("cgroups", [True, False], ids=["cgroups", "no-cgroups"])
async def test_a_kill_between_agent_and_verifier_ends_both(tmp_path: Path, cgroups: bool) -> None:
    """A kill that came while the rest of the tree was ended was forgotten, and the check began after it."""
    async with local_bench(tmp_path, workers=1, cgroups=cgroups) as (bench, pool):
        rest = child("fork", ignore(), READY, wait())
        started = await bench.launch("a", rest, leave(), verifier=verifier(bench, wait()))
        await until_async(lambda: not is_living(started.pid), what="the end of the leader")
        await pool.kill("a", grace_s=0.1, reason="unwanted")
        exited = await bench.exited("a")
        assert (exited.exit_code, exited.ended_by, exited.survivors.count) == (0, "unwanted", 0)
        assert processes_with(bench.mark) == []


async def test_a_pool_that_stops_waits_for_no_verifier(tmp_path: Path) -> None:
    """A sidecar that could not be stopped before the last tests were through."""
    async with local_bench(tmp_path, workers=1) as (bench, pool):
        await bench.launch("a", leave(), verifier=verifier(bench, wait()))
        await bench.fact(VerifierStarted)
        await pool.stop(grace_s=0.5)
        assert (await bench.exited("a")).ended_by == "shutdown"
        assert processes_with(bench.mark) == []


async def test_a_verifier_has_a_time_of_its_own(tmp_path: Path) -> None:
    """Tests that hang held the agent's slot for ever."""
    async with local_bench(tmp_path, workers=1) as (bench, _):
        slow = verifier(bench, ignore(), wait(), timeout_s=0.2)
        exited = await bench.run("a", leave(), verifier=slow, grace_s=0.1)
        assert exited.verification is not None
        assert (exited.ended_by, exited.verification.ended_by) == ("", "wall_limit")
        assert (exited.verification.signal, exited.verification.is_passed) == (9, False)


async def test_a_verifier_is_limited_like_its_agent(tmp_path: Path) -> None:
    """A check that eats the memory which its agent may not have."""
    async with local_bench(tmp_path, workers=1) as (bench, _):
        burning = Verifier(argv=("/bin/sh", "-c", "ulimit -n"), env={NONCE: f"{bench.mark}-a"}, timeout_s=30.0)
        exited = await bench.run("a", leave(), verifier=burning, limits=Limits(open_files=77))
        assert exited.verification is not None
        assert exited.verification.output_tail == b"77"


async def test_what_is_sent_during_the_check_is_dead(tmp_path: Path) -> None:
    """A message to an agent that has gone home waited for ever."""
    async with local_bench(tmp_path, workers=1) as (bench, pool):
        await bench.launch("a", leave(), verifier=verifier(bench, wait()))
        await bench.fact(VerifierStarted)
        pool.send("a", "m1", b"{}")
        state = await bench.fact(InputState, lambda fact: fact.message_id == "m1")
        assert (state.state, state.reason) == ("dead", "stdin_closed")
        await pool.kill("a", grace_s=0)
        await bench.exited("a")


async def test_two_attempts_have_two_checks(open_bench: OpenBench) -> None:
    """The log of one attempt's check went on in the next one's."""
    async with open_bench() as bench:
        for attempt in (1, 2):
            await bench.launch(
                "a", leave(), verifier=verifier(bench, write(f"check {attempt}"), leave()), attempt=attempt
            )
            await bench.fact(AgentExited, lambda fact, attempt=attempt: fact.attempt == attempt)  # type: ignore[misc]
        logs = [(bench.directory / "a" / f"verify-{attempt}" / "stdout.log").read_text() for attempt in (1, 2)]
        assert logs == ["check 1", "check 2"]

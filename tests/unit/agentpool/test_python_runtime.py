"""Warm Python agents, from the outside."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import subprocess
import sys
from pathlib import Path
from typing import Any

import pytest

from agentpool.errors import LaunchFailed
from tests.support.pools import Bench, local_bench, stat_of

AGENTS = """
import os, random, sys, threading, time

def gives(agent):
    return {"status": "success", "id": agent.id, "task": agent.task}

def silent(agent):
    agent.log("nothing to give")

def breaks(agent):
    raise ValueError("the reason")

def leaves(agent):
    sys.exit(int(agent.task))

def complains(agent):
    sys.exit("a text")

def not_json(agent):
    return {"status": object()}

def looks(agent):
    return {
        "status": "success", "env": dict(os.environ), "cwd": os.getcwd(), "path": sys.path[0],
        "random": random.random(), "session": os.getsid(0) == os.getpid(), "threads": threading.active_count(),
        "preloaded": "colorsys" in sys.modules,
    }

def signals(agent):
    lines = [line.split() for line in open("/proc/self/status") if line.startswith(("SigBlk", "SigIgn", "SigCgt"))]
    # The C library keeps 32 and 33 for itself.
    return {"status": "success", "changed": [line[0] for line in lines if int(line[1], 16) & 0x7FFFFFFF]}

def threads(agent):
    def late():
        time.sleep(0.2)
        agent.result({"status": "success", "late": True})
    threading.Thread(target=late).start()

def listens(agent):
    for message in agent.messages():
        agent.progress(message["text"])
        return {"status": "success"}
"""


@pytest.fixture
def place(tmp_path: Path) -> dict[str, Any]:
    """A workspace with agents in it."""
    (tmp_path / "agents_of_test.py").write_text(AGENTS, encoding="utf-8")
    return {"runtime": "python", "workspace": str(tmp_path)}


def result_of(bench: Bench, agent_id: str) -> dict[str, Any]:
    """The last result of an agent."""
    payload: dict[str, Any] = json.loads(bench.records(agent_id, "result")[-1].payload)
    result: dict[str, Any] = payload["result"]
    return result


async def test_a_returned_mapping_is_the_result(tmp_path: Path, place: dict[str, Any]) -> None:
    """Prevents results that are lost between a function and its pipe."""
    async with local_bench(tmp_path, workers=1) as (bench, _):
        env = {"AGENT_ID": "me", "AGENT_TASK": "do it"}
        exited = await bench.run("a", argv=("agents_of_test:gives",), env=env, **place)
        assert exited.exit_code == 0
        assert result_of(bench, "a") == {"status": "success", "id": "me", "task": "do it"}
        silent = await bench.run("b", argv=("agents_of_test:silent",), **place)
        assert (silent.exit_code, bench.records("b", "result")) == (0, [])


@pytest.mark.parametrize(
    ("target", "code", "said"),
    [
        ("agents_of_test:breaks", 1, b"ValueError: the reason"),
        ("agents_of_test:missing", 1, b"agents_of_test:missing: cannot be loaded"),
        ("no_such_module_here:main", 1, b"No module named 'no_such_module_here'"),
        ("agents_of_test:AGENT", 1, b"cannot be loaded"),
        ("agents_of_test:complains", 1, b"a text"),
        ("agents_of_test:not_json", 1, b"not JSON serializable"),
    ],
)
async def test_failures_are_the_agents_and_clear(
    tmp_path: Path, place: dict[str, Any], target: str, code: int, said: bytes
) -> None:
    """Prevents an agent's mistake from being a crash of its parent, or silent."""
    async with local_bench(tmp_path, workers=1) as (bench, _):
        exited = await bench.run("a", argv=(target,), **place)
        assert exited.exit_code == code
        assert said in exited.stderr_tail
        assert (await bench.run("b", argv=("agents_of_test:gives",), **place)).exit_code == 0


async def test_exit_statuses_are_respected(tmp_path: Path, place: dict[str, Any]) -> None:
    """Prevents ``sys.exit`` from meaning something else than in a program."""
    async with local_bench(tmp_path, workers=1) as (bench, _):
        for number in (0, 7, 255):
            env = {"AGENT_TASK": str(number)}
            exited = await bench.run(f"a{number}", argv=("agents_of_test:leaves",), env=env, **place)
            assert exited.exit_code == number


async def test_what_a_forked_agent_finds(tmp_path: Path, place: dict[str, Any]) -> None:
    """Prevents agents that share their random numbers, or find anything of the worker's or another's."""
    async with local_bench(tmp_path, workers=1, preload=("colorsys",)) as (bench, _):
        first = await bench.launch("a", argv=("agents_of_test:looks",), env={"SECRET": "of a"}, **place)
        await bench.exited("a")
        await bench.run("b", argv=("agents_of_test:looks",), **place)
        one, two = result_of(bench, "a"), result_of(bench, "b")
        assert one["random"] != two["random"]
        assert one["env"]["SECRET"] == "of a"
        assert set(two["env"]) == {"PATH", "ORCHESTRATOR_AGENT_NONCE"}
        assert one["cwd"] == one["path"] == str(tmp_path)
        assert one["session"]
        assert one["threads"] == 1
        assert one["preloaded"]
        assert stat_of(first.pid) is None


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
async def test_a_forked_agent_has_the_signals_of_a_new_program(tmp_path: Path, place: dict[str, Any]) -> None:
    """Prevents agents that cannot be ended, or see their own children's ends as interruptions."""
    async with local_bench(tmp_path, workers=1) as (bench, _):
        await asyncio.gather(*(bench.run(name, argv=("agents_of_test:signals",), **place) for name in "abc"))
        for name in "abc":
            assert result_of(bench, name)["changed"] == []


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="reads /proc")
async def test_what_a_background_shell_ignores_is_not_passed_on(tmp_path: Path, place: dict[str, Any]) -> None:
    """Agents of a sidecar that was started with ``nohup`` or ``&`` could not be interrupted."""
    ignored = (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP, signal.SIGUSR1)
    before = [signal.signal(number, signal.SIG_IGN) for number in ignored]
    try:
        async with local_bench(tmp_path, workers=1) as (bench, _):
            await bench.run("a", argv=("agents_of_test:signals",), **place)
            assert result_of(bench, "a")["changed"] == []
    finally:
        for number, handler in zip(ignored, before, strict=True):
            signal.signal(number, handler)


async def test_agents_that_are_started_together_keep_what_is_each_ones_own(
    tmp_path: Path, place: dict[str, Any]
) -> None:
    """Prevents orders that are torn or mixed up where more come than go in one message, or an end that is not seen."""
    async with local_bench(tmp_path, workers=1) as (bench, _):
        names = [f"a{number}" for number in range(40)]
        starts = (
            bench.run(name, argv=("agents_of_test:gives",), env={"AGENT_ID": name, "AGENT_TASK": "é\n" * 400}, **place)
            for name in names
        )
        ends = await asyncio.gather(*starts)
        assert [end.exit_code for end in ends] == [0] * len(names)
        for name in names:
            assert result_of(bench, name) == {"status": "success", "id": name, "task": "é\n" * 400}


def test_the_warm_parent_holds_little() -> None:
    """Each page of the parent costs every agent: an import too many made their starts a quarter slower."""
    root = Path(__file__).parents[3]
    heavy = {"asyncio", "msgspec", "random", "subprocess", "threading", "traceback", "typing"}
    code = f"import agentpool.zygote, sys; print(sorted({heavy!r} & set(sys.modules)))"
    found = subprocess.run(
        [sys.executable, "-S", "-c", code], check=True, capture_output=True, text=True, cwd=root, timeout=60
    )
    assert found.stdout.strip() == "[]"


async def test_threads_and_messages_work_as_in_a_program(tmp_path: Path, place: dict[str, Any]) -> None:
    """Prevents an exit that cuts off non-daemon threads, and a stdin that is the parent's."""
    async with local_bench(tmp_path, workers=1) as (bench, pool):
        await bench.run("a", argv=("agents_of_test:threads",), **place)
        assert result_of(bench, "a")["late"] is True
        await bench.launch("b", argv=("agents_of_test:listens",), **place)
        pool.send("b", "m", b'{"type":"message","message_id":"m","text":"hello"}')
        await bench.exited("b")
        assert json.loads(bench.records("b", "progress")[0].payload)["message"] == "hello"


async def test_a_target_must_be_one(tmp_path: Path, place: dict[str, Any]) -> None:
    """Prevents a command line from being imported."""
    async with local_bench(tmp_path, workers=1) as (bench, _):
        for argv in (("python3", "x.py"), ("module",), ("../x:main",)):
            with pytest.raises(LaunchFailed) as caught:
                await bench.launch("a", argv=argv, **place)
            assert caught.value.reason == "not_found"
        with pytest.raises(LaunchFailed) as caught:
            await bench.launch("a", argv=("a:b",), runtime="python", workspace=str(tmp_path / "none"))
        assert caught.value.reason == "workspace"
        with pytest.raises(LaunchFailed, match=r"no runtime 'cobol'; known are: .*jsonl"):
            await bench.launch("a", argv=("a",), runtime="cobol")


async def test_a_preload_that_fails_is_not_fatal(tmp_path: Path, place: dict[str, Any]) -> None:
    """Prevents one broken module from disabling the runtime."""
    async with local_bench(tmp_path, workers=1, preload=("no_such_module_here",), warm_python=True) as (bench, _):
        assert (await bench.run("a", argv=("agents_of_test:gives",), **place)).exit_code == 0


async def test_a_sandboxed_agent_writes_its_workspace_only(tmp_path: Path) -> None:
    """Prevents a sandbox that is asked for and not there."""
    outside = tmp_path / "outside"
    outside.mkdir()
    command = f"touch inside && touch {outside}/x; ls {outside} /tmp; exit 3"
    async with local_bench(tmp_path, workers=1) as (bench, _):
        fields: dict[str, Any] = {"sandbox": "workspace", "readonly_paths": (str(outside),), "runtime": "text"}
        try:
            exited = await bench.run("a", argv=("sh", "-c", command), **fields)
        except LaunchFailed as error:
            assert error.reason == "sandbox"  # noqa: PT017 - refusing is the other right answer
            assert "bubblewrap" in str(error)  # noqa: PT017
            pytest.skip(f"bubblewrap cannot be used here: {error}")
        assert exited.exit_code == 3
        assert (tmp_path / "a" / "inside").exists()
        assert os.listdir(outside) == []
        assert b"Read-only file system" in exited.stderr_tail


async def test_an_unknown_sandbox_is_refused(tmp_path: Path) -> None:
    """Prevents a misspelt sandbox from meaning none."""
    async with local_bench(tmp_path, workers=1) as (bench, _):
        with pytest.raises(LaunchFailed) as caught:
            await bench.launch("a", argv=("true",), sandbox="workspce")
        assert caught.value.reason == "sandbox"

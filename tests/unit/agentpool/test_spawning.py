"""The short way to start a command: taken only where it does what the long one would."""

from __future__ import annotations

import resource
import stat
import sys
from pathlib import Path
from typing import Any

import msgspec
import pytest

from agentpool.launching import LaunchPlan, find_program, rlimits_of
from agentpool.spawning import Spawner, is_executable_format
from agentpool.specs import Limits
from agentpool.testing import leave
from tests.support.pools import local_bench

PLAN = LaunchPlan(
    program="/bin/true",
    argv=("true",),
    env={},
    cwd="/",
    rlimits=rlimits_of(Limits()),
    nice=0,
    has_stdin=False,
    entrance=None,
)


@pytest.fixture
def spawner() -> Spawner:
    """One without cgroups; the core limit of this process is kept."""
    before = resource.getrlimit(resource.RLIMIT_CORE)
    made = Spawner(None)
    resource.setrlimit(resource.RLIMIT_CORE, before)
    return made


@pytest.mark.skipif(not sys.platform.startswith("linux"), reason="the short way needs setpriv of Linux")
def test_only_plain_commands_take_the_short_way(spawner: Spawner) -> None:
    """Prevents limits, nice or a cgroup from being silently left out."""
    if not spawner.can_start(PLAN):
        pytest.skip("this system has no setpriv")
    different: list[dict[str, Any]] = [
        {"nice": 5},
        {"rlimits": rlimits_of(Limits(open_files=10))},
        {"entrance": "/sys/fs/cgroup/x/cgroup.procs"},
        {"env": {"TEXT": "x" * 200_000}},
        {"argv": ("true", *["y" * 90_000] * 6)},
        {"program": "bin/true"},
    ]
    for change in different:
        assert not spawner.can_start(msgspec.structs.replace(PLAN, **change)), change


@pytest.mark.parametrize(
    ("content", "is_known"),
    [
        (b"#!/bin/sh\necho\n", True),
        (b"#! /usr/bin/env python3\n", True),
        (b"#!/no/such/interpreter\n", False),
        (b"#!relative\n", False),
        (b"#!" + b"/" * 300, False),
        (b"echo without a first line\n", False),
        (b"", False),
    ],
)
def test_formats_that_execve_may_refuse_take_the_long_way(tmp_path: Path, content: bytes, is_known: bool) -> None:
    """Prevents a failed exec from being reported as a started agent."""
    path = tmp_path / "program"
    path.write_bytes(content)
    path.chmod(path.stat().st_mode | stat.S_IXUSR)
    assert is_executable_format(str(path)) is is_known


def test_programs_are_found_by_the_agents_own_path(tmp_path: Path) -> None:
    """Prevents the supervisor's PATH from deciding which program an agent runs."""
    tool = tmp_path / "bin" / "tool"
    tool.parent.mkdir()
    tool.write_text("#!/bin/sh\n", encoding="utf-8")
    tool.chmod(0o755)
    assert find_program(("tool",), {"PATH": "/nowhere:bin"}, str(tmp_path)) == str(tool)
    assert find_program(("bin/tool",), {}, str(tmp_path)) == str(tool)


@pytest.mark.parametrize("limits", [Limits(), Limits(nice=1)], ids=["short", "long"])
async def test_both_ways_give_the_same_process(tmp_path: Path, limits: Limits) -> None:
    """Prevents an agent whose session, directory, descriptors or environment depend on how it was started."""
    shown = [{"do": "show", "what": what} for what in ("place", "descriptors", "environment")]
    async with local_bench(tmp_path, workers=1) as (bench, _):
        started = await bench.launch("a", *shown, leave(), limits=limits)
        await bench.exited("a")
        place, descriptors, environment = (
            msgspec.json.decode(record.payload)["value"] for record in bench.records("a", "progress")
        )
        assert place["session"] == place["pid"] == started.pid
        assert place["directory"] == str(tmp_path / "a")
        assert descriptors == [0, 1, 2]
        assert set(environment) <= {"PATH", "ORCHESTRATOR_AGENT_NONCE", "LC_CTYPE"}

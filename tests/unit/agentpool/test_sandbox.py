"""A sandbox that is asked for is there, or nothing runs."""

from __future__ import annotations

import os
import resource
import signal
from pathlib import Path

import pytest

from agentpool.errors import LaunchFailed
from agentpool.runtimes.base import Invocation
from agentpool.sandbox import Sandbox
from agentpool.specs import LaunchSpec
from tests.support.pools import local_bench
from tests.support.waiting import until

_INVOCATION = Invocation(argv=("agent", "--run"), env={"PATH": "/usr/bin"})


def _spec(sandbox: str, workspace: Path) -> LaunchSpec:
    return LaunchSpec(
        agent_id="a",
        attempt=1,
        nonce="n",
        runtime="text",
        argv=_INVOCATION.argv,
        env=_INVOCATION.env,
        workspace=str(workspace),
        record_dir=str(workspace),
        sandbox=sandbox,
    )


@pytest.mark.parametrize("program", [None, "#!/bin/sh\necho 'no user namespaces' >&2\nexit 1\n", "rubbish"])
def test_without_bubblewrap_a_sandboxed_agent_is_refused(
    tmp_path: Path, program: str | None, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Where bubblewrap was missing or not allowed, the agent ran without its sandbox (fault 73)."""
    if program is not None:
        (tmp_path / "bwrap").write_text(program)
        (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox = Sandbox()
    for _ in range(2):
        with pytest.raises(LaunchFailed, match="agent: a sandbox was asked for") as caught:
            sandbox.wrap(_spec("workspace", tmp_path), _INVOCATION)
        assert caught.value.reason == "sandbox"
    assert "(package bubblewrap), or ask for sandbox `none`" in str(caught.value), "the way out"
    assert sandbox.wrap(_spec("none", tmp_path), _INVOCATION) == _INVOCATION.argv


def test_bubblewrap_that_goes_and_comes_is_noticed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Removed while serving, it was an unclear error of a missing file; once refused, it stayed so."""
    program = tmp_path / "bwrap"
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox = Sandbox()
    for _ in range(2):
        program.write_text("#!/bin/sh\nexit 0\n")
        program.chmod(0o755)
        assert sandbox.wrap(_spec("workspace", tmp_path), _INVOCATION)[0] == str(program)
        program.unlink()
        with pytest.raises(LaunchFailed, match=r"bubblewrap \(bwrap\) is not on the PATH; install it") as caught:
            sandbox.wrap(_spec("workspace", tmp_path), _INVOCATION)
        assert caught.value.reason == "sandbox"


def test_no_room_for_the_test_of_bubblewrap_passes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """One moment without descriptors, and every sandboxed agent of that worker was refused for ever."""
    (tmp_path / "bwrap").write_text("#!/bin/sh\nexit 0\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox = Sandbox()
    before = resource.getrlimit(resource.RLIMIT_NOFILE)
    resource.setrlimit(resource.RLIMIT_NOFILE, (0, before[1]))
    try:
        with pytest.raises(LaunchFailed, match="Too many open files") as caught:
            sandbox.wrap(_spec("workspace", tmp_path), _INVOCATION)
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, before)
    assert (caught.value.reason, caught.value.is_permanent) == ("resources", False)
    until(lambda: not _refusal(sandbox, tmp_path), what="a sandbox")


def test_bubblewrap_that_does_not_answer_is_tried_again_and_not_all_the_time(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """A busy moment was remembered for ever; forgotten at once, many agents in a row would stop the worker's loop."""
    busy, tries = tmp_path / "busy", tmp_path / "tries"
    busy.touch()
    (tmp_path / "bwrap").write_text(f"#!/bin/sh\necho try >> {tries}\nwhile [ -e {busy} ]; do /bin/sleep 0.05; done\n")
    (tmp_path / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", str(tmp_path))
    sandbox = Sandbox()
    assert {_refusal(sandbox, tmp_path) for _ in range(20)} == {"resources"}
    assert len(tries.read_text().splitlines()) < 20
    busy.unlink()
    until(lambda: not _refusal(sandbox, tmp_path), what="a sandbox")


def _refusal(sandbox: Sandbox, workspace: Path) -> str:
    """The reason for which an agent is refused; empty when it is not."""
    try:
        sandbox.wrap(_spec("workspace", workspace), _INVOCATION)
    except LaunchFailed as error:
        return error.reason
    return ""


READY = """echo '{"type":"progress","message":"ready"}'; """


@pytest.mark.parametrize("cgroups", [True, False], ids=["cgroups", "no-cgroups"])
@pytest.mark.parametrize(
    ("command", "code", "saved"),
    [
        ("trap 'sleep 0.2; echo work > saved; exit 7' TERM; " + READY + "while :; do sleep 0.05; done", 7, ["saved"]),
        (READY + "exec sleep 600", 128 + signal.SIGTERM, []),  # as bubblewrap passes it on
    ],
    ids=["handles-it", "dies-of-it"],
)
async def test_a_sandboxed_agent_gets_its_grace(
    tmp_path: Path, cgroups: bool, command: str, code: int, saved: list[str]
) -> None:
    """TERM reached bubblewrap alone, whose death killed all inside at once: nothing could be saved."""
    async with local_bench(tmp_path, workers=1, cgroups=cgroups) as (bench, pool):
        try:
            await bench.launch("a", argv=("sh", "-c", command), sandbox="workspace")
        except LaunchFailed as error:
            assert error.reason == "sandbox"  # noqa: PT017 - refusing is the other right answer
            pytest.skip(f"bubblewrap cannot be used here: {error}")
        await bench.said("a")
        before = set(os.listdir(tmp_path / "a"))
        await pool.kill("a", grace_s=600.0)
        exited = await bench.exited("a")
        assert (exited.exit_code, exited.signal, exited.ended_by) == (code, None, "killed")
        assert sorted(set(os.listdir(tmp_path / "a")) - before) == saved
        assert exited.survivors.count == 0


@pytest.mark.parametrize("cgroups", [True, False], ids=["cgroups", "no-cgroups"])
async def test_a_sandbox_that_is_being_made_ends_at_once(
    tmp_path: Path, cgroups: bool, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents a TERM that is lost, since nothing runs inside yet, from costing the whole grace."""
    programs = tmp_path / "programs"
    programs.mkdir()
    making = "#!/bin/sh\n" + 'case "$*" in *" --chdir "*) ' + READY + "sleep 600;; esac\n"
    (programs / "bwrap").write_text(making)
    (programs / "bwrap").chmod(0o755)
    monkeypatch.setenv("PATH", f"{programs}{os.pathsep}{os.environ['PATH']}")
    async with local_bench(tmp_path, workers=1, cgroups=cgroups) as (bench, pool):
        await bench.launch("a", argv=("true",), sandbox="workspace")
        await bench.said("a")
        await pool.kill("a", grace_s=600.0)
        exited = await bench.exited("a")
        assert (exited.signal, exited.ended_by, exited.survivors.count) == (signal.SIGTERM, "killed", 0)

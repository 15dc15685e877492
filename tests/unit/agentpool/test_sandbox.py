"""A sandbox that is asked for is there, or nothing runs."""

from __future__ import annotations

from pathlib import Path

import pytest

from agentpool.errors import LaunchFailed
from agentpool.runtimes.base import Invocation
from agentpool.sandbox import Sandbox
from agentpool.specs import LaunchSpec

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

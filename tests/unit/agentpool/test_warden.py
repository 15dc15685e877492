"""The watcher that is left when supervisor and workers are gone."""

from __future__ import annotations

import os
import signal
import subprocess
import threading
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentpool import cgroups, warden
from agentpool.cgroups import Leaf
from agentpool.warden import Warden
from tests.support.waiting import until


@pytest.fixture
def directory(tmp_path: Path) -> Iterator[str]:
    """A cgroup directory of the test's own."""
    parent = cgroups.find_parent()
    path = os.path.join(parent or "", f"{cgroups.PREFIX}{tmp_path.name}-{os.getpid()}")
    try:
        os.mkdir(path)
    except OSError:
        pytest.skip("this system has no cgroup that can be written")
    yield path
    until(lambda: cgroups.remove(path))


@pytest.fixture
def sleeper(directory: str) -> Iterator[subprocess.Popen[bytes]]:
    """A process in a leaf."""
    leaf = Leaf.make(directory, "agent", {})
    assert leaf is not None
    process = subprocess.Popen(["sleep", "600"])
    Path(leaf.entrance).write_text(str(process.pid), encoding="ascii")
    yield process
    process.kill()
    process.wait()


def test_all_are_killed_when_nobody_holds_the_tether(directory: str, sleeper: subprocess.Popen[bytes]) -> None:
    """Prevents agents that outlive both their worker and their supervisor, and a warden that a TERM to all ends."""
    watching = Warden(directory)
    held = os.dup(watching.tether)
    until(lambda: int(_status(watching.pid, "SigIgn"), 16) >> (signal.SIGTERM - 1) & 1)
    os.kill(watching.pid, signal.SIGTERM)
    os.close(watching.tether)
    watching.tether = -1
    assert watching.ensure()
    assert sleeper.poll() is None
    os.close(held)
    assert sleeper.wait() == -signal.SIGKILL
    watching.stop()


def test_an_ordered_stop_kills_nobody(directory: str, sleeper: subprocess.Popen[bytes]) -> None:
    """Prevents a stopping pool from cutting the grace of its agents short, and a zombie that it leaves."""
    watching = Warden(directory)
    pid = watching.pid
    watching.stop()
    watching.stop()
    assert sleeper.poll() is None
    with pytest.raises(ChildProcessError):
        os.waitpid(pid, os.WNOHANG)


def test_a_killed_warden_is_replaced(directory: str, sleeper: subprocess.Popen[bytes]) -> None:
    """Prevents one kill from taking the guard away for good."""
    watching = Warden(directory)
    first = watching.pid
    os.kill(first, signal.SIGKILL)
    until(lambda: not watching.ensure())
    assert watching.pid != first
    assert watching.ensure()
    os.close(watching.tether)
    watching.tether = -1
    assert sleeper.wait() == -signal.SIGKILL
    watching.stop()


def test_a_missing_shell_leaves_nothing(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents descriptors that are lost where no warden can be had."""
    monkeypatch.setattr(warden, "SHELL", "/no/such/shell")
    before = len(os.listdir("/dev/fd"))
    with pytest.raises(OSError, match="/no/such/shell"):
        Warden(directory)
    assert len(os.listdir("/dev/fd")) == before


def test_a_warden_that_cannot_be_replaced_is_not_looked_for_again(
    directory: str, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Prevents the end of a worker that got the number of a dead warden from being taken by the warden's next look."""
    watching = Warden(directory)
    os.kill(watching.pid, signal.SIGKILL)
    os.waitid(os.P_PID, watching.pid, os.WEXITED | os.WNOWAIT)
    with monkeypatch.context() as patched:
        patched.setattr(warden, "SHELL", "/no/such/shell")
        with pytest.raises(OSError, match="/no/such/shell"):
            watching.ensure()
        assert watching.pid == 0
    assert not watching.ensure()
    assert watching.ensure()
    watching.stop()


def test_a_stop_and_a_look_at_once_leave_nothing(directory: str, monkeypatch: pytest.MonkeyPatch) -> None:
    """Prevents a warden that is started beside the pool's stop: a process without a pipe, which nobody reaps."""
    watching = Warden(directory)
    os.kill(watching.pid, signal.SIGKILL)
    os.waitid(os.P_PID, watching.pid, os.WEXITED | os.WNOWAIT)
    stopping = threading.Thread(target=watching.stop)
    start, started, failed = watching._start, [], []

    def start_meanwhile() -> None:
        stopping.start()
        stopping.join(0.3)  # a stop that does not wait for this is over by then
        start()
        started.append(watching.pid)

    monkeypatch.setattr(watching, "_start", start_meanwhile)
    try:
        watching.ensure()
    except OSError as error:
        failed.append(error)
    stopping.join()
    assert failed == []
    for pid in started:
        with pytest.raises(ChildProcessError):
            os.waitpid(pid, os.WNOHANG)
    assert watching.ensure()
    assert watching.pid == 0


def _status(pid: int, name: str) -> str:
    text = Path(f"/proc/{pid}/status").read_text(encoding="ascii")
    return next(line.split()[1] for line in text.splitlines() if line.startswith(name))

"""Directories of pools that are gone, in a hierarchy that other users share."""

from __future__ import annotations

import os
import resource
import subprocess
import time
from pathlib import Path

import pytest

from agentpool import cgroups


def test_what_another_user_left_is_not_waited_for(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Each directory that root's killed sidecar had left made every later start of a user's own take 3 s longer."""
    gone = subprocess.Popen(["/bin/true"])
    gone.wait()
    left = tmp_path / f"{cgroups.PREFIX}{gone.pid}-1"
    (left / "agt_1").mkdir(parents=True)
    # No cgroup.kill that can be written, and something in it that cannot be removed: as another user's looks.
    (left / "agt_1" / "cgroup.procs").touch()

    def wait(_: float) -> None:
        raise AssertionError("it waits for what it cannot end")

    monkeypatch.setattr(time, "sleep", wait)
    assert cgroups.settle_abandoned(str(tmp_path)) == 0
    assert left.is_dir()


def test_what_cannot_be_looked_at_is_not_taken_for_empty(tmp_path: Path) -> None:
    """A worker whose descriptors had run out told of no survivors while an agent's processes lived on."""
    leaf = cgroups.Leaf(str(tmp_path))
    (tmp_path / "cgroup.events").write_text("populated 1\nfrozen 0\n")
    soft, hard = resource.getrlimit(resource.RLIMIT_NOFILE)
    highest = os.dup(0)
    os.close(highest)
    resource.setrlimit(resource.RLIMIT_NOFILE, (highest, hard))
    try:
        is_populated = leaf.is_populated()
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, (soft, hard))
    assert is_populated
    (tmp_path / "cgroup.events").write_text("populated 0\nfrozen 0\n")
    assert not leaf.is_populated()
    (tmp_path / "cgroup.events").unlink()
    assert not leaf.is_populated()

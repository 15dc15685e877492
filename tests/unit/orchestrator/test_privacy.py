"""Private files stay private."""

from __future__ import annotations

import os
import threading
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import pytest

from orchestrator.audit import AuditLog
from orchestrator.privacy import make_private_directory, replace_private, write_private


@pytest.mark.parametrize("umask", [0o000, 0o777 & 0o022])
def test_modes_hold_whatever_the_umask(tmp_path: Path, umask: int) -> None:
    """With umask 0 every token file was world-readable."""
    old = os.umask(umask)
    try:
        directory = make_private_directory(tmp_path / "a" / "b")
        write_private(directory / "w", b"1")
        replace_private(directory / "r", b"2")
        audit = AuditLog(directory / "logs" / "audit.log")
        audit.record("spawn", subject="agt_1")
        audit.close()
    finally:
        os.umask(old)
    for path in (tmp_path / "a", directory, directory / "logs"):
        assert path.stat().st_mode & 0o777 == 0o700
    for path in (directory / "w", directory / "r", directory / "logs" / "audit.log"):
        assert path.stat().st_mode & 0o777 == 0o600


def test_threads_that_make_the_same_directory_at_once_all_succeed(tmp_path: Path) -> None:
    """Results that came together for a new issue failed for whoever came second to making its directory."""
    for number in range(20):
        path = tmp_path / str(number) / "project" / "issue"
        start = threading.Barrier(8)

        def make(path: Path = path, start: threading.Barrier = start) -> Path:
            start.wait()
            return make_private_directory(path)

        with ThreadPoolExecutor(8) as threads:
            assert {made.result() for made in [threads.submit(make) for _ in range(8)]} == {path}
        assert path.stat().st_mode & 0o777 == 0o700


def test_a_planted_link_is_not_written_through(tmp_path: Path) -> None:
    """An agent could point the sidecar's next write at a file of its choice."""
    victim = tmp_path / "victim"
    victim.write_bytes(b"kept")
    (tmp_path / "link").symlink_to(victim)
    with pytest.raises(OSError, match=r".*"):
        write_private(tmp_path / "link", b"lost")
    assert victim.read_bytes() == b"kept"


@pytest.mark.parametrize("has_reader", [False, True])
def test_a_planted_fifo_is_not_waited_for(tmp_path: Path, has_reader: bool) -> None:
    """An agent that made a FIFO of its ``task.md`` kept a thread of the sidecar, and its slot, for ever."""
    os.mkfifo(tmp_path / "fifo")
    reader = os.open(tmp_path / "fifo", os.O_RDONLY | os.O_NONBLOCK) if has_reader else -1
    try:
        with pytest.raises(OSError, match="it is a FIFO"):
            write_private(tmp_path / "fifo", b"x")
    finally:
        if has_reader:
            os.close(reader)


def test_audit_lines_are_one_line_each_and_rotate(tmp_path: Path) -> None:
    """A newline in a field forged a second entry; the file grew for ever."""
    audit = AuditLog(tmp_path / "audit.log", file_bytes=300)
    for number in range(10):
        audit.record("spawn", subject="a\nb\u2028c", project_id="p", number=number)
    audit.close()
    assert (tmp_path / "audit.log.1").exists()
    assert (tmp_path / "audit.log.1").stat().st_size < 700
    text = (tmp_path / "audit.log.1").read_text()
    assert all(line.startswith('{"timestamp"') for line in text.split("\n") if line)
    assert "\u2028" not in text

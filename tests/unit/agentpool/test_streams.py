"""An agent's output in files of bounded size."""

from __future__ import annotations

import os
import resource
import tempfile
from collections.abc import Iterator
from pathlib import Path

import pytest

from agentpool import streams
from agentpool.disk import RATION_BYTES, Rations
from agentpool.local import read_log
from agentpool.pump import Pump
from agentpool.reactor import Reactor
from agentpool.streams import OutputLog
from tests.support.disks import NoSmallDisk, fill, free_bytes, small_disk

NOBODY = 65534


def test_want_of_descriptors_loses_no_output(tmp_path: Path) -> None:
    """A process at its limit of descriptors could not begin the next file, and cut the output there for good."""
    log = OutputLog(str(tmp_path), "stdout", cap_bytes=1 << 20, file_bytes=streams.MIN_FILE_BYTES)
    parts = [bytes([65 + number]) * 3000 for number in range(6)]
    log.write(parts[0])
    log.write(parts[1])  # the second file has begun
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free, limits[1]))
    try:
        log.write(parts[2])
        log.write(parts[3])
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)
    for part in parts[4:]:
        log.write(part)
    log.close()
    assert log.truncated_at is None
    assert streams.read_stream(str(tmp_path), "stdout", 0, 1 << 20) == b"".join(parts)
    assert len(streams.log_starts(str(tmp_path), "stdout")) >= 3


def test_a_log_that_cannot_be_opened_keeps_no_descriptor(tmp_path: Path) -> None:
    """Each try of a second attempt in a process at its limit of descriptors took one more for good."""
    first = OutputLog(str(tmp_path), "stdout", cap_bytes=1 << 20)
    first.write(b"what the first attempt said")
    first.close()
    limits = resource.getrlimit(resource.RLIMIT_NOFILE)
    free = os.open(os.devnull, os.O_RDONLY)
    os.close(free)
    resource.setrlimit(resource.RLIMIT_NOFILE, (free + 1, limits[1]))
    try:
        with pytest.raises(OSError, match="Too many open files"):
            OutputLog(str(tmp_path), "stdout", cap_bytes=1 << 20)
        os.close(os.open(os.devnull, os.O_RDONLY))
    finally:
        resource.setrlimit(resource.RLIMIT_NOFILE, limits)


@pytest.mark.skipif(os.geteuid() != 0, reason="only root can leave a file to somebody who does not own it")
def test_a_log_of_somebody_elses_keeps_no_descriptor() -> None:
    """Where its mode could not be set, the descriptor stayed open."""
    with tempfile.TemporaryDirectory() as directory:
        os.chmod(directory, 0o777)  # not in ``tmp_path``, whose parents are private
        log = Path(directory) / "stdout.log"
        log.touch()
        log.chmod(0o666)
        before = os.open(os.devnull, os.O_RDONLY)
        os.close(before)
        os.seteuid(NOBODY)
        try:
            with pytest.raises(PermissionError):
                OutputLog(directory, "stdout", cap_bytes=1 << 20)
        finally:
            os.seteuid(0)
        after = os.open(os.devnull, os.O_RDONLY)
        os.close(after)
        assert after == before


@pytest.fixture
def disk(tmp_path: Path) -> Iterator[Path]:
    """A file system of 16 MiB, of which 1.6 are the reserve."""
    try:
        with small_disk(tmp_path / "disk", 16 << 20) as path:
            yield path
    except NoSmallDisk as reason:
        pytest.skip(str(reason))


def test_119_streams_of_several_workers_leave_the_reserve(disk: Path) -> None:
    """Streams that each looked at the disk for themselves took the last room together."""
    workers = [Rations(256 << 20) for _ in range(8)]
    logs = []
    for number in range(119):
        directory = disk / str(number)
        directory.mkdir()
        logs.append(OutputLog(str(directory), "stdout", 1 << 30, 1 << 20, workers[number % 8]))
    chunk = b"x" * 60_000
    try:
        while any(log.truncated_at is None for log in logs):
            for log in logs:
                log.write(chunk)
        reserve = (16 << 20) // 10
        # Each worker may have handed out one ration after the last that was measured, and files end in whole pages.
        assert reserve - 8 * RATION_BYTES - 119 * 4096 < free_bytes(disk) <= reserve + 8 * RATION_BYTES + 119 * 4096
        assert {log.truncated_by for log in logs} == {"disk"}
        for number, log in enumerate(logs):
            assert log.truncated_at == streams.end_of_stream(str(disk / str(number)), "stdout")
    finally:
        for log in logs:
            log.close()


def test_a_cap_and_a_disk_are_told_apart(disk: Path) -> None:
    """A stream that was cut said where, but not whether its limit or the disk had cut it."""
    log = OutputLog(str(disk), "stdout", 1000, rations=Rations(256 << 20))
    log.write(b"x" * 2000)
    log.close()
    assert (log.truncated_at, log.truncated_by) == (1000, "cap")
    filler = fill(disk)
    full = OutputLog(str(disk), "stderr", 1000, rations=Rations(256 << 20))
    full.write(b"x" * 100)
    full.close()
    filler.unlink()
    assert (full.truncated_at, full.truncated_by, full.received_bytes) == (0, "disk", 100)


def test_a_stream_that_ends_on_a_full_disk_is_whole(disk: Path) -> None:
    """Each stream that ended on a disk down to its reserve was said to be cut there, the empty ones too."""
    logs = [OutputLog(str(disk), stream, 1000, rations=Rations(256 << 20)) for stream in ("stdout", "stderr")]
    reactor = Reactor()
    feeders = []
    for log in logs:
        pipe, feeder = os.pipe()
        os.set_blocking(pipe, False)
        Pump(reactor, pipe, log, None, lambda: None).begin()
        feeders.append(feeder)
    os.write(feeders[0], b"all that it says")
    reactor.turn()
    fill(disk)
    for feeder in feeders:
        os.close(feeder)
    reactor.turn()
    for log in logs:
        log.close()
    assert [(log.truncated_at, log.truncated_by, log.received_bytes) for log in logs] == [(None, "", 16), (None, "", 0)]


def test_room_is_measured_once_for_many_small_writes(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """A look at the file system for each line would cost more than the line."""
    looks: list[int] = []
    measure = os.fstatvfs

    def look(fd: int) -> os.statvfs_result:
        looks.append(fd)
        return measure(fd)

    monkeypatch.setattr(os, "fstatvfs", look)
    monkeypatch.setattr("agentpool.disk.time.monotonic", lambda: 1.0)
    log = OutputLog(str(tmp_path), "stdout", 1 << 30, rations=Rations(4096))
    for _ in range(10_000):
        log.write(b"a line\n")
    log.close()
    assert log.position == 70_000
    assert 1 <= len(looks) <= 70_000 // RATION_BYTES + 1


def test_a_stream_that_was_gone_on_with_is_not_cut_where_it_was_before(disk: Path) -> None:
    """All that a second attempt wrote when there was room again was served as a stream that ends before it."""

    def attempt(says: bytes) -> None:
        log = OutputLog(str(disk), "stdout", 1 << 20, rations=Rations(256 << 20))
        log.write(says)
        log.close()

    attempt(b"x" * 1000)
    filler = fill(disk)
    attempt(b"lost")
    assert read_log(str(disk), "stdout", 0, 1 << 20).truncated_at == 1000
    filler.unlink()
    attempt(b"y" * 8000)
    chunk = read_log(str(disk), "stdout", 0, 1 << 20)
    assert (len(chunk.data), chunk.truncated_at) == (9000, None)


@pytest.mark.parametrize("mark", [b"", b"10", b"9" * 100, b"x disk 0", b"\xff"])
def test_a_mark_that_says_nothing_is_of_the_end(tmp_path: Path, mark: bytes) -> None:
    """A full disk took the mark's file and not what it says: everything seemed to be cut from byte 0 on."""
    (tmp_path / "stdout.log").write_bytes(b"kept")
    Path(streams.truncation_path(str(tmp_path), "stdout")).write_bytes(mark)
    assert streams.find_truncation(str(tmp_path), "stdout") == (4, "disk", None)


def test_nobody_waits_for_what_is_in_a_marks_place(tmp_path: Path) -> None:
    """A FIFO there held up whoever read the output, and the worker when the stream was cut."""
    os.mkfifo(streams.truncation_path(str(tmp_path), "stdout"))
    log = OutputLog(str(tmp_path), "stdout", cap_bytes=0)
    log.write(b"lost")
    log.close()
    assert log.truncated_at == 0
    assert read_log(str(tmp_path), "stdout", 0, 100).truncated_at is None

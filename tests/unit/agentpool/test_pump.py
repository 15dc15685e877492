"""A pipe on its way into a log."""

from __future__ import annotations

import fcntl
import os
import time
from pathlib import Path

import pytest

from agentpool import pump as pumps
from agentpool.platforms import IS_LINUX
from agentpool.pump import Pump
from agentpool.reactor import Reactor
from agentpool.streams import BIG_PIPE_BYTES, DEFAULT_PIPE_BYTES, OutputLog, read_stream

PIECE = bytes(range(256)) * 16
PIECES_OF_A_PIPE = DEFAULT_PIPE_BYTES // len(PIECE)

pytestmark = pytest.mark.skipif(not IS_LINUX, reason="pipes are enlarged on Linux")


@pytest.fixture(autouse=True)
def times(monkeypatch: pytest.MonkeyPatch) -> None:
    """Only bytes count: windows do not end, and neither does the time to fill."""
    monkeypatch.setattr(pumps, "FLOOD_WINDOW_S", 3600.0)
    monkeypatch.setattr(pumps, "FILL_S", 3600.0)


class Stream:
    """A pump, its reactor, and the agent's end of the pipe."""

    def __init__(self, directory: Path) -> None:
        self.directory = str(directory)
        self.reactor = Reactor()
        self.pipe, self.feeder = os.pipe()
        os.set_blocking(self.pipe, False)
        self.chunks: list[bytes] = []
        self.log = OutputLog(self.directory, "stdout", 1 << 30)
        self.pump = Pump(self.reactor, self.pipe, self.log, self.chunks.append, lambda: None)
        self.pump.begin()

    def __enter__(self) -> Stream:
        return self

    def __exit__(self, *_error: object) -> None:
        os.close(self.feeder)
        self.pump.close()
        self.log.close()

    def feed(self, pieces: int) -> None:
        """Write pieces, with a turn of the reactor after each."""
        for _ in range(pieces):
            os.write(self.feeder, PIECE)
            self.turn()

    def turn(self) -> None:
        """One turn of the reactor, which does not wait."""
        self.reactor.later(0.0, lambda: None)
        self.reactor.turn()

    def size_of_pipe(self) -> int:
        """What the pipe can hold."""
        return fcntl.fcntl(self.feeder, fcntl.F_GETPIPE_SZ)


def test_a_flood_in_small_pieces_gets_a_large_pipe_and_time_to_fill_it(tmp_path: Path) -> None:
    """A worker that kept pace with a flood took some pages at a time, for a call and a wake-up each."""
    pieces = pumps.FLOOD_BYTES // len(PIECE)
    with Stream(tmp_path) as stream:
        stream.feed(pieces - 1)
        assert (len(stream.chunks), stream.size_of_pipe()) == (pieces - 1, DEFAULT_PIPE_BYTES)
        stream.feed(1)
        assert (len(stream.chunks), stream.size_of_pipe()) == (pieces, BIG_PIPE_BYTES)
        stream.feed(3)
        assert len(stream.chunks) == pieces, "they are left to gather"
        stream.pump.drain()
        assert stream.chunks[-1] == PIECE * 3
    assert read_stream(str(tmp_path), "stdout", 0, 1 << 30) == PIECE * (pieces + 3)


def test_a_pipe_that_was_full_is_a_flood(tmp_path: Path) -> None:
    """Before its worker looked at it for the first time."""
    with Stream(tmp_path) as stream:
        os.write(stream.feeder, PIECE * PIECES_OF_A_PIPE)
        stream.turn()
        assert stream.size_of_pipe() == BIG_PIPE_BYTES


def test_a_pipe_that_fills_may_be_paused_and_resumed(tmp_path: Path) -> None:
    """A stream that was let on must not wait for the rest of its time."""
    with Stream(tmp_path) as stream:
        os.write(stream.feeder, PIECE * PIECES_OF_A_PIPE)
        stream.turn()
        stream.feed(1)
        assert len(stream.chunks) == 1, "it fills"
        stream.pump.pause()
        stream.turn()
        stream.pump.resume()
        stream.turn()
        assert stream.chunks[1:] == [PIECE]


def test_the_time_to_fill_ends_with_the_pipe(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """At its end the closed descriptor was watched, whose number may be another's by then."""
    monkeypatch.setattr(pumps, "FILL_S", 0.002)
    with Stream(tmp_path) as stream:
        os.write(stream.feeder, PIECE * PIECES_OF_A_PIPE)
        stream.turn()
        stream.pump.close()
        time.sleep(0.005)
        stream.turn()
        assert len(stream.chunks) == 1


def test_all_that_a_large_pipe_holds_is_taken_at_the_end(tmp_path: Path) -> None:
    """An agent of root's made its pipe 8 MiB and exited with it full: most of that was lost, and nothing said so."""
    size = 8 << 20
    source, feeder = os.pipe()
    try:
        fcntl.fcntl(feeder, fcntl.F_SETPIPE_SZ, size)
    except PermissionError:  # in most containers: a file holds as much, and says so in the same way
        os.close(source)
        os.close(feeder)
        feeder = os.open(tmp_path / "held", os.O_WRONLY | os.O_CREAT)
        source = os.open(tmp_path / "held", os.O_RDONLY)
    for _ in range(size // len(PIECE)):
        os.write(feeder, PIECE)
    log = OutputLog(str(tmp_path), "stdout", 1 << 30)
    Pump(Reactor(), source, log, None, lambda: None).drain()
    os.close(feeder)
    log.close()
    assert log.position == size


def test_a_stranger_with_the_pipe_does_not_hold_up_the_end(tmp_path: Path) -> None:
    """What is written as fast as it is read would be drained for ever."""
    with Stream(tmp_path) as stream:

        def write_on(data: bytes) -> None:
            os.write(stream.feeder, data)

        os.write(stream.feeder, PIECE)
        Pump(stream.reactor, os.dup(stream.pipe), stream.log, write_on, lambda: None).drain()
    assert read_stream(str(tmp_path), "stdout", 0, 1 << 30) == PIECE

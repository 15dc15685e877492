"""Moves one output pipe into its log, and into a parser when there is one."""

from __future__ import annotations

import os
from collections.abc import Callable

from agentpool.platforms import IS_LINUX
from agentpool.reactor import READ, Reactor
from agentpool.streams import BIG_PIPE_BYTES, DEFAULT_PIPE_BYTES, READ_BYTES, OutputLog, enlarge

#: What is read at once for one stream before the others get their turn.
TURN_BYTES = 4 * BIG_PIPE_BYTES


class Pump:
    """Reads a non-blocking pipe whenever it is ready. ``consume`` sees each chunk after it is in the log."""

    def __init__(
        self,
        reactor: Reactor,
        fd: int,
        log: OutputLog,
        consume: Callable[[bytes], None] | None,
        moved: Callable[[], None],
    ) -> None:
        self._reactor = reactor
        self._fd = fd
        self.log = log
        self._consume = consume
        self._moved = moved
        self._is_enlarged = False
        self._can_splice = consume is None and IS_LINUX
        self.is_ended = False
        self.is_paused = False

    def begin(self) -> None:
        """Start to read."""
        self._reactor.watch(self._fd, READ, self._on_readable)

    def pause(self) -> None:
        """Read no more for now; the agent will block when its pipe is full."""
        if not self.is_paused and not self.is_ended:
            self.is_paused = True
            self._reactor.forget(self._fd)

    def resume(self) -> None:
        """Read again."""
        if self.is_paused and not self.is_ended:
            self.is_paused = False
            self.begin()

    def drain(self) -> None:
        """Take what is in the pipe now, at most what a pipe can hold, and close it.

        For an agent whose tree is gone: nobody is left to write, unless a descriptor was handed to a
        stranger, which must not hold up the end.
        """
        taken = 0
        while not self.is_ended and taken <= BIG_PIPE_BYTES:
            moved = self._move()
            if moved is None:
                break
            taken += moved
        self.close()

    def close(self) -> None:
        """Close the pipe; harmless when closed."""
        if not self.is_ended:
            self.is_ended = True
            self._reactor.forget(self._fd)
            os.close(self._fd)

    def _on_readable(self, _events: int) -> None:
        taken = 0
        while not self.is_ended and not self.is_paused and taken < TURN_BYTES:
            moved = self._move()
            if moved is None:
                break
            taken += moved
            if self._consume is not None or moved < DEFAULT_PIPE_BYTES:
                break
        if taken:
            self._moved()

    def _move(self) -> int | None:
        """Move one chunk; None when the pipe is empty now. Closes at the end of the stream."""
        try:
            moved = self._splice() if self._can_splice else self._read()
        except BlockingIOError:
            return None
        if moved == 0:
            self.close()
            return 0
        if moved >= DEFAULT_PIPE_BYTES and not self._is_enlarged:
            self._is_enlarged = True
            enlarge(self._fd)
        return moved

    def _splice(self) -> int:
        try:
            return self.log.splice(self._fd, BIG_PIPE_BYTES)
        except BlockingIOError:
            raise
        except OSError:
            # The log's file system has no splice: read and write as everywhere else.
            self._can_splice = False
            return self._read()

    def _read(self) -> int:
        data = os.read(self._fd, READ_BYTES)
        if data:
            self.log.write(data)
            if self._consume is not None:
                self._consume(data)
        return len(data)

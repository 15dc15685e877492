"""Moves one output pipe into its log, and into a parser when there is one."""

from __future__ import annotations

import os
import time
from collections.abc import Callable

from agentpool.reactor import READ, Reactor, Timer
from agentpool.streams import BIG_PIPE_BYTES, DEFAULT_PIPE_BYTES, READ_BYTES, OutputLog, enlarge, held_bytes

#: A stream floods that brings so much within so many seconds, or fills its pipe.
FLOOD_BYTES = 1 << 20
FLOOD_WINDOW_S = 0.1
#: How long the enlarged pipe of a flood may fill before it is read again, in seconds. A worker that keeps pace would
#: otherwise take it in pieces of a few pages, and wake the agent after each.
FILL_S = 0.001


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
        self._window_end = 0.0
        self._window_bytes = 0
        self._is_flood = False
        self._is_enlarged = False
        self._filling: Timer | None = None
        self.is_ended = False
        self.is_paused = False

    def begin(self) -> None:
        """Start to read."""
        self._reactor.watch(self._fd, READ, self._on_readable)

    def pause(self) -> None:
        """Read no more for now; the agent will block when its pipe is full."""
        if not self.is_paused and not self.is_ended:
            self.is_paused = True
            self._forget()

    def resume(self) -> None:
        """Read again."""
        if self.is_paused and not self.is_ended:
            self.is_paused = False
            self.begin()

    def drain(self) -> None:
        """Take what is in the pipe at this moment, however large it was made, and close it.

        For an agent whose tree is gone: nobody is left to write, unless a descriptor was handed to a
        stranger, which must not hold up the end.
        """
        left = 0 if self.is_ended else held_bytes(self._fd)
        while left > 0:
            moved = self._move()
            if not moved:
                break
            left -= moved
        self.close()

    def close(self) -> None:
        """Close the pipe; harmless when closed."""
        if not self.is_ended:
            self.is_ended = True
            self._forget()
            os.close(self._fd)

    def _on_readable(self, _events: int) -> None:
        taken = self._move()
        if not taken:
            return
        if not self._is_flood:
            self._look_for_flood(taken)
        if self._is_enlarged and taken < BIG_PIPE_BYTES // 2 and not self.is_paused:
            self._forget()
            self._filling = self._reactor.later(FILL_S, self.begin)
        self._moved()

    def _look_for_flood(self, taken: int) -> None:
        now = time.monotonic()
        if now >= self._window_end:
            self._window_end, self._window_bytes = now + FLOOD_WINDOW_S, 0
        self._window_bytes += taken
        if taken >= DEFAULT_PIPE_BYTES or self._window_bytes >= FLOOD_BYTES:
            self._is_flood = True
            self._is_enlarged = enlarge(self._fd)

    def _forget(self) -> None:
        self._reactor.forget(self._fd)
        if self._filling is not None:
            self._filling.cancel()

    def _move(self) -> int | None:
        """Move one chunk; None when the pipe is empty now, 0 at the end of the stream, which closes it."""
        try:
            data = os.read(self._fd, READ_BYTES)
        except BlockingIOError:
            return None
        if not data:
            self.close()
            return 0
        self.log.write(data)
        if self._consume is not None:
            self._consume(data)
        return len(data)

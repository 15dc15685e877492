"""What waits for an agent's stdin: bounded, written when the pipe takes it, its fate reported."""

from __future__ import annotations

import os
from collections import OrderedDict, deque
from collections.abc import Callable, Iterable

from agentpool.messages import FeedLine

#: Written lines whose acknowledgement is still awaited; the oldest are forgotten beyond this.
MAX_UNACKNOWLEDGED = 1024

Report = Callable[[str, str, str], None]
FeedReport = Callable[[str, int], None]


class StdinQueue:
    """Lines for one agent. Never blocks: what the pipe does not take waits, up to ``bound`` bytes.

    ``report(message_id, state, reason)`` is called for ``queued``, ``written``, ``acknowledged`` and ``dead``;
    ``report_feed(state, sequence)`` as ``messages.FeedState`` says; ``release(fd)`` just before the pipe is closed.
    """

    def __init__(
        self, fd: int, bound: int, report: Report, report_feed: FeedReport, release: Callable[[int], None]
    ) -> None:
        self._fd: int | None = fd
        self._release = release
        self._bound = bound
        self._report = report
        self._report_feed = report_feed
        #: Lines that wait; those of the feed have no message id.
        self._waiting: deque[tuple[str | None, memoryview]] = deque()
        self._is_refusing = False
        self._wants_room = False
        self._waiting_bytes = 0
        self._unacknowledged: OrderedDict[str, None] = OrderedDict()
        self._is_closing = False
        self.written_bytes = 0

    @property
    def fd(self) -> int | None:
        """The pipe; None once it is closed."""
        return self._fd

    @property
    def wants_write(self) -> bool:
        """Whether lines wait for the pipe."""
        return self._fd is not None and bool(self._waiting)

    def put(self, message_id: str, line: bytes) -> None:
        """Queue one line (its newline is added). A full or closed queue reports it dead at once."""
        data = line + b"\n"
        if self._fd is None or self._is_closing:
            self._report(message_id, "dead", "stdin_closed")
            return
        # A line larger than the bound still goes, alone: of a reader that keeps up nothing is lost.
        if self._waiting and self._waiting_bytes + len(data) > self._bound:
            self._report(message_id, "dead", "stdin_full")
            return
        self._report(message_id, "queued", "")
        self._queue(message_id, data)

    def say(self, line: bytes) -> None:
        """Queue one line (its newline is added) whose fate nobody asks for, if there is room."""
        data = line + b"\n"
        if self._fd is not None and not self._is_closing and self._waiting_bytes + len(data) <= self._bound:
            self._queue(None, data)

    def feed(self, lines: Iterable[FeedLine], *, is_retry: bool) -> None:
        """Queue lines (their newlines are added) up to the first that there is no room for; see ``messages.Feed``."""
        if is_retry:
            self._is_refusing = self._wants_room = False
        sequence = 0
        for item in lines:
            sequence = item.sequence
            if self._is_refusing:
                return
            if self._fd is None or self._is_closing:
                self._is_refusing = True
                self._report_feed("closed", sequence)
                return
            data = item.line + b"\n"
            # A line larger than the bound still goes, alone.
            if self._waiting and self._waiting_bytes + len(data) > self._bound:
                self._is_refusing = self._wants_room = True
                self._report_feed("full", sequence)
                return
            self._queue(None, data)
        if is_retry:
            self._report_feed("taken", sequence)

    def _queue(self, message_id: str | None, data: bytes) -> None:
        self._waiting.append((message_id, memoryview(data)))
        self._waiting_bytes += len(data)
        self.flush()

    def flush(self) -> None:
        """Write what the pipe takes now."""
        self._write()
        if self._wants_room and self._waiting_bytes <= self._bound // 2:
            self._wants_room = False
            self._report_feed("ready", 0)

    def _write(self) -> None:
        while self._fd is not None and self._waiting:
            message_id, data = self._waiting[0]
            try:
                written = os.write(self._fd, data)
            except BlockingIOError:
                return
            except OSError:
                self.close("stdin_closed")
                return
            self.written_bytes += written
            self._waiting_bytes -= written
            if written < len(data):
                self._waiting[0] = (message_id, data[written:])
                return
            self._waiting.popleft()
            if message_id is None:
                continue
            self._unacknowledged[message_id] = None
            if len(self._unacknowledged) > MAX_UNACKNOWLEDGED:
                self._unacknowledged.popitem(last=False)
            self._report(message_id, "written", "")
        if self._is_closing and self._fd is not None:
            self.close("")

    def acknowledge(self, message_id: str) -> bool:
        """The agent says that it has taken a line; False when no such line was written to it."""
        if message_id not in self._unacknowledged:
            return False
        del self._unacknowledged[message_id]
        self._report(message_id, "acknowledged", "")
        return True

    def finish(self) -> None:
        """Close once all that waits is written."""
        self._is_closing = True
        self.flush()

    def close(self, reason: str) -> None:
        """Close now; what still waits is dead with ``reason``. Harmless when closed."""
        fd, self._fd = self._fd, None
        waiting, self._waiting = self._waiting, deque()
        self._waiting_bytes = 0
        for message_id, _ in waiting:
            if message_id is not None:
                self._report(message_id, "dead", reason)
        if fd is not None:
            self._release(fd)
            os.close(fd)

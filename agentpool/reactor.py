"""A small single-threaded event loop for worker processes: descriptors, timers and SIGCHLD.

asyncio is left out of the workers for memory and start time, and because its child watchers would compete
for the exit codes that the worker must read itself.
"""

from __future__ import annotations

import heapq
import itertools
import os
import select
import signal
import time
from collections.abc import Callable

READ = select.POLLIN
WRITE = select.POLLOUT


class Timer:
    """A call to be made once; ``cancel`` makes it nothing."""

    __slots__ = ("callback",)

    def __init__(self, callback: Callable[[], None]) -> None:
        self.callback: Callable[[], None] | None = callback

    def cancel(self) -> None:
        """Forget the call."""
        self.callback = None


class Reactor:
    """Waits for descriptors, timers and children, and calls what was registered for them."""

    def __init__(self) -> None:
        # Not through ``selectors``, which makes an object for each event and each change: 20 µs an agent.
        self._poll: select.epoll | select.poll = select.epoll() if hasattr(select, "epoll") else select.poll()
        self._ticks_per_s = 1 if hasattr(select, "epoll") else 1000
        self._watched: dict[int, tuple[int, Callable[[int], None]]] = {}
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._is_running = False

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call ``callback(ready events)`` when ``fd`` is ready; registering again replaces."""
        before = self._watched.get(fd)
        if before is None:
            self._poll.register(fd, events)
        elif before[0] != events:
            self._poll.modify(fd, events)
        self._watched[fd] = (events, callback)

    def forget(self, fd: int) -> None:
        """Watch ``fd`` no longer; harmless when it was not watched. Call before closing it."""
        if self._watched.pop(fd, None) is not None:
            try:
                self._poll.unregister(fd)
            except OSError:
                pass  # closed before; the system has forgotten it by itself

    def later(self, delay_s: float, callback: Callable[[], None]) -> Timer:
        """Call once after ``delay_s`` seconds of the monotonic clock."""
        timer = Timer(callback)
        heapq.heappush(self._timers, (time.monotonic() + delay_s, next(self._order), timer))
        return timer

    def on_child(self, callback: Callable[[], None]) -> None:
        """Call when a child may have changed state. Signals coalesce: the callback must look for all of them."""
        read_end, write_end = os.pipe2(os.O_NONBLOCK | os.O_CLOEXEC) if hasattr(os, "pipe2") else _portable_pipe()
        signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        signal.signal(signal.SIGCHLD, _do_nothing)

        def drain(_events: int) -> None:
            try:
                while os.read(read_end, 4096):
                    pass
            except BlockingIOError:
                pass
            callback()

        self.watch(read_end, READ, drain)

    def stop(self) -> None:
        """Return from ``run`` after this turn."""
        self._is_running = False

    def run(self) -> None:
        """Turn until ``stop``."""
        self._is_running = True
        while self._is_running:
            self.turn()

    def turn(self) -> None:
        """Wait for the next descriptor or timer and make the calls that are due."""
        timeout_s = -1.0
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if self._timers:
            timeout_s = max(0.0, self._timers[0][0] - time.monotonic())
        watched = self._watched
        ready = [(fd, events, watched.get(fd)) for fd, events in self._poll.poll(timeout_s * self._ticks_per_s)]
        for fd, events, entry in ready:
            # A callback earlier in this turn may have forgotten the descriptor, or closed it and opened another.
            if entry is not None and watched.get(fd) is entry:
                wanted, callback = entry
                # The end of a stream and an error are told to whoever watches.
                callback(events & wanted or wanted)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            due = heapq.heappop(self._timers)[2].callback
            if due is not None:
                due()


def _do_nothing(_number: int, _frame: object) -> None:
    """A handler must exist for the wake-up descriptor to be written."""


def _portable_pipe() -> tuple[int, int]:
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    os.set_blocking(write_end, False)
    return read_end, write_end

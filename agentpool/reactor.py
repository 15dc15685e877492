"""A small single-threaded event loop for worker processes: descriptors, timers and SIGCHLD.

asyncio is left out of the workers for memory and start time, and because its child watchers would compete
for the exit codes that the worker must read itself.
"""

from __future__ import annotations

import heapq
import itertools
import os
import selectors
import signal
import time
from collections.abc import Callable

READ = selectors.EVENT_READ
WRITE = selectors.EVENT_WRITE


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
        self._selector = selectors.DefaultSelector()
        self._timers: list[tuple[float, int, Timer]] = []
        self._order = itertools.count()
        self._is_running = False

    def watch(self, fd: int, events: int, callback: Callable[[int], None]) -> None:
        """Call ``callback(ready events)`` when ``fd`` is ready; registering again replaces."""
        try:
            self._selector.register(fd, events, callback)
        except KeyError:
            self._selector.modify(fd, events, callback)

    def forget(self, fd: int) -> None:
        """Watch ``fd`` no longer; harmless when it was not watched. Call before closing it."""
        try:
            self._selector.unregister(fd)
        except (KeyError, ValueError):
            pass

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
        timeout = None
        while self._timers and self._timers[0][2].callback is None:
            heapq.heappop(self._timers)
        if self._timers:
            timeout = max(0.0, self._timers[0][0] - time.monotonic())
        for key, events in self._selector.select(timeout):
            # A callback earlier in this turn may have forgotten the descriptor, or closed it and opened another.
            current = self._selector.get_map().get(key.fd)
            if current is not None and current.data is key.data:
                key.data(events)
        now = time.monotonic()
        while self._timers and self._timers[0][0] <= now:
            callback = heapq.heappop(self._timers)[2].callback
            if callback is not None:
                callback()


def _do_nothing(_number: int, _frame: object) -> None:
    """A handler must exist for the wake-up descriptor to be written."""


def _portable_pipe() -> tuple[int, int]:
    read_end, write_end = os.pipe()
    os.set_blocking(read_end, False)
    os.set_blocking(write_end, False)
    return read_end, write_end
